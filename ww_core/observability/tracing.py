"""Spans of OpenTelemetry from a store through the task to the upsert: off unless installed and asked for.

The task that embeds an episode is not called by who stored it: messages only ring, and one drain embeds what many
stored. So the trace of an episode follows from its id: whoever works on it, in whichever process, adds to it,
and nothing has to be carried through the stores. Spans in it link to what was going on around them: the application's
own span for a store, the task for an upsert.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

from ww_core.errors import ConfigurationError

NAME = "world_weaver"
STORE, UPSERT = "ww.store", "ww.upsert"


class Tracing:
    """Makes spans once it is enabled; before that every call does nothing and imports nothing."""

    def __init__(self) -> None:
        self._tracer: Any = None
        self._share = 0.0

    @property
    def on(self) -> bool:
        return self._tracer is not None

    def enable(self, share: float, provider: Any = None) -> None:
        """Trace a ``share`` (0 to 1) of the episodes, with the process's tracer provider where none is given.

        Raises ConfigurationError where OpenTelemetry is not installed.
        """
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise ConfigurationError(
                f"trace_sample = {share:g}, but OpenTelemetry is not installed",
                hint="install world-weaver[trace], or set trace_sample to 0",
            ) from error
        self._tracer = trace.get_tracer(NAME, tracer_provider=provider)
        self._share = share

    def disable(self) -> None:
        """Make no more spans."""
        self._tracer = None

    @contextmanager
    def task(self, name: str, **attributes: str) -> Iterator[None]:
        """The block as a span of its own, the parent of what other libraries trace within it."""
        if self._tracer is None:
            yield
            return
        with self._tracer.start_as_current_span(name, attributes={f"ww.{k}": v for k, v in attributes.items()}):
            yield

    def current(self) -> Any:
        """The span around the caller, to be linked to from another thread; None where nothing is traced."""
        if self._tracer is None:
            return None
        from opentelemetry import trace

        return trace.get_current_span().get_span_context()

    def episodes(self, name: str, episode_ids: Iterable[str], *, since: int, around: Any) -> None:
        """One span for each sampled episode, from ``since`` (``time.time_ns()``) until now, linked to ``around``."""
        if self._tracer is None:
            return
        from opentelemetry import trace

        links = [trace.Link(around)] if around is not None and around.is_valid else []
        now = time.time_ns()
        for episode_id in episode_ids:
            digest = blake2b(episode_id.encode(), digest_size=24).digest()
            if int.from_bytes(digest[:8]) >= self._share * 2**64:
                continue
            parent = trace.SpanContext(
                trace_id=int.from_bytes(digest[:16]),
                span_id=int.from_bytes(digest[16:]),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
            span = self._tracer.start_span(
                name, context=context, start_time=since, links=links, attributes={"ww.episode_id": episode_id}
            )
            span.end(end_time=now)


_process = Tracing()


def process_tracing() -> Tracing:
    """The one Tracing of this process."""
    return _process
