"""World Weaver: memory for AI agents.

Everything is loaded when it is first used, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ww import errors, hooks, memory
    from ww_core.config import Settings
    from ww_core.models import BatchReceipt, Cluster, Episode, Recall, Receipt, Recollection, Run

__all__ = [
    "BatchReceipt",
    "Cluster",
    "Episode",
    "Recall",
    "Receipt",
    "Recollection",
    "Run",
    "Settings",
    "errors",
    "hooks",
    "memory",
]

_SUBMODULES = frozenset({"errors", "hooks", "memory"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    home = "ww_core.config" if name == "Settings" else "ww_core.models"
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
