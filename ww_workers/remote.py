"""The background of a deployment with a broker: everything is asked of its workers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ww_core.deployment import Deployment
from ww_core.errors import BrokerUnavailable
from ww_core.models import Run, Vector
from ww_core.sessions import must_exist
from ww_core.stores.ports import Queue
from ww_workers.producer import BROKER_ERRORS, LOST, embed_bell, send, unavailable
from ww_workers.runtime import Runtime
from ww_workers.wire import run_from_json

START_SECONDS = 60.0
"""How much longer than a run may take its result is waited for: somebody has to start it first."""


QUERY_SECONDS = 2.0
"""Longest wait for a query's vector; recall goes by words after that."""


class CeleryRuntime(Runtime):
    """Rings and waits. Nothing here works itself, so ``start`` starts nothing."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.doorbell = embed_bell(deployment.settings)
        if deployment.settings.embedding_mode == "remote":
            deployment.ask_query = self.embed_query

    @property
    def _longest(self) -> float:
        return self.deployment.settings.consolidation_time_limit + START_SECONDS

    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        """The request is a fact in the graph store before anybody is rung for: where the broker cannot be reached, the
        sweep has it done later all the same."""
        settings = self.deployment.settings
        if dry_run:
            return self._preview(session_id, wait)
        run = self.deployment.graph.request_run(session_id)
        try:
            send(settings, "ww.consolidate", Queue.CONSOLIDATE, session_id=session_id, run_id=run.run_id)
        except BROKER_ERRORS as error:
            raise unavailable(settings, error) from error
        return self.wait_for(run, wait, at_most=self._longest)

    def embed_query(self, text: str, *, timeout: float = QUERY_SECONDS) -> Vector:
        """float32 (d,) from a worker that holds the model. Raises BrokerUnavailable after ``timeout`` seconds."""
        import numpy as np

        return np.asarray(self._ask("ww.embed_query", Queue.QUERY, timeout, text=text, counted=False), dtype=np.float32)

    def _preview(self, session_id: str, wait: float | None) -> Run:
        must_exist(self.deployment.graph, session_id)
        answer = self._ask(
            "ww.consolidate",
            Queue.CONSOLIDATE,
            self._longest if wait is None else wait,
            session_id=session_id,
            dry_run=True,
        )
        return run_from_json(answer)

    def _ask(self, task: str, queue: Queue, timeout: float, **kwargs: object) -> Any:
        from celery.exceptions import TimeoutError as NoAnswer

        settings, result = self.deployment.settings, None
        try:
            result = send(settings, task, queue, expires=timeout, answer=True, **kwargs)
            return result.get(timeout=timeout)
        except NoAnswer as error:
            raise BrokerUnavailable(
                f"no worker answered {task} within {timeout:g} s", hint=f"is a worker running for {queue.value}?"
            ) from error
        except (*BROKER_ERRORS, LOST) as error:
            raise unavailable(settings, error) from error
        finally:
            if result is not None:
                _let_go(result)

    def close(self) -> None:
        super().close()
        self.doorbell.close()


def _let_go(result: Any) -> None:
    """Stop listening for a result here, rather than when it is collected, where an absent broker would be noise."""
    with suppress(*BROKER_ERRORS, LOST):
        result.backend.remove_pending_result(result)
    result.backend = None
