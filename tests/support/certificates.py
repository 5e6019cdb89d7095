"""A certificate of this machine's own for the servers that tests start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Key and certificate of 127.0.0.1, which is its own authority."""
    directory.mkdir(parents=True, exist_ok=True)
    key, certificate = directory / "private.key", directory / "public.crt"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key, certificate


def can_make_certificates() -> bool:
    return shutil.which("openssl") is not None


def skip_without_openssl() -> None:
    """Skip with the reason, or fail in CI, where it has to be."""
    if not can_make_certificates():
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
