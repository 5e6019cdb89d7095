"""``python -m ww.cli`` is ``ww``."""

from ww.cli import main

main()
