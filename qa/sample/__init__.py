"""The sample shop of `manage.py demo`: made-up people who behave like a shop's, and the audiences a retention team would keep."""
