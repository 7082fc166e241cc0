"""The built-in search spaces: YAML files in the wheel, or in the checkout of an editable install.

This module reads and combines files (``include:``, see ``include.py``); ``space.py`` parses them. It does not need
optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodistill.core import strict_yaml
from autodistill.core.errors import ConfigError, UnknownNameError, UsageError
from autodistill.search.space.include import INCLUDE, included, merge
from autodistill.search.space.weights_section import WEIGHTS, absolute_weights

_PACKAGE = Path(__file__).resolve().parents[2]
_FOLDERS = (_PACKAGE / "_search_spaces", _PACKAGE.parent / "search_spaces")  # wheel, checkout
_ENDINGS = (".yaml", ".yml")


def space_names() -> tuple[str, ...]:
    """Return the names of the built-in spaces, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def path_of(name: str) -> Path:
    """Return the file of a built-in space, or the path ``name`` itself.

    Raises:
        UnknownNameError: there is no built-in space of this name.
        UsageError: there is no such file.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in _ENDINGS:
        if not path.is_file():
            raise UsageError(f"there is no search space file {str(path)!r}. Built in are: {', '.join(space_names())}.")
        return path
    if name not in space_names():
        hint = "A file of your own ends in .yaml; 'autodistill spaces cp NAME' copies one to start from."
        raise UnknownNameError("search space", name, space_names(), hint)
    return _folder() / f"{name}.yaml"


def load_space(name: str) -> dict[str, Any]:
    """Read the mapping of a built-in space or a file, with the spaces that it includes.

    Raises:
        UsageError: there is no such space or file.
        ConfigError: the file is not YAML, is not a mapping, or includes itself.
    """
    return _load(path_of(name), ())


def compose(mapping: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Return a space given as a mapping, combined with the spaces that it includes.

    Args:
        mapping: the space.
        folder: base of relative paths in ``include``; the working folder by default.

    Raises:
        UsageError, ConfigError: see :func:`load_space`.
    """
    return _compose(mapping, folder or Path.cwd(), "the space", ())


def _load(path: Path, trail: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in trail:
        circle = " includes ".join(one.name for one in (*trail[trail.index(path) :], path))
        raise ConfigError([f"{INCLUDE}: {circle}; a space cannot include itself"], str(trail[0]))
    return _compose(_read(path), path.parent, str(path), (*trail, path))


def _compose(mapping: Mapping[str, Any], folder: Path, source: str, trail: tuple[Path, ...]) -> dict[str, Any]:
    """Combine the included spaces, from first to last, and then the space itself."""
    names = included(mapping, source)
    below: dict[str, Any] = {}
    for name in names:
        try:
            path = path_of(str(folder / name) if Path(name).suffix.lower() in _ENDINGS else name)
        except UsageError as error:
            raise UsageError(f"{source}: {INCLUDE}: {error}") from None
        below = merge(below, _load(path, trail))
    own = {key: value for key, value in mapping.items() if key != INCLUDE}
    if WEIGHTS in own:
        own[WEIGHTS] = absolute_weights(own[WEIGHTS], folder)
    return merge(below, own) if names else own


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the search space {str(path)!r}: {error}.") from error
    data, _ = strict_yaml.load(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: expected the sections student, distillation and train, got {data!r}"], str(path))
    return data


def _folder() -> Path:
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
