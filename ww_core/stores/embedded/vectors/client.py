"""The client's side of the socket: a pool of connections to the owner."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.embedded.vectors import address, codec, forks, wire
from ww_core.stores.embedded.vectors.codec import Arrays

CALL_SECONDS = 60.0
"""Longest silence of an owner before a call gives up; a live one that writes a large batch needs a second or two."""


class OwnerGone(Exception):
    """Nobody answers on the socket any longer: find the next owner and ask again."""


class Client:
    """Calls to the owner of ``directory``, from any number of threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._free: list[socket.socket] = []
        self._all: set[socket.socket] = set()
        self.owner_pid = 0

    def call(self, name: str, given: Any, arrays: Arrays, *, timeout: float = CALL_SECONDS) -> tuple[Any, Arrays]:
        """The packed answer. Raises OwnerGone, and whatever error the owner answers with."""
        connection = self._take()
        try:
            connection.settimeout(timeout)
            wire.send(connection, {"call": name, "given": given}, arrays)
            answer, received = wire.receive(connection)
        except TimeoutError as error:
            self._drop(connection)
            raise StoreUnavailable(
                f"the vector owner (process {self.owner_pid}) did not answer within {timeout:g} s",
                hint="it is stopped or overloaded; it can be killed, another process takes over",
            ) from error
        except OSError as error:
            self._drop(connection)
            raise OwnerGone(str(error)) from error
        except BaseException:
            self._drop(connection)
            raise
        with self._lock:
            self._free.append(connection)
        if "error" in answer:
            raise codec.unpack_error(answer["error"])
        return answer["answer"], received

    def close(self) -> None:
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
            self._free.clear()

    abandon = close

    def connect(self) -> None:
        """Make sure that somebody answers. Raises OwnerGone, ConfigurationError."""
        connection = self._take()
        with self._lock:
            self._free.append(connection)

    def _take(self) -> socket.socket:
        with self._lock:
            if self._free:
                return self._free.pop()
        with forks.guard:
            try:
                connection = address.connect(self._directory, timeout=CALL_SECONDS)
            except OSError as error:
                raise OwnerGone(str(error)) from error
            with self._lock:
                self._all.add(connection)
        try:
            hello, _ = wire.receive(connection)
        except OSError as error:
            self._drop(connection)
            raise OwnerGone(str(error)) from error
        if hello.get("error") or hello.get("protocol") != wire.PROTOCOL:
            self._drop(connection)
            if hello.get("error"):
                raise codec.unpack_error(hello["error"])
            raise ConfigurationError(
                f"process {hello.get('pid')} owns the vectors in {self._directory} and runs another version",
                hint="stop it, or run the same version of World Weaver",
            )
        self.owner_pid = int(hello["pid"])
        return connection

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.close()
