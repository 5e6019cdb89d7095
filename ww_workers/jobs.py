"""The background work of one deployment, whoever asks for it: dispatcher threads, Celery tasks, or a test.

Every job is blocking, starts no event loop and knows nothing of Celery. What is still to be done afterwards is said by
the bells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Protocol
from uuid import NAMESPACE_URL, uuid4, uuid5

from ww_core.consolidation.progress import ShutDown
from ww_core.consolidation.standing import answered
from ww_core.deployment import Deployment
from ww_core.errors import Busy
from ww_core.maintenance.drain import MAX_SECONDS, RETRY_SECONDS, Drain, DrainReport, never
from ww_core.maintenance.fading import FadeReport, fade
from ww_core.maintenance.refresh import Refresh
from ww_core.maintenance.sweep import SweepReport, sweep
from ww_core.maintenance.verify import verify
from ww_core.models import Receipt, Run, Vector, Verification
from ww_core.observability.alerts import Alert
from ww_core.observability.tracing import process_tracing
from ww_core.observability.watch import alert_watch
from ww_core.sessions import must_exist

log = logging.getLogger(__name__)

ENDED = frozenset({"done", "failed", "cancelled", "rolled_back"})
"""What a run's status is when nothing more will happen to it by itself."""


class Bells(Protocol):
    """Wakes whoever does the work. Never raises; a lost ring is made up for by the sweep."""

    def embed(self) -> None: ...

    def consolidate(self, run: Run) -> None: ...


