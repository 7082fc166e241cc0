"""Versions of the packages that results depend on, read from package metadata without importing them."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = {"autodistill": "autodistill-search", "torch": "torch", "timm": "timm", "optuna": "optuna"}


@functools.cache
def versions() -> dict[str, str]:
    """Return versions by package; ``source`` for a checkout that is not installed, absent packages left out."""
    found = {"python": platform.python_version()}
    for name, distribution in _PACKAGES.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:
            if name == "autodistill":
                found[name] = "source"
    return found
