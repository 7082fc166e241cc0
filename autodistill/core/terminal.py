"""Terminal output on stderr, with text that cannot contain control sequences."""

from __future__ import annotations

from rich.console import Console


def err() -> Console:
    """Return the console for progress and messages (stderr); it honours NO_COLOR."""
    return Console(stderr=True, highlight=False)


def clean(text: str) -> str:
    """Replace control characters in ``text``, since names from files must not control the terminal."""
    return "".join(c if c == "\n" or c.isprintable() else "�" for c in text)
