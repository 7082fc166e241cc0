"""The cache folder that all studies of a user share: known costs, decoded images, teacher caches.

``AUTODISTILL_CACHE`` sets the folder; by default it is ``autodistill`` below ``XDG_CACHE_HOME`` or ``~/.cache``. No
study folder refers to it, so a study can be moved, and the cache can be removed when nothing runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from autodistill.core.errors import UsageError

DEFAULT_MEGABYTES = 32_768


def cache_folder() -> Path:
    """Return the user's cache folder of autodistill, which may not exist yet."""
    named = os.environ.get("AUTODISTILL_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autodistill"


def teacher_caches() -> Path:
    """Return the folder of the teacher caches that studies share."""
    return cache_folder() / "teacher"


def teacher_cache_bytes() -> int:
    """Return the disk limit of all shared teacher caches together, in bytes.

    ``AUTODISTILL_CACHE_MB`` sets it in MiB; the default is 32 GiB.

    Raises:
        UsageError: The variable is not a whole number above 0.
    """
    named = os.environ.get("AUTODISTILL_CACHE_MB")
    try:
        megabytes = DEFAULT_MEGABYTES if named is None else int(named)
    except ValueError:
        megabytes = 0
    if megabytes < 1:
        raise UsageError(f"AUTODISTILL_CACHE_MB is {named!r}; allowed: a whole number of MiB above 0.")
    return megabytes * 2**20
