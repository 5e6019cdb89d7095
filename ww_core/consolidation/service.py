"""Running consolidations through the ports: leases, the order of writes, publication, and what is due."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from ww_core.config import Settings
from ww_core.consolidation.beside import Beside
from ww_core.consolidation.pipeline import Outcome, Pipeline
from ww_core.consolidation.progress import LeaseLost, OutOfTime, ShutDown, Stopped, Watch
from ww_core.consolidation.selection import New
from ww_core.consolidation.sink import Preview, Stage
from ww_core.consolidation.standing import standing
from ww_core.consolidation.themes import with_themes
from ww_core.errors import Busy, NotFound, WorldWeaverError
from ww_core.hooks import Hooks
from ww_core.maintenance.erase import finish_session
from ww_core.models import Run, RunStatus
from ww_core.observability.metrics import Metrics
from ww_core.stores import routing
from ww_core.stores.leftovers import write_leftovers
from ww_core.stores.ports import Centroid, GraphStore, ReadTexts, VectorStore

log = logging.getLogger(__name__)

PATIENCE = 24
"""Intervals after which a session is consolidated however little is new: a day by default."""
TIDYING_SECONDS = 10.0
"""For which a rollback waits for the run's own worker, which is about to let go of it."""
INDEXED = 50_000
"""Texts made findable in one go, a second of work: so many that a page of a large index takes several of them."""
READ = 8000
"""The same of texts that were read and are in order, some 150 ms: as many as are written while the cells are."""
HUGE = 50_000
"""New episodes from which a run takes long enough to let the others go first."""


