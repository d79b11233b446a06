"""Spot checks, incidents and alerts as rows. None yet."""
