"""Work on a thread beside a run's own, and arithmetic that leaves that thread its core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue

from threadpoolctl import threadpool_limits


class Beside:
    """One piece of work at a time on a daemon thread, which an error does not end.

    No executor: those take no work while the interpreter ends, when a run is still to hand back what it holds.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], object], Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._latest: Future[None] | None = None

    def begin(self, work: Callable[[], object]) -> None:
        """Have ``work`` done, once what was begun before is over. Raises what that raised."""
        self.wait()
        if self._thread.ident is None:
            self._thread.start()
        self._latest = Future()
        self._jobs.put((work, self._latest))

    def wait(self) -> None:
        """Until what was begun is over. Raises what it raised, once."""
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.result()

    def close(self) -> None:
        """The same without its errors; nothing is begun any more."""
        if self._thread.ident is not None:
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            try:
                work()
            except BaseException as error:  # raised again where the run waits for it
                done.set_exception(error)
            else:
                done.set_result(None)


_limiting = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS calculates in one thread here. The limit is the whole process's: the first to enter sets and lifts it, so
    that it never outlasts two that overlap."""
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _limiting.release()


__all__ = ["Beside", "one_thread"]
