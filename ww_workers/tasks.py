"""The Celery tasks, by the names, arguments and results of the contract.

Importing this module connects to nothing. Without a broker (``redis_url`` unset) ``delay`` runs a task at once.
"""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import Reject, TaskPredicate

from ww_core.consolidation.progress import ShutDown
from ww_core.errors import InvalidInput, WorldWeaverError
from ww_core.ingest import validate
from ww_core.stores.ports import Queue
from ww_workers import turns
from ww_workers.accounting import counted
from ww_workers.app import app
from ww_workers.ending import stopping
from ww_workers.process import jobs
from ww_workers.progress import Progress
from ww_workers.settings import BEAT_HEADER, BEAT_TICK
from ww_workers.wire import receipt_json, run_json, verification_json

__all__ = [
    "alerts",
    "consolidate",
    "consolidate_due",
    "decay",
    "embed_pending",
    "embed_query",
    "store",
    "sweep",
    "verify",
]


class Work(Task):  # type: ignore[misc]  # Celery has no types
    """A task of ours: out of memory is an error of this task, not the death of its worker and then of the next one.
    Each run counts in the error rate."""

    abstract = True
    Request = "ww_workers.requests:QuietRequest"
    throws = (WorldWeaverError,)  # an answer, not a defect: logged without a traceback
    resultrepr_maxsize = 200  # characters of a result in logs and in Flower

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with counted(self.name, passing=(TaskPredicate,)):
            return self._call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except MemoryError as error:
            raise WorldWeaverError(f"{self.name} ran out of memory", hint="give the worker more") from error
        except UnicodeError:  # it holds the whole text, and would be logged with it
            raise InvalidInput(f"{self.name} got a text that is not Unicode", hint="send UTF-8") from None


@app.task(name="ww.embed_pending", base=Work, ignore_result=True)
def embed_pending() -> None:
    """Embed what is pending, for a while; ring again where that was not enough."""
    work = jobs()
    if work.deployment.settings.redis_url is not None:
        from ww_workers.producer import embed_flag

        # taken down before the first claim: what is stored from here on rings again
        flag = embed_flag(work.deployment.settings)
        flag.clear()
        flag.close()
    with turns.embedding() as mine:
        if not mine:
            return
        report = work.embed_pending(should_stop=stopping)
    # what was stored meanwhile may have rung while this one had its turn
    if not (report.more or report.outage or stopping()) and work.deployment.graph.has_work():
        work.bells.embed()


@app.task(name="ww.embed_query", base=Work, ignore_result=False, resultrepr_maxsize=40)
def embed_query(text: Any = None, counted: bool = True) -> list[float]:
    """The query's vector; ``counted`` false where the sender has counted a miss of its own cache."""
    if not isinstance(text, str):
        raise InvalidInput(f"text must be text, not {type(text).__name__}", hint='kwargs={"text": "what to look for"}')
    return [float(x) for x in jobs().embed_query(text, counted=counted is not False)]


@app.task(name="ww.store", base=Work, ignore_result=False, bind=True)
def store(self: Any, content: Any = None, **fields: Any) -> dict[str, Any]:
    """Store one episode; it is stored only when the result says so."""
    return receipt_json(jobs().store(key=self.request.id, content=content, **fields))


@app.task(name="ww.consolidate", base=Work, ignore_result=False, bind=True, resultrepr_maxsize=160)
def consolidate(self: Any, session_id: Any = None, dry_run: bool = False, run_id: str | None = None) -> dict[str, Any]:
    """Consolidate one session, on a worker of the queue for that, whichever queue the message came by; a worker that
    ends leaves it to another, from the beginning."""
    validate.identifier("session_id", session_id)
    info = self.request.delivery_info or {}
    if not self.request.is_eager and info.get("routing_key") not in (None, Queue.CONSOLIDATE.value):
        passed_on = self.si(session_id=session_id, dry_run=dry_run, run_id=run_id)
        self.replace(passed_on.set(queue=Queue.CONSOLIDATE.value))
    try:
        run = jobs().consolidate(
            session_id,
            dry_run=dry_run,
            run_id=run_id,
            should_stop=stopping,
            on_progress=None if self.request.is_eager else Progress(self),
        )
    except ShutDown:
        raise Reject("this worker ends", requeue=True) from None
    return run_json(run)


@app.task(name="ww.consolidate_due", base=Work, ignore_result=True)
def consolidate_due() -> None:
    """Ring for every session that is due, once per interval however often this is called."""
    jobs().consolidate_due()


@app.task(name="ww.sweep", base=Work, ignore_result=True, bind=True)
def sweep(self: Any) -> None:
    """Find what nobody rang for."""
    work = jobs()
    if self.request.get(BEAT_HEADER) or (self.request.headers or {}).get(BEAT_HEADER):
        work.deployment.graph.put_fact(BEAT_TICK, work.deployment.clock().isoformat())
    work.sweep(should_stop=stopping)


@app.task(name="ww.decay", base=Work, ignore_result=True)
def decay() -> None:
    """Archive what has faded."""
    jobs().decay(should_stop=stopping)


@app.task(name="ww.alerts", base=Work, ignore_result=True)
def alerts() -> None:
    """Tell about figures of the deployment that crossed a threshold."""
    jobs().check_alerts()


@app.task(name="ww.verify", base=Work, ignore_result=False)
def verify() -> dict[str, Any]:
    """Compare the record with the vectors; a worker that ends leaves it to another, from the beginning."""

    def leave() -> bool:
        if stopping():
            raise Reject("this worker ends", requeue=True)
        return False

    return verification_json(jobs().verify(should_stop=leave))
