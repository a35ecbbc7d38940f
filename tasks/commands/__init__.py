"""The operator's commands: ``celery -A tasks ...``."""
