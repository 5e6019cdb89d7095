"""A process that owns vectors: reads data directories from stdin, one a line, and answers ``owned`` for each."""

import sys
from pathlib import Path

from ww_core.stores.embedded.vectors import EdgeVectorStore

stores = []
for line in sys.stdin:
    store = EdgeVectorStore.open(Path(line.strip()), namespace="ww")
    store.ping()
    stores.append(store)
    print("owned" if store.owns else "client", flush=True)
for store in stores:
    store.close()
