"""The study, the search space, samplers, rungs, budget and fronts. This package never imports training, torch or timm.

It shares its name with the function ``autodistill.search(study, …)``. On import Python binds a subpackage to its
parent's attribute, which would hide the function; the module is therefore callable and forwards the call to ``api``.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _CallableModule(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("autodistill.api").search(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
