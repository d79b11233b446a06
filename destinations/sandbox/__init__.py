"""Platforms to try things on: they speak real wire formats at real paths, keep their own members, and fail on demand.

A process of its own with a file of its own. Nothing here reads or writes Rollcall's tables.
"""
