"""The sizes of performance tests."""

from __future__ import annotations

import pytest

from ww.bench.figure import SCALES, Scale


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Tiny figures say nothing and prove that they are measured; full ones are judged."""
    return SCALES["full" if request.config.getoption("--scale", default="quick") == "full" else "tiny"]
