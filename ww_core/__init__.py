"""The ingestion core and everything that can be said without a task queue."""
