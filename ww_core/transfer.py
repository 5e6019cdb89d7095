"""Episodes as lines of JSON: out of one deployment, and into another exactly as they were.

A line holds what the record knows of an episode and cannot be made again; with vectors also the mean of its windows'
vectors, base64 of float32, and the digests of the model that made it and of the text it was made of. Clusters and runs
are derived and stay behind.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO, Any

import numpy as np

from ww_core.errors import InvalidInput
from ww_core.ingest import validate
from ww_core.ingest.files import Found, Place, Refused, json_lines
from ww_core.ingest.gunzip import DamagedFile, plain
from ww_core.models import Episode, State, Vector
from ww_core.stores.pages import episodes
from ww_core.stores.points import digest as text_digest
from ww_core.stores.ports import Fingerprint, GraphStore, VectorStore, Where

PAGE = 500
UNIT_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1 to be believed."""
_STORED = ("content", "episode_id", "session_id", "timestamp", "position", "context", "outcome", "importance")
_KNOWN = frozenset((*_STORED, "state", "stored_at", "archived", "stability", "last_recalled_at", "vector"))


# -- out


def export(
    graph: GraphStore,
    out: IO[bytes],
    *,
    session_id: str | None = None,
    vectors: tuple[VectorStore, Fingerprint] | None = None,
    on_progress: Callable[[int], None] = lambda lines: None,
) -> int:
    """Write every episode of the session, or of all, one line each in the order of time; how many there were.

    In bounded memory, page by page: what is stored meanwhile may or may not be among them. ``vectors``: the store, and
    the model whose vectors it holds.
    """
    where = Where(sessions=() if session_id is None else (session_id,), archived=None)
    lines = 0
    for page in episodes(graph, where, size=PAGE):
        known = _vectors(page, graph, *vectors) if vectors else {}
        for episode in page:
            out.write(json.dumps(_line(episode, known.get(episode.episode_id)), ensure_ascii=False).encode() + b"\n")
        lines += len(page)
        on_progress(lines)
    return lines


def _vectors(
    page: Sequence[Episode], graph: GraphStore, store: VectorStore, model: Fingerprint
) -> dict[str, Mapping[str, Any]]:
    """What a line says of its vector, by episode; of those left out that changed while they were read."""
    embedded = {episode.episode_id: episode for episode in page if episode.state is State.EMBEDDED}
    vectors = store.vectors(list(embedded))
    now = graph.get(list(embedded))
    digest = model.digest()
    return {
        name: {
            "model": digest,
            "text": text_digest(embedded[name].content),
            "windows": embedded[name].windows,
            "mean": base64.b64encode(found.vector.astype("<f4").tobytes()).decode("ascii"),
        }
        for found in vectors
        if (row := now.get(name := found.episode_id)) is not None
        and (row.state, row.content) == (State.EMBEDDED, embedded[name].content)
    }


def _line(episode: Episode, vector: Mapping[str, Any] | None) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(episode, name) for name in _STORED}
    line["timestamp"] = _text(episode.timestamp)
    line["context"] = dict(episode.context)
    line |= {"state": episode.state, "stored_at": _text(episode.stored_at)}
    line |= {"archived": episode.archived, "stability": episode.stability}
    line["last_recalled_at"] = _text(episode.last_recalled_at)
    if vector is not None:
        line["vector"] = vector
    return line


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat()


# -- in


def read_export(
    stream: IO[bytes],
    path: str,
    *,
    session_id: str | None = None,
    model: Fingerprint | None = None,
    on_vector: Callable[[str, Vector], None] = lambda text, vector: None,
) -> Iterator[Found | Refused]:
    """The episodes of an export, gzip or plain, in its order; of ``session_id`` alone where one is named.

    ``on_vector`` gets (content, vector float32 (d,)) of lines whose vector the given model made of exactly this
    content, in one window, before the line itself is handed out. Where the text was changed since, or the line does not
    say of what text its vector was made, there is none.
    """
    try:
        for record, parsed in json_lines(plain(stream)):
            place = Place(path, record.line)
            try:
                if isinstance(parsed, InvalidInput):
                    raise parsed
                episode = _episode(parsed)
            except InvalidInput as error:
                yield Refused(place, error, record.overlong or (record.data,))
            else:
                if session_id is None or episode.session_id == session_id:
                    vector = None if model is None else _vector(parsed.get("vector"), episode.content, model)
                    if vector is not None:
                        on_vector(episode.content, vector)
                    yield Found(place, episode, record.data)
            finally:
                if record.overlong is not None:
                    record.overlong.close()
    except DamagedFile as error:
        yield Refused(Place(path, error.line), error, ())


def _episode(line: Mapping[str, Any]) -> Episode:
    """Raises InvalidInput."""
    for key in line:
        if key not in _KNOWN:
            raise InvalidInput(f"unknown key {validate.shown(key)}", hint="`ww ingest` reads files of other making")
    for key in ("content", "episode_id", "session_id", "timestamp"):
        if line.get(key) is None:
            raise InvalidInput(
                f"no {key}: the line is not of an export", hint="`ww ingest` reads files of other making"
            )
    stored = {key: line[key] for key in _STORED if key in line}
    moment = validate.timestamp(line["timestamp"])
    episode = validate.episode(stored, position=0, episode_id="", now=moment)
    recalled = line.get("last_recalled_at")
    return replace(
        episode,
        archived=_archived(line.get("archived", False)),
        stability=_stability(line.get("stability", 0.0)),
        last_recalled_at=None if recalled is None else validate.timestamp(recalled, "last_recalled_at"),
    )


def _archived(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"archived must be true or false, not {validate.shown(value)}")
    return value


def _stability(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidInput(f"stability must be days from 0 on, not {validate.shown(value)}")
    return float(value)


def _vector(found: object, content: str, model: Fingerprint) -> Vector | None:
    """None where it is not this model's of this content, or not whole: it is made again then."""
    if not isinstance(found, Mapping) or found.get("windows") != 1:
        return None
    if (found.get("model"), found.get("text")) != (model.digest(), text_digest(content)):
        return None
    try:
        row = np.frombuffer(base64.b64decode(found["mean"], validate=True), "<f4").astype(np.float32)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    length = float(np.linalg.norm(row)) if row.shape == (model.dimension,) else math.nan
    return row if abs(length - 1) <= UNIT_TOLERANCE else None
