"""A process that claims rows until none is left, and prints what it got: ``python -m tests.contract.claimer``."""

from __future__ import annotations

import json
import sys

from tests.contract.graphs import GraphAddress


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
