"""Licences of the weights that a network starts from.

A student that starts from pretrained weights inherits their terms. A study can therefore set the accepted licences:
``training: {init: pretrained, licence: [apache-2.0, mit]}``. Weights without a stated licence are refused unless
``unknown`` is accepted; weights that autodistill trained from random ones have no terms of others and are always
accepted. This module only reads what is stated; it does not give legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from autodistill.core.errors import InfeasibleError, UnknownNameError

ANY = "any"
UNKNOWN = "unknown"
OWN = "own"
"""Weights that autodistill trained from random ones."""

_OF_THE_HUB = (
    "afl-3.0", "apple-amlr", "bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-sa-4.0", "cc0-1.0", "gpl-2.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "openrail", "unlicense",
    "wtfpl", "other",
)  # fmt: skip
"""Licences that repositories of the hub state beside those in timm's table."""


def weights_licence(name: str) -> str:
    """Return the licence of a timm network's weights in lower case, or ``unknown`` if timm states none.

    Args:
        name: name of the network, with a tag (``resnet18.a1_in1k``) or without one, which means the weights that timm
            loads by default.
    """
    import timm

    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return str((found and found.license) or UNKNOWN).lower()


@cache
def known() -> tuple[str, ...]:
    """Return all licences in timm's table, others that the hub uses, and ``unknown``."""
    import timm

    return tuple(sorted({UNKNOWN, OWN, *_OF_THE_HUB, *map(weights_licence, timm.list_pretrained())}))


def parse(accepted: str | Sequence[str]) -> tuple[str, ...]:
    """Parse accepted licences, given as a list or as one text with commas; ``any`` accepts all.

    Raises:
        UnknownNameError: No weights have this licence. The message lists the nearest names first.
    """
    names = accepted.split(",") if isinstance(accepted, str) else accepted
    names = tuple(str(name).strip().lower() for name in names)
    for name in names:
        if name != ANY and name not in known():
            raise UnknownNameError("licence", name, (ANY, *known()), "These are the licences of timm's weights.")
    return names


def check_licence(text: str, licence: str, accepted: Iterable[str]) -> None:
    """Check that the licence of weights is accepted.

    Args:
        text: text that names the weights.
        licence: their licence.
        accepted: accepted licences; ``any`` accepts all.

    Raises:
        InfeasibleError: It is not. The message lists the accepted licences and, for a network of timm, the tags of the
            same network that have one of them.
    """
    import timm

    accepted = tuple(accepted)
    if ANY in accepted or licence in accepted or licence == OWN:
        return
    name = text.split(".")[0]
    tags = timm.list_pretrained(f"{name}.*") if timm.is_model(name) else []
    others = [tag for tag in tags if weights_licence(tag) in accepted]
    hint = f" Weights of the same network that are accepted: {', '.join(others)}." if others else ""
    raise InfeasibleError(f"the weights of {text} have the licence {licence}; accepted: {', '.join(accepted)}.{hint}")