class Jobs:
    """The work, on the deployment's stores. Drains and refreshes run one at a time; the rest may overlap."""

    def __init__(
        self,
        deployment: Deployment,
        bells: Bells,
        *,
        interruptions: tuple[type[BaseException], ...] = (),
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.deployment = deployment
        self._retry_seconds = retry_seconds
        self.bells = bells
        self._interruptions = interruptions

    # -- embedding

    @cached_property
    def _drain(self) -> Drain:
        from ww_core.recall.pieces import reader

        parts = self.deployment
        kept = parts.settings.late_interaction_stored and parts.settings.recall_weight_late > 0
        return Drain(
            parts.graph,
            parts.vectors,
            parts.embedding,
            parts.settings,
            parts.metrics,
            sparse=parts.sparse,
            pieces=reader(parts.embedding) if kept else None,
            interruptions=self._interruptions,
            retry_seconds=self._retry_seconds,
        )

    @cached_property
    def _refresh(self) -> Refresh:
        parts = self.deployment
        return Refresh(
            parts.graph,
            parts.vectors,
            parts.sparse,
            parts.metrics,
            breaker=self._drain.breaker,
            interruptions=self._interruptions,
        )

    def warm(self) -> None:
        """Load the model and check the collection. Raises ModelUnavailable, StoreUnavailable, ConfigurationError."""
        self._drain.prepare()

    def embed_pending(
        self,
        *,
        max_seconds: float = MAX_SECONDS,
        should_stop: Callable[[], bool] = never,
        should_yield: Callable[[], bool] = never,
        on_progress: Callable[[DrainReport], None] | None = None,
    ) -> DrainReport:
        """Embed what is pending, then refresh what is stale; rings where time ran out before the work did, where it was
        told to stop and others have to go on, and where rows are free again that a process held when it died."""
        clock = self._drain.clock
        started = clock()

        def share(report: DrainReport) -> None:
            # others may have nothing to do: the first claim already says that there is more than one can take
            if report.more:
                self.bells.embed()
            if on_progress is not None:
                on_progress(report)

        with process_tracing().task("ww.embed_pending"):
            report = self._drain.run(
                max_seconds=max_seconds, should_stop=should_stop, should_yield=should_yield, on_progress=share
            )
        if not report.more and not report.outage and not should_stop() and self.free_leases():
            report = replace(report, more=True)
        left = max_seconds - (clock() - started)
        stale = False
        if not report.more and not report.outage and left > 0 and not should_stop():
            refreshed = self._refresh.run(max_seconds=left, should_stop=should_stop, should_yield=should_yield)
            stale = refreshed.more
        if report.more or stale:
            self.bells.embed()
        return report

    def embed_query(self, text: str, *, counted: bool = True) -> Vector:
        """float32 (d,), unit length; not ``counted`` for a process that has looked in a cache of its own."""
        return self.deployment.embedding.encode_query(text, counted=counted)

    # -- storing

    def store(self, *, key: str | None = None, **fields: object) -> Receipt:
        """Store one episode. ``key`` names the call: delivered twice it makes one episode all the same."""
        item = {name: value for name, value in fields.items() if value is not None}
        if key is not None and "episode_id" not in item:
            item["episode_id"] = str(uuid5(NAMESPACE_URL, f"ww:{key}"))
        return self.deployment.ingest.store(item)

    # -- consolidating

    def consolidate(
        self,
        session_id: str,
        *,
        dry_run: bool = False,
        run_id: str | None = None,
        should_stop: Callable[[], bool] = never,
        on_progress: Callable[[float], None] | None = None,
    ) -> Run:
        """Carry out a run of the session, a new one where none is given. While another run of the session is under way
        the run stays ``requested``: the sweep rings for it again. Raises ShutDown where it ``should_stop``: the run is
        ``requested`` again, for others to go on with."""
        parts = self.deployment

        def stop() -> bool:
            if should_stop():
                raise ShutDown
            return False

        if dry_run:
            must_exist(parts.graph, session_id)
            return parts.consolidator.preview(session_id, should_stop=stop)
        self.make_room()  # the process that worked on this session last may have been killed
        run = parts.graph.request_run(session_id) if run_id is None else parts.graph.run(run_id)
        if run.status in ENDED:  # delivered twice
            return answered(run, parts.graph)
        try:
            with process_tracing().task("ww.consolidate", session_id=session_id, run_id=run.run_id):
                run = parts.consolidator.run(run.run_id, token=uuid4().hex, on_progress=on_progress, should_stop=stop)
            self._ring_for_runs()
            return run
        except Busy:
            return answered(parts.graph.run(run.run_id), parts.graph)
        except ShutDown:
            log.info("consolidation left to others", extra={"action": "consolidation.shutdown", "run_id": run.run_id})
            raise

    def consolidate_due(self, now: datetime | None = None) -> list[Run]:
        """Request a run of every session that is due, once per window of the interval, and ring for the first of them:
        each run that ends makes room for the next, and so does the sweep."""
        parts = self.deployment
        now = now or parts.clock()
        interval = parts.settings.consolidation_interval
        window = f"{interval:g}s-{int(now.timestamp() // interval)}"
        runs = []
        for session_id in parts.consolidator.due(now):
            latest = parts.graph.runs(session_id, limit=1)
            if latest and latest[0].status in ("requested", "running") and latest[0].window != window:
                continue  # it has not had its last turn yet
            run = parts.graph.request_run(session_id, window=window)
            if run.status == "requested":
                runs.append(run)
        self._ring_for_runs()
        return runs

    def _ring_for_runs(self) -> None:
        """Ring for as many runs, those requested first before the others, as may be in flight."""
        parts = self.deployment
        free = parts.settings.consolidation_in_flight - len(parts.graph.running_runs())
        for run in parts.graph.requested_runs(free) if free > 0 else ():
            self.bells.consolidate(run)

    # -- watching

    def check_alerts(self) -> tuple[Alert, ...]:
        """Compare the deployment's figures with the thresholds, keep what changed and tell about it; nothing where
        another process has just done so."""
        watch = alert_watch(self.deployment)
        return watch.check() if watch.due() else ()

    # -- forgetting

    def decay(self, *, now: datetime | None = None, should_stop: Callable[[], bool] = never) -> FadeReport:
        """Archive what has faded, for a while; its points follow with the next refresh."""
        parts = self.deployment
        report = fade(
            parts.graph,
            threshold=parts.settings.archive_below,
            now=now or parts.clock(),
            should_stop=should_stop,
        )
        if report.archived:
            self.bells.embed()
        return report

    # -- mending

    def free_leases(self) -> int:
        """Let rows be claimed again whose holder is gone; how many there were."""
        parts = self.deployment
        return parts.graph.expire_leases(max_attempts=parts.settings.task_max_attempts)

    def make_room(self) -> None:
        """Free what processes held that are gone, and ring for whoever embeds."""
        if self.free_leases():
            self.bells.embed()

    def take_over(self) -> None:
        """The same, and ring for runs as well: whoever starts may come in the place of one that is gone."""
        self.make_room()
        self._ring_for_runs()

    def sweep(self, *, should_stop: Callable[[], bool] = never) -> SweepReport:
        """Look for work that nobody rang for, and ring."""
        parts = self.deployment
        report = sweep(
            parts.graph, parts.vectors, max_attempts=parts.settings.task_max_attempts, should_stop=should_stop
        )
        if report.pending or report.dirty:
            self.bells.embed()
        if report.runs:
            self._ring_for_runs()
        return report

    def verify(self, *, should_stop: Callable[[], bool] = never) -> Verification:
        """Compare the record with the vectors, completely."""
        return verify(self.deployment.graph, self.deployment.vectors, should_stop=should_stop)
