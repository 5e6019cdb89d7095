"""Background work: the Celery app, its tasks and schedule, and the local dispatcher."""
