"""Where everything lives that studies of one user share: known costs, decoded images, teacher caches.

``AUTODISTILL_CACHE`` names the folder; else it is ``autodistill`` below ``XDG_CACHE_HOME`` or ``~/.cache``. No study
folder points into it, so a study can be moved, and the cache can be removed whenever nothing runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from autodistill.core.errors import UsageError

DEFAULT_MEGABYTES = 32_768


def cache_folder() -> Path:
    """The user's cache folder of autodistill; it need not exist."""
    named = os.environ.get("AUTODISTILL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autodistill"


def teacher_caches() -> Path:
    """The folder of the teacher caches that studies share."""
    return cache_folder() / "teacher"


def teacher_cache_bytes() -> int:
    """What all shared teacher caches together may take on disk: ``AUTODISTILL_CACHE_MB``, else 32 GiB.

    Raises:
        UsageError: the variable is no number above 0.
    """
    named = os.environ.get("AUTODISTILL_CACHE_MB")
    try:
        megabytes = DEFAULT_MEGABYTES if named is None else int(named)
    except ValueError:
        megabytes = 0
    if megabytes < 1:
        raise UsageError(f"AUTODISTILL_CACHE_MB is {named!r}; allowed: a whole number of MiB above 0.")
    return megabytes * 2**20
