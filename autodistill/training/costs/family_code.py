"""The code that builds the students of a family, as a key: what is remembered of them holds while it stays the same.

Loads neither torch nor timm: what is remembered of built-in families is found without them.
"""

from __future__ import annotations

import functools
import sys
from importlib.metadata import entry_points
from pathlib import Path

from autodistill.core.records import stable_key
from autodistill.training.runtime.source_code import GROUP, builder_values

_PACKAGE = "autodistill.training.students.families"
_TRAINING = Path(__file__).parents[1]
_BESIDE = ("students/build.py", "costs/counts.py", "deployed/form.py")
"""How every network is built, counted and brought to its final form."""


def family_code(family: str) -> str:
    """Equal while the code that builds the students of ``family`` stays as it is, and the values that it reads."""
    if _PACKAGE not in sys.modules and family not in _plugins():  # nobody can have registered a family of their own
        return _built_in()
    from autodistill.training.students.families import families

    entry = families.get(family) if family in families else None
    if entry is None or not entry.code:
        return _built_in()
    return stable_key([_built_in(), entry.code, builder_values(entry.build)])


@functools.cache
def _built_in() -> str:
    """Of all families of this package together: they share most of their code, and one is rarely edited alone."""
    files = [*sorted((_TRAINING / "students" / "families").glob("*.py")), *(_TRAINING / name for name in _BESIDE)]
    return stable_key([[file.name, file.read_text(encoding="utf-8")] for file in files])


@functools.cache
def _plugins() -> frozenset[str]:
    return frozenset(point.name for point in entry_points(group=GROUP))
