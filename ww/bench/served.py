"""What episodes take on the Qdrant server of ``QDRANT_URL``, where it runs on this machine and can be seen.

A Neo4j Community server writes its files when it stops, so it is not measured while it runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

from ww.bench.corpus import Corpus
from ww.bench.figure import Bench
from ww.bench.filled import filled
from ww_core.capacity import Plan

SETTLED_SECONDS = 60.0
"""How long Qdrant's optimiser may take, at most, until its collection is measured."""
LOCAL = ("127.0.0.1", "localhost", "::1")


class Unseen(Exception):
    """Why a server cannot be measured from here."""


def qdrant(corpus: Corpus, bench: Bench, wanted: Plan) -> Iterator[tuple[str, int, int]]:
    """Name, bytes measured and bytes planned of its disk and its memory, not consolidated. Raises Unseen.

    Memory is what the whole server has taken, beside the pages of its files, and the vectors whole.
    """
    url = os.environ.get("QDRANT_URL")
    if not url:
        raise Unseen("QDRANT_URL is not set")
    server = _listening(url)
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    with filled(corpus, bench, "qdrant", qdrant_url=url, namespace=f"bench{uuid4().hex[:12]}") as deployment:
        vectors = QdrantVectorStore(deployment.settings)
        try:
            _wait(lambda: vectors.info().get("status") == "green")
            folder = _folder(server, str(vectors.info()["collection"]))
            if any(other != folder for other in folder.parent.iterdir()):
                raise Unseen("QDRANT_URL holds other collections, whose memory is not this one's")
            yield "capacity_qdrant_disk", disk(folder), wanted.qdrant_disk
            whole = 2 * 4 * corpus.queries.shape[1] * corpus.size  # float32, by content and by context
            yield "capacity_qdrant_memory", _taken(server) + whole, wanted.qdrant_memory
        finally:
            vectors.drop()
            vectors.close()


def disk(directory: Path) -> int:
    """Bytes of the blocks that a folder's files take."""
    return sum(blocks(path) for path in directory.rglob("*") if path.is_file())


def blocks(path: Path) -> int:
    """Bytes of the blocks that a file takes."""
    return path.stat().st_blocks * 512


def _listening(url: str) -> psutil.Process:
    """The process on this machine that answers at a URL."""
    parts = urlsplit(url)
    for process in psutil.process_iter() if parts.hostname in LOCAL else ():
        with suppress(psutil.Error):
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == parts.port for c in process.net_connections()):
                return process
    raise Unseen(f"no process that can be seen here listens at {parts.hostname}:{parts.port}")


def _taken(server: psutil.Process) -> int:
    """Bytes of its memory that are no pages of files."""
    found = server.memory_info()
    return int(found.rss - getattr(found, "shared", 0))


def _folder(server: psutil.Process, collection: str) -> Path:
    """Where a Qdrant server keeps a collection."""
    with suppress(psutil.Error):
        for file in (*server.open_files(), *server.memory_maps()):
            for parent in Path(file.path).parents:
                if parent.name == collection and parent.is_dir():
                    return parent
    raise Unseen("the files of QDRANT_URL cannot be seen from here")


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + SETTLED_SECONDS
    while not done() and time.monotonic() < end:
        time.sleep(0.2)
