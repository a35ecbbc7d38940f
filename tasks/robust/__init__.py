"""What Celery lacks on Redis, each part with its reason."""
