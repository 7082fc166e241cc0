"""Key of the code that builds the students of a family; stored costs are valid while the key stays the same.

This module loads neither torch nor timm, so that stored costs of built-in families can be found without them.
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
_SHARED = ("students/build.py", "costs/counts.py", "deployed/form.py")
"""Files that affect the costs of every student: building, counting, and the deployed form."""


def family_code(family: str) -> str:
    """Return a key of the code that builds the students of ``family``, and of the values that this code reads."""
    if _PACKAGE not in sys.modules and family not in _plugins():  # only built-in families can be registered
        return _built_in()
    from autodistill.training.students.families import families

    entry = families.get(family) if family in families else None
    if entry is None or not entry.code:
        return _built_in()
    return stable_key([_built_in(), entry.code, builder_values(entry.build)])


@functools.cache
def _built_in() -> str:
    """Return one key for all families of this package, which share most of their code."""
    files = [*sorted((_TRAINING / "students" / "families").glob("*.py")), *(_TRAINING / name for name in _SHARED)]
    return stable_key([[file.name, file.read_text(encoding="utf-8")] for file in files])


@functools.cache
def _plugins() -> frozenset[str]:
    return frozenset(point.name for point in entry_points(group=GROUP))
