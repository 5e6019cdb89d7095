"""What an answer must be made of before it leaves: hooks may hand back anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from numbers import Real

from ww_core.errors import InvalidInput
from ww_core.models import ClusterRef, Fold, Recall, Recollection

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "episode_id": str,
    "content": str,
    "score": Real,
    "components": Mapping,
    "session_id": str,
    "timestamp": datetime,
    "context": Mapping,
    "outcome": (str, type(None)),
    "cluster": (ClusterRef, type(None)),
    "fold": (Fold, type(None)),
}


def whole(answer: Recall) -> Recall:
    """The answer with a tuple of results. Raises InvalidInput where it is not made as ``Recall`` says."""
    _is(answer.query, str, "query")
    _is(answer.mode, str, "mode")
    _is(answer.took_ms, Real, "took_ms")
    _is(answer.results, (tuple, list), "results")
    for place, hit in enumerate(answer.results):
        _is(hit, Recollection, f"results[{place}]")
        for name, kind in _FIELDS.items():
            _is(getattr(hit, name), kind, f"results[{place}].{name}")
    return answer if isinstance(answer.results, tuple) else replace(answer, results=tuple(answer.results))


def _is(value: object, kind: type | tuple[type, ...], name: str) -> None:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join("None" if one is type(None) else one.__name__ for one in kinds)
        raise InvalidInput(f"{name} is of type {type(value).__name__}, not {wanted}")
