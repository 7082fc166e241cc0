"""DECIDES: the study, the search space, samplers, rungs, budget and fronts. Never imports training, torch or timm.

The room shares its name with the function ``autodistill.search(study, …)``. Python binds a subpackage to its parent's
attribute on import and would hide the function, so the module itself can be called and hands over to the engines.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _CallableRoom(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("autodistill.api").search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableRoom
