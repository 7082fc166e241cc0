"""The key ``weights`` of a space: variant or family, to a text that names the weights its students start from.

The texts are only names here; they are read where students are built. Relative paths are made absolute, relative to the
file of the space.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WEIGHTS = "weights"
_LOCAL = "local-dir:"
_ENDINGS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")


def weights_problems(space: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the form of a space's ``weights``."""
    given = space.get(WEIGHTS)
    if given is None:
        return []
    if not isinstance(given, Mapping):
        return [f"{WEIGHTS}: expected a mapping of variants to sources, got {given!r}"]
    return [
        f"{WEIGHTS}.{name}: expected a text such as a timm name, a file or STUDY#12, got {text!r}"
        for name, text in given.items()
        if not isinstance(name, str) or not isinstance(text, str) or not text
    ]


def absolute_weights(given: Any, folder: Path) -> Any:
    """Return ``weights`` with absolute paths; a value of another form is returned unchanged, and reported later."""
    if not isinstance(given, Mapping):
        return given
    return {name: _absolute(text, folder) if isinstance(text, str) else text for name, text in given.items()}


def _absolute(text: str, folder: Path) -> str:
    if text.startswith(_LOCAL):
        return _LOCAL + str((folder / Path(text.removeprefix(_LOCAL)).expanduser()).resolve())
    study, _, number = text.rpartition("#")
    plain = study if study and number.isdigit() else text
    path = folder / Path(plain).expanduser()
    named = plain != text or plain.lower().endswith(_ENDINGS) or ("/" in plain and ":" not in plain)
    return str(path.resolve()) + text[len(plain) :] if named or path.exists() else text
