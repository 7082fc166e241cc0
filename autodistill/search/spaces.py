"""The built-in search spaces: YAML files, shipped in the wheel and found in the checkout of an editable install.

Only files are read here; what they mean is read by ``space.py``. Works without optuna.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autodistill import strict_yaml
from autodistill.errors import ConfigError, UnknownNameError, UsageError

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (_PACKAGE / "_search_spaces", _PACKAGE.parent / "search_spaces")  # wheel, checkout
_ENDINGS = (".yaml", ".yml")


def names() -> tuple[str, ...]:
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
            raise UsageError(f"there is no search space file {str(path)!r}. Built in are: {', '.join(names())}.")
        return path
    if name not in names():
        hint = "A file of your own ends in .yaml; 'autodistill spaces cp NAME' copies one to start from."
        raise UnknownNameError("search space", name, names(), hint)
    return _folder() / f"{name}.yaml"


def load(name: str) -> dict[str, Any]:
    """The mapping in a built-in space or a file.

    Raises:
        UsageError: no such space or file.
        ConfigError: it is not YAML, or not a mapping.
    """
    path = path_of(name)
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
