"""The terminal that people look at: stderr, and text that cannot steer it."""

from __future__ import annotations

from rich.console import Console


def err() -> Console:
    """The console of progress and messages (stderr); honours NO_COLOR."""
    return Console(stderr=True, highlight=False)


def clean(text: str) -> str:
    """``text`` without control characters: names from files must not steer the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else "�" for c in text)
