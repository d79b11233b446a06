"""Wires the three floors together. Nobody imports this package; it imports them."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
