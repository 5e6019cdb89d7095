"""Celery configuration, doorbell, dispatcher, lifecycle."""
