"""The built-in search spaces: YAML files, shipped in the wheel and found in the checkout of an editable install.

Only files are read and put together here (``include:``, see ``space_include.py``); what they mean is read by
``space.py``. Works without optuna.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autodistill.core import strict_yaml
from autodistill.core.errors import ConfigError, UnknownNameError, UsageError
from autodistill.search.space.include import INCLUDE, included, merge

_PACKAGE = Path(__file__).resolve().parents[2]
_FOLDERS = (_PACKAGE / "_search_spaces", _PACKAGE.parent / "search_spaces")  # wheel, checkout
_ENDINGS = (".yaml", ".yml")


def space_names() -> tuple[str, ...]:
    """The built-in spaces, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


def path_of(name: str) -> Path:
    """The file of a built-in space, or the file that ``name`` is the path of.

    Raises:
        UnknownNameError: no such built-in space.
        UsageError: no such file.
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
    """The mapping in a built-in space or a file, with what it includes.

    Raises:
        UsageError: no such space or file.
        ConfigError: it is not YAML, not a mapping, or includes itself.
    """
    return _load(path_of(name), ())


def compose(mapping: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """A space that is given as a mapping, with what it includes.

    Args:
        mapping: the space.
        folder: what relative paths in ``include`` count from; the working folder by default.

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
    """What is included, from the first to the last, and over it the space itself."""
    names = included(mapping, source)
    below: dict[str, Any] = {}
    for name in names:
        try:
            path = path_of(str(folder / name) if Path(name).suffix.lower() in _ENDINGS else name)
        except UsageError as error:
            raise UsageError(f"{source}: {INCLUDE}: {error}") from None
        below = merge(below, _load(path, trail))
    own = {key: value for key, value in mapping.items() if key != INCLUDE}
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
