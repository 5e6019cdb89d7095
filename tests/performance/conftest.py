"""The scale of performance tests: quick by default, ``--scale full`` at the stated sizes."""

from __future__ import annotations

import pytest

from ww.bench.figure import SCALES, Scale


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", default="quick", choices=["quick", "full"], help="sizes of performance tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--scale", default="quick") == "full":
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="needs --scale full"))


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Tiny figures say nothing and prove that they are measured; full ones are judged."""
    return SCALES["full" if request.config.getoption("--scale", default="quick") == "full" else "tiny"]
