"""Additions to Celery that keep worker and beat running while Redis fails, each with its reason."""
