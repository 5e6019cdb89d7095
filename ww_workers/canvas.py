"""Chains, groups and chords of an application, carried out at once where a task of this package is among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def at_once(ours: Any) -> Iterator[None]:
    """Within the block no such canvas reaches a broker; ``ours`` is the app whose tasks are meant."""
    from celery import canvas

    kinds = (canvas._chain, canvas.group, canvas._chord)
    before = {kind: kind.apply_async for kind in kinds}
    found = vars(canvas.Signature)["type"]
    # the application knows our tasks by their names alone
    canvas.Signature.type = property(
        lambda one: ours.tasks[one["task"]] if _ours(one) else found.__get__(one, type(one))
    )
    for kind in kinds:
        kind.apply_async = _applying(before[kind])
    try:
        yield
    finally:
        canvas.Signature.type = found
        for kind in kinds:
            kind.apply_async = before[kind]


def _applying(apply_async: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if any(map(_ours, _leaves(self))):
            return self.apply(args, kwargs)
        return apply_async(self, args, kwargs, **options)

    return apply


def _ours(signature: Any) -> bool:
    return str(signature["task"]).startswith("ww.")


def _leaves(signature: Any) -> Iterator[Any]:
    """The single tasks within a canvas, however deep."""
    given = signature.get("kwargs") or {}
    parts = [part for name in ("tasks", "header", "body") if (part := given.get(name)) is not None]
    if not parts:
        yield signature
    for part in parts:
        for one in [part] if isinstance(part, dict) else part:
            yield from _leaves(one)
