"""The owner's side of the socket: answers this user's other processes, one thread each."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
from pathlib import Path

from ww_core.errors import ConfigurationError, StoreUnavailable, WorldWeaverError
from ww_core.stores.embedded.vectors import address, codec, forks, wire
from ww_core.stores.embedded.vectors.calls import CALLS
from ww_core.stores.embedded.vectors.codec import Arrays
from ww_core.stores.ports import VectorStore

log = logging.getLogger(__name__)

DRAIN_SECONDS = 5.0
"""How long a closing owner waits for the requests that it is answering."""


class Server:
    """The socket in ``directory``, from its making, and ``serve``d until ``close``. Only for who holds the lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._store: VectorStore | None = None
        self._connections: set[socket.socket] = set()
        self._busy = 0
        self._idle = threading.Condition()
        self._closing = False
        with forks.guard:
            self._listener = address.listen(directory)
            self._wake_read, self._wake_write = os.pipe()
        self._listener.setblocking(False)
        self._acceptor = threading.Thread(target=self._accept, name="ww-vectors-accept", daemon=True)

    # -- life

    def serve(self, store: VectorStore) -> None:
        """Begin to answer; who connected before has been waiting."""
        self._store = store
        self._acceptor.start()

    def close(self) -> None:
        """Finish what is being answered, then hang up on everybody; clients find the next owner by themselves."""
        with self._idle:
            self._closing = True
        os.write(self._wake_write, b"x")
        if self._acceptor.is_alive():
            self._acceptor.join()
        with contextlib.suppress(OSError):
            (self._directory / address.SOCKET_FILE).unlink()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=DRAIN_SECONDS)
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def abandon(self) -> None:
        """Close this process's copies of the sockets, which a parent goes on using."""
        for handle in (self._listener, *self._connections):
            handle.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # -- threads

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._closing:
                selector.select()
                with forks.guard:
                    try:
                        connection, _ = self._listener.accept()
                    except OSError:
                        continue  # it hung up again, or we are closing
                    self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), name="ww-vectors-serve", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(True)
            if self._admitted(connection):
                while not self._closing:
                    header, arrays = wire.receive(connection)
                    with self._idle:
                        if self._closing:
                            return
                        self._busy += 1
                    try:
                        answer, given = self._answer(header, arrays)
                        wire.send(connection, answer, given)
                    finally:
                        with self._idle:
                            self._busy -= 1
                            self._idle.notify_all()
        except OSError:
            pass  # the client is gone; what it asked for is done or will be asked for again
        finally:
            with self._idle:
                self._connections.discard(connection)
            connection.close()

    def _admitted(self, connection: socket.socket) -> bool:
        """Say hello; refuse other users, before reading a byte of theirs."""
        uid = address.peer_uid(connection)
        hello: dict[str, object] = {"protocol": wire.PROTOCOL, "pid": os.getpid()}
        admitted = uid is None or uid == os.geteuid()
        if not admitted:
            refusal = ConfigurationError(
                f"the vectors in {self._directory} are owned by a process of user {os.geteuid()}, not of user {uid}",
                hint="run as the same user",
            )
            hello["error"] = codec.pack_error(refusal)
        wire.send(connection, hello, [])
        return admitted

    def _answer(self, header: dict[str, object], arrays: Arrays) -> tuple[dict[str, object], Arrays]:
        given: Arrays = []
        try:
            if self._store is None:
                raise StoreUnavailable("the vector owner is not ready")
            call = CALLS[str(header["call"])]
            return {"answer": call.run(self._store, header.get("given"), arrays, given)}, given
        except WorldWeaverError as error:
            return {"error": codec.pack_error(error)}, []
        except Exception as error:  # a client must get an answer, and other clients must go on
            log.exception("vector call failed", extra={"action": "vectors.serve", "call": header.get("call")})
            reason = StoreUnavailable(f"the vector owner failed: {type(error).__name__}: {error}")
            return {"error": codec.pack_error(reason)}, []
