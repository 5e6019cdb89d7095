"""A process that uses the vectors of a data directory, driven by a test.

``writer PREFIX COUNT`` upserts batches of 10 points and prints each batch's number once it is acknowledged;
``searcher COUNT`` searches that many times; ``idle`` uses the store once and waits for the end of stdin.
Prints ``owner`` or ``client`` first, and ``done`` at the end.
"""

import sys
from pathlib import Path

from tests.contract.vector_stores import MODEL, point, unit
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import CONTENT, Search


def main(data_dir: str, what: str, *arguments: str) -> None:
    store = EdgeVectorStore.open(Path(data_dir), namespace="ww")
    store.ensure(MODEL)
    print(store.info()["role"], flush=True)
    if what == "writer":
        prefix, count = arguments
        for batch in range(int(count)):
            store.upsert([point(f"{prefix}-{batch}-{i}") for i in range(10)])
            print(batch, flush=True)
    elif what == "searcher":
        for _ in range(int(arguments[0])):
            store.search([Search(CONTENT, unit(1.0), limit=5)])
            print("hit", flush=True)
    else:
        sys.stdin.read()
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
