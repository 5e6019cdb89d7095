"""Decorators for functions that see episodes before and after they are stored and recalled, and that name clusters."""

from ww_core.hooks import after_recall, after_store, before_recall, before_store, name_cluster

__all__ = ["after_recall", "after_store", "before_recall", "before_store", "name_cluster"]
