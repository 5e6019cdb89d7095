"""Work beside a run: its errors are heard once, the end waits for it, and no limit on BLAS outlasts it."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing

import pytest
from threadpoolctl import threadpool_info

from tests.processes import BOUND, ROOT
from ww_core.consolidation.beside import Beside, one_thread

LATE = """
import threading
from ww_core.consolidation.beside import Beside
beside = Beside("late")
beside.begin(lambda: None)
def late():
    threading.main_thread().join()  # the interpreter is ending
    beside.begin(lambda: print("done"))
    beside.close()
threading.Thread(target=late).start()
"""


def test_an_error_is_raised_once_where_the_run_waits_next() -> None:
    def fail() -> None:
        raise ValueError("full")

    with closing(Beside("test")) as beside:
        beside.begin(fail)
        with pytest.raises(ValueError, match="full"):
            beside.wait()
        beside.wait()
        beside.begin(fail)
        with pytest.raises(ValueError, match="full"):
            beside.begin(lambda: None)


def test_closing_waits_for_what_was_begun() -> None:
    done = []
    go = threading.Event()
    beside = Beside("test")
    beside.begin(lambda: done.append(go.wait(BOUND)))
    go.set()
    beside.close()
    assert done == [True]
    Beside("never used").close()


def test_there_is_work_while_the_interpreter_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, timeout=BOUND)
    assert (ended.stdout, ended.stderr) == ("done\n", "")


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_the_limit_does_not_outlast_two_that_overlap() -> None:
    before = blas_threads()
    entered, left = threading.Event(), threading.Event()

    def a_little_longer() -> None:
        with one_thread():
            entered.set()
            left.wait(BOUND)

    other = threading.Thread(target=a_little_longer)
    with one_thread():
        assert set(blas_threads()) == {1}
        other.start()
        entered.wait(BOUND)
    left.set()
    other.join()
    assert blas_threads() == before
