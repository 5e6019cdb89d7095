"""A process that claims rows until none is left, and prints what it got: ``python -m tests.contract.claimer``."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tests.contract.graphs import GraphAddress


def claim_at_once(address: GraphAddress, *, claimers: int, size: int) -> tuple[list[list[str]], float]:
    """What each of several processes got that claim all there is at the same time, and the seconds that took."""
    command = [sys.executable, "-m", "tests.contract.claimer", address.kind, address.location]
    processes = [
        subprocess.Popen([*command, f"claimer{i}", str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(claimers)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        started = time.perf_counter()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
        return answers, time.perf_counter() - started
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(kind: str, location: str, name: str, size: int) -> None:
    graph = GraphAddress(kind, location).open()
    print("ready", flush=True)
    sys.stdin.readline()
    got: list[str] = []
    turn = 0
    while True:
        turn += 1
        claims = graph.claim(size, token=f"{name}-{turn}", lease_seconds=600)
        got += [claim.episode.episode_id for claim in claims]
        if not claims and graph.counts().pending == 0:
            break
    graph.close()
    print(json.dumps(got), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
