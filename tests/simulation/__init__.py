"""Schedules of faults played against the real ledger and delivery: one number gives one schedule. `python -m tests.simulation --help`.

clockwork.py   virtual time, and processes that are stopped, killed and handed the floor at named points
people.py      who there is and what they do, written as intake writes it; who is therefore wanted
platform.py    the sandbox's platforms in this process, and what goes wrong on the way to them
oracle.py      what must hold at every step and at the end, judged by the platform's own member set
schedule.py    one seed from its weather to its verdict
stage.py       the database and the few seams at which the product is driven
weakened.py    the ledger's protections, each of which can be switched off
ground.py      a process in which schedules can be played
"""
