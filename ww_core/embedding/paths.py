"""Which way of running a model is fastest on this machine: tried once, remembered, never needed to work."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ww_core.embedding.source import ModelSource
from ww_core.models import Vector

logger = logging.getLogger(__name__)

MIN_COSINE = 0.9995  # of each sample text to the reference; what is promised for any text is 0.999
_ROUNDS = 3  # interleaved, behind one that warms; the fastest of each path counts
_WORTH_LEAVING = 1.1  # times as fast: a busy machine measures ties as differences
_MAX_SECONDS = 3.0  # after which no further round is begun
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_LIBRARIES = ("torch", "sentence-transformers", "onnxruntime", "numba", "llvmlite", "tokenizers")
_FORMAT = 2  # of the remembered file

REFERENCE = "torch"

Embed = Callable[[Sequence[str]], Vector]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the self-test found; by path, ``speed`` is sample texts per second, ``cosine`` the lowest to torch."""

    path: str
    reason: str
    speed: Mapping[str, float] = field(default_factory=dict)
    cosine: Mapping[str, float] = field(default_factory=dict)


def compare(
    paths: Mapping[str, Embed], *, preferred: str = REFERENCE, clock: Callable[[], float] = time.perf_counter
) -> Choice:
    """The fastest of ``paths`` that agrees with ``paths["torch"]`` on every sample text.

    Each maps texts to unit rows (n, d). A path that fails is out, whatever its failure; ``preferred`` stays unless
    another is clearly faster. ``clock`` is in seconds.
    """
    begun = clock()
    reference = paths[REFERENCE](SAMPLES)
    cosine = {REFERENCE: float((reference * reference).sum(axis=1).min())}
    for name, embed in paths.items():
        if name == REFERENCE:
            continue
        try:
            cosine[name] = float((embed(SAMPLES) * reference).sum(axis=1).min())
        except Exception:
            # Whatever goes wrong in a path that is optional, the reference is there instead.
            logger.warning("Path failed", exc_info=True, extra={"action": "embedding.path_failed", "path": name})
    fit = [name for name in paths if cosine.get(name, 0.0) >= MIN_COSINE]
    best = dict.fromkeys(fit, math.inf)
    for turn in range(_ROUNDS):
        if turn and clock() - begun > _MAX_SECONDS:
            break  # a machine this busy measures nothing better with more rounds
        for name in fit:
            started = clock()
            paths[name](SAMPLES)
            best[name] = min(best[name], clock() - started)
    speed = {name: len(SAMPLES) / max(best[name], 1e-9) for name in fit}
    path = max(speed, key=speed.__getitem__)
    if preferred in speed and speed[path] < speed[preferred] * _WORTH_LEAVING:
        path = preferred
    ratio = speed[path] / speed[REFERENCE]
    return Choice(path, f"measured {ratio:.2f} times as fast as torch on this machine", speed, cosine)


def usable_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    return bool(_BF16_FLAGS & _cpu()[1])


class Memory:
    """Choices of earlier processes, one small file for each model and machine. What cannot be kept is tried again."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or cache_directory()

    def recall(self, source: ModelSource, threads: int | None) -> Choice | None:
        """What was found for this model on this machine with these libraries, None where nothing was."""
        try:
            found = json.loads(self._file(source, threads).read_text(encoding="utf-8"))
            return Choice(found["path"], found["reason"], found["speed"], found["cosine"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, source: ModelSource, threads: int | None, choice: Choice) -> None:
        """Remember ``choice``; a read-only or full disk is no error."""
        file = self._file(source, threads)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump(asdict(choice), out, indent=1)
            os.replace(temporary, file)
        except OSError as error:
            logger.info("Choice not kept: %s", error, extra={"action": "embedding.choice_not_kept"})

    def _file(self, source: ModelSource, threads: int | None) -> Path:
        parts = [str(_FORMAT), source.fingerprint.digest(), str(threads), *_machine()]
        return self._directory / f"encoder-{sha256('|'.join(parts).encode()).hexdigest()[:16]}.json"


def cache_directory() -> Path:
    """The user's cache directory for this project (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "world-weaver"


def _machine() -> list[str]:
    model, flags = _cpu()
    return [model, ",".join(sorted(flags & (_BF16_FLAGS | {"avx2", "avx512f"}))), str(usable_cores()), *_versions()]


@lru_cache(maxsize=1)
def _cpu() -> tuple[str, frozenset[str]]:
    """Name and instruction sets of the CPU; sets are known on Linux only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    found = {key.strip(): value.strip() for key, value in fields.items()}
    return found.get("model name", platform.machine()), frozenset(found.get("flags", "").split())


@lru_cache(maxsize=1)
def _versions() -> tuple[str, ...]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name}={version(name)}")
        except PackageNotFoundError:
            found.append(f"{name}=none")
    return tuple(found)


_SENTENCES = (
    "The deploy of api-7 failed because the disk of the build machine was full.",
    "Can you move my dentist appointment to Thursday afternoon?",
    "Melanie said that her daughter finally learned to swim last summer.",
    "café, naïve, Zürich: 42.50 EUR on 2024-03-01",
    "Return a new array with the elements of the input in sorted order; the input itself is left as it was.",
    "why does my card not work",
    "She thanked him for the painting and promised to hang it over the piano.",
    "If the connection is lost, the client waits, tries again, and gives up after three attempts.",
)
SAMPLES: tuple[str, ...] = (
    *_SENTENCES,
    *(f"{a} {b}" for a, b in zip(_SENTENCES, _SENTENCES[3:] + _SENTENCES[:3], strict=True)),
    *(" ".join(_SENTENCES[i:] + _SENTENCES[:i]) for i in (0, 3, 6)),
    "ok",
)
"""Texts of the lengths that memories have, from one word to a hundred and fifty word pieces."""

__all__ = [
    "MIN_COSINE",
    "REFERENCE",
    "SAMPLES",
    "Choice",
    "Memory",
    "cache_directory",
    "compare",
    "has_bf16",
    "usable_cores",
]
