"""Teachers given as ``module:factory``: a user's function that returns the teacher."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from autodistill.core.errors import AutodistillError, TeacherError, UsageError
from autodistill.training.teachers.keras_files import keras_hint

_CONTRACT = (
    "It has to return the teacher: a torch module, or a function of images (batch, channels, side, side) in [0, 1] "
    "that gives logits (batch, classes)"
)


def made_by(source: str, factory: Callable[..., Any], keywords: Mapping[str, Any]) -> Any:
    """Call ``factory`` with ``keywords`` and return the teacher that it makes: a module or a function.

    Raises:
        UsageError: the factory does not take these keywords; it may be the teacher itself.
        TeacherError: the factory failed, or returned something that cannot be called.
    """
    _check_call(source, factory, keywords)
    try:
        made = factory(**keywords)
    except AutodistillError:
        raise
    except Exception as error:
        raise TeacherError(f"teacher {source!r} failed: {type(error).__name__}: {error}") from error
    if (hint := keras_hint(made)) and not isinstance(made, nn.Module):  # with its torch backend it is a module
        raise TeacherError(f"teacher {source!r} returned {type(made).__name__}.{hint}")
    if not callable(made):
        raise TeacherError(f"teacher {source!r} returned {type(made).__name__}. {_CONTRACT}.")
    return made


def _check_call(source: str, factory: Callable[..., Any], keywords: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # builtins have no signature; the call itself will fail
        return
    try:
        signature.bind(**keywords)
    except TypeError as error:
        given = f"with its options ({', '.join(keywords)})" if keywords else "without arguments"
        name = source.rpartition(":")[2]
        raise UsageError(
            f"teacher {source!r} is called {given}, which {name}{signature} does not take: {error}. {_CONTRACT}. If "
            f"{name} is the teacher itself, name a function that returns it: def make(): return {name}"
        ) from error
