"""The three sweeps that keep a chat small. No Celery here: a client in, a report out."""

from tasks.cleaning.report import Report
from tasks.cleaning.sweeps import clean_backlog, clean_channels, clean_clients

__all__ = ["Report", "clean_backlog", "clean_channels", "clean_clients"]