class Consolidator:
    """Consolidates sessions. Thread-safe; a run happens in the caller's thread; what it stages is written in one beside
    it, and so are digests of texts once it is visible.

    Nothing of a run is visible before ``GraphStore.publish``: a crash before it leaves the state before the run. Behind
    it the run tidies up, still under its lease: cells that new points get and moved ones lose, and what is old.
    """

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        hooks: Hooks,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._settings = settings
        self._hooks = hooks
        self._metrics = metrics
        self._clock = clock

    def run(
        self,
        run_id: str,
        *,
        token: str,
        on_progress: Callable[[float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Run:
        """Carry out a requested run under a lease with ``token``; the run as it ended.

        With nothing new it ends as done with ``considered`` 0 and nothing is published. ``should_stop`` ends it as
        cancelled, its time limit as failed: both are looked at every second or so, as is whether the run was cancelled
        from elsewhere. ``on_progress`` gets 0 to 1. Raises NotFound, Busy where another run of the session is under way
        or has taken this one over, and what the stores raise (the run is then recorded as failed where that is still
        possible). An exception that is no error passes: after ShutDown, raised by ``should_stop``, the run is
        ``requested`` again, after any other (Ctrl-C) it is cancelled, unless the schedule asked for it.
        """
        try:
            run = self._graph.start_run(run_id, token=token, lease_seconds=routing.LEASE_SECONDS)
            return self._carry_out(run, token, on_progress, should_stop)
        except Exception:
            raise
        except BaseException:  # Ctrl-C, SIGTERM, ShutDown, at whichever step
            self._let_go(run_id, token)
            raise

    def _carry_out(
        self,
        run: Run,
        token: str,
        on_progress: Callable[[float], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Run:
        run_id = run.run_id
        watch = Watch(
            extend=lambda progress: self._graph.extend_run(
                run_id, token=token, lease_seconds=routing.LEASE_SECONDS, progress=progress
            ),
            limit=self._settings.consolidation_time_limit,
            should_stop=should_stop,
            on_progress=on_progress,
        )
        stage = Stage(self._graph, self._vectors, run_id, token)
        try:
            routing.settle(self._graph, self._vectors, run.session_id, watch.held)
            while self._graph.index_texts(run.session_id, limit=INDEXED):  # what a crash left, or an older version
                watch.step(0.0)
            current = self._graph.current_run(run.session_id)
            with closing(stage):
                outcome = self._pipeline(run, current, stage, watch.step).work()
                stage.flush()
            if outcome is None or (not stage.staged and not self._changed(outcome, current)):
                return self._finish(self._ended(run, "done", watch, outcome, current), token)
            return self._publish(run, outcome, stage, watch, token)
        except Stopped:
            return self._finish(self._ended(run, "cancelled", watch), token)
        except OutOfTime as error:
            return self._finish(self._ended(run, "failed", watch, error=str(error)), token)
        except LeaseLost as error:
            try:
                found = self._graph.run(run_id)
            except NotFound:  # its session was erased, and centroids may have been written since
                finish_session(self._graph, self._vectors, run.session_id)
                raise
            if found.status == "cancelled":
                self._observe(found)
                return found
            raise Busy(
                f"run {run_id} was taken over by another worker", hint="its result is the one that counts"
            ) from error
        except MemoryError as error:
            # A worker process that dies of it would be given the same run again.
            self._finish(self._ended(run, "failed", watch, error="MemoryError"), token)
            raise WorldWeaverError(f"run {run_id} ran out of memory", hint="lower consolidation_max_samples") from error
        except Exception as error:  # recorded and raised again: whoever looks at the run learns why it ended
            self._record_end(self._ended(run, "failed", watch, error=f"{type(error).__name__}: {error}"), token)
            raise
        except ShutDown:
            self._hand_back(run, token)
            raise
        except BaseException:  # who asked for it has gone: Ctrl-C, SIGTERM
            if run.window is None:
                self._record_end(self._ended(run, "cancelled", watch), token)
            else:
                self._hand_back(run, token)
            raise

    def preview(self, session_id: str, *, should_stop: Callable[[], bool] | None = None) -> Run:
        """What a run would do, without writing anything: status ``dry_run``, ``run_id`` empty. ``should_stop`` may
        raise."""
        current = self._graph.current_run(session_id)
        latest = max((r.seq for r in self._graph.runs(session_id, limit=1)), default=0)
        run = Run("", session_id, "dry_run", seq=latest + 1, started_at=self._clock())
        watch = Watch(
            extend=lambda progress: True, limit=self._settings.consolidation_time_limit, should_stop=should_stop
        )
        outcome = self._pipeline(run, current, Preview(), watch.step).work()
        return replace(self._ended(run, "dry_run", watch, outcome, current), progress=1.0)

    def due(self, now: datetime) -> list[str]:
        """Sessions with enough new episodes and no run lately, longest waiting first, and huge ones behind the others.

        ``consolidation_min_new`` says what is enough; fewer are seen to once they have waited for ``PATIENCE``
        intervals. Lately is half an interval: a tick that is a little early must not cost a session its turn.
        """
        interval = self._settings.consolidation_interval
        waiting = []
        for session_id, count in self._graph.count_unconsolidated().items():
            if not count:
                continue
            runs = self._graph.runs(session_id, limit=1)
            last = (runs[0].finished_at or runs[0].started_at or runs[0].requested_at) if runs else None
            if last is not None and (now - last).total_seconds() < interval / 2:
                continue
            oldest = self._graph.get([e.episode_id for e in self._graph.unconsolidated(session_id, limit=1)])
            since = last or next((e.stored_at for e in oldest.values() if e.stored_at is not None), now)
            if count < self._settings.consolidation_min_new and (now - since).total_seconds() < PATIENCE * interval:
                continue
            waiting.append((count > HUGE, since, session_id))
        return [session_id for _, _, session_id in sorted(waiting)]

    def rollback(self, run_id: str) -> Run:
        """Take the session's visible run back: what was visible before it is visible again, exactly, but for what was
        erased or got new content since. The run as it is now. Raises what ``GraphStore.rollback_run`` raises.
        """
        run = self._graph.run(run_id)
        session, token = run.session_id, uuid4().hex
        held = routing.hold(self._graph, run_id, token)
        end = time.monotonic() + TIDYING_SECONDS
        while not held():
            if time.monotonic() > end or not self._being_tidied(run):
                return self._graph.rollback_run(run_id)  # which says why it cannot be
            threading.Event().wait(0.02)
            held = routing.hold(self._graph, run_id, token)
        try:
            before, between = routing.Cells(), routing.Cells()
            routing.note(self._graph, session, run.attempt, self._clock())
            for moved in self._graph.moved(run_id):
                now, then = routing.cells(moved.to), routing.cells(moved.back)
                if now != then:
                    between.put(moved.episode_id, routing.both(now, then))
                    before.put(moved.episode_id, then)
            between.write(self._graph, self._vectors, held)
            run = self._graph.rollback_run(run_id, token=token)
            if before.write(self._graph, self._vectors, held):
                routing.forget(self._graph, session, run.attempt)
        finally:
            self._graph.release_run(run_id, token=token)
        log.info("rolled back", extra={"action": "consolidation.rollback", "run_id": run_id})
        return run

    def _being_tidied(self, run: Run) -> bool:
        """Whether the run cannot be had only because somebody tidies up behind it: that is soon over."""
        visible = self._graph.current_attempts([run.session_id]).get(run.session_id) == run.attempt
        return visible and all(other.session_id != run.session_id for other in self._graph.running_runs())

    # -- ending

    def _pipeline(
        self, run: Run, current: Run | None, sink: Stage | Preview, step: Callable[[float], None]
    ) -> Pipeline:
        return Pipeline(
            self._graph,
            self._vectors,
            self._settings,
            self._hooks,
            self._metrics,
            run=run,
            current=current,
            sink=sink,
            step=step,
        )

    def _publish(self, run: Run, outcome: Outcome, stage: Stage, watch: Watch, token: str) -> Run:
        watch.step(0.95, renew=True)
        session = run.session_id
        # kept by attempt: whoever comes too late in spite of the check writes beside those that count
        self._vectors.put_centroids(
            [
                Centroid(c.cluster_id, session, run.attempt, outcome.centroids[c.cluster_id], c.radius)
                for c in outcome.clusters
                if c.change != "gone"
            ]
        )
        done = self._ended(run, "done", watch, outcome)
        done = replace(done, clusters=with_themes(done.clusters, outcome.centroids))
        routing.note(self._graph, session, run.attempt, self._clock())
        if not self._graph.publish(done, token=token, lease_seconds=routing.LEASE_SECONDS):
            self._vectors.drop_attempts([run.attempt])
            routing.forget(self._graph, session, run.attempt)
            raise LeaseLost("another worker has taken this run over")
        write_leftovers(self._graph, session, outcome.leftovers)
        try:
            self._graph.run(run.run_id)
        except NotFound:  # its session was erased meanwhile
            finish_session(self._graph, self._vectors, session)
        else:
            self._tidy(done, outcome.new, stage, watch, token)
        self._observe(done)
        return done

    def _tidy(self, run: Run, new: New, stage: Stage, watch: Watch, token: str) -> None:
        session = run.session_id
        held = routing.hold(self._graph, run.run_id, token)
        try:
            # each of the two has one core: the vector store keeps Python's lock, and SQLite does not
            broken_off = threading.Event()
            texts = _until(lambda: broken_off.is_set() or watch.ends(), new.read_texts(READ))
            with closing(Beside("ww-texts")) as beside:
                beside.begin(partial(self._graph.index_read, run.run_id, texts))
                try:
                    if stage.cells.write(self._graph, self._vectors, held):
                        routing.forget(self._graph, session, run.attempt)
                    with suppress(Stopped):
                        beside.wait()
                finally:
                    broken_off.set()
            while held() and not watch.ends() and self._graph.index_texts(session, limit=INDEXED):
                pass  # what is left the next run does first
            if held():  # else another run may be about to be published: its centroids are none to keep yet
                kept = self._graph.prune_runs(session, self._settings.consolidation_keep_runs)
                self._vectors.drop_centroids(session, keep=kept)
        finally:
            self._graph.release_run(run.run_id, token=token)

    def _ended(
        self,
        run: Run,
        status: RunStatus,
        watch: Watch,
        outcome: Outcome | None = None,
        current: Run | None = None,
        error: str | None = None,
    ) -> Run:
        ended = replace(run, status=status, finished_at=self._clock(), seconds=watch.seconds, error=error, progress=1.0)
        if outcome is None:
            return replace(ended, clusters=standing(current))
        return replace(
            ended,
            considered=len(outcome.new),
            sampled=outcome.sampled,
            assigned=outcome.assigned,
            noise=outcome.noise,
            folded=outcome.folded,
            clusters=outcome.clusters,
        )

    @staticmethod
    def _changed(outcome: Outcome, current: Run | None) -> bool:
        before = {c.cluster_id for c in current.clusters if c.change != "gone"} if current is not None else set()
        return before != {c.cluster_id for c in outcome.clusters if c.change != "gone"}

    def _finish(self, run: Run, token: str) -> Run:
        if not self._graph.finish_run(run, token=token):  # cancelled, or taken over, at this very moment
            return self._graph.run(run.run_id)
        self._observe(run)
        return run

    def _let_go(self, run_id: str, token: str) -> None:
        """Hold nothing any more of a run that was broken off, wherever that was."""
        with suppress(WorldWeaverError):
            if not self._graph.return_run(run_id, token=token):
                self._graph.release_run(run_id, token=token)

    def _record_end(self, run: Run, token: str) -> None:
        """Where that is still possible; else the lease runs out."""
        try:
            self._graph.finish_run(run, token=token)
        except WorldWeaverError:
            action = f"consolidation.{run.status}"
            log.warning("could not record a %s run", run.status, extra={"action": action, "run_id": run.run_id})

    def _hand_back(self, run: Run, token: str) -> None:
        """The same for a run that others are to go on with."""
        try:
            self._graph.return_run(run.run_id, token=token)
        except WorldWeaverError:
            extra = {"action": "consolidation.shutdown", "run_id": run.run_id}
            log.warning("could not hand a run back: it waits for its lease", extra=extra)

    def _observe(self, run: Run) -> None:
        self._metrics.observe("consolidation", run.seconds)
        self._metrics.increment(f"consolidation.{run.status}")
        self._metrics.increment("consolidation.considered", run.considered)
        log.info(
            "consolidated",
            extra={
                "action": f"consolidation.{run.status}",
                "run_id": run.run_id,
                "session_id": run.session_id,
                "considered": run.considered,
                "clusters": len(run.clusters),
                "seconds": round(run.seconds, 3),
            },
        )


def _until(stop: Callable[[], bool], texts: Iterator[ReadTexts]) -> Iterator[ReadTexts]:
    """Raises Stopped."""
    for part in texts:
        if stop():
            raise Stopped("the run was asked to stop")
        yield part
