"""What a caller asks of recall."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ww_core.stores.ports import Where

Mode: TypeAlias = Literal["auto", "flat", "hierarchical"]

MAX_LIMIT = 100


@dataclass(frozen=True, slots=True)
class RecallRequest:
    """One query. ``mode`` None follows the setting ``hierarchical_search``.

    ``offset`` skips the best results (paging). ``mmr`` between 0 and 1 trades relevance (1) for variety (0), None
    leaves the order by relevance. ``explain`` keeps parts that contributed nothing among the components.
    """

    query: str
    where: Where = field(default_factory=Where)
    limit: int = 10
    offset: int = 0
    mode: Mode | None = None
    explain: bool = False
    mmr: float | None = None
