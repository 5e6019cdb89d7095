"""``ww`` called by a test, and a file for it to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ww.cli.run import run

TOPICS = {
    "cooking": [
        "simmer the tomato soup with basil",
        "bake the sourdough bread until golden",
        "season the roast chicken",
    ],
    "sailing": ["trim the mainsail before the gust", "drop the anchor in the quiet bay", "tack against the wind"],
    "chess": ["castle early to protect the king", "trade the bishop for the knight", "promote the pawn to a queen"],
}


class Cli:
    """``ww`` in this process, on one data directory."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir = data_dir
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *argv: str) -> Any:
        """The JSON object that the command printed."""
        self.code = run([*argv, "--json", "--data-dir", str(self.data_dir)])
        captured = self.capsys.readouterr()
        self.err = captured.err
        (line,) = captured.out.splitlines()
        return json.loads(line)

    def text(self, *argv: str) -> str:
        """What the command printed for people."""
        self.code = run([*argv, "--data-dir", str(self.data_dir)])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out


def lines_of(path: Path, *, repeat: int = 1) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for n in range(repeat):
            for topic, texts in TOPICS.items():
                for text in texts:
                    stream.write(json.dumps({"content": f"{text} ({n})", "context": {"topic": topic}}) + "\n")
    return path
