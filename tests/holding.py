"""Processes that lease something for long and are then killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeAlias

from redis import Redis

from tests.processes import ROOT, clean_environment
from ww_core.stores.ports import Queue
from ww_workers.doorbell import flag_key

Hold: TypeAlias = Callable[..., subprocess.Popen[str]]


def starter(script: str, *given: str, ends: ExitStack) -> Hold:
    """Starts ``script`` with the arguments ``given`` and its own, and waits until it holds; ``ends`` kills it."""

    def start(*how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *given, *how],
            env=clean_environment(PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ends.enter_context(process)
        ends.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    return start


def kill(process: subprocess.Popen[str]) -> None:
    """As by the system, and gone."""
    process.kill()
    process.wait()


def let_nobody_ring(client: Redis, namespace: str) -> None:
    """No sweep from here on: whoever rings for one finds that it was rung for; and nothing that waits already."""
    client.set(flag_key(namespace, "sweep"), "test", ex=3600)
    client.delete(Queue.EMBED.value, flag_key(namespace, Queue.EMBED.value))
