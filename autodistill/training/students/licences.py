"""Licences of timm's pretrained weights, as stated in timm's table.

A student that starts from pretrained weights inherits their terms. A study can therefore set the accepted licences:
``training: {init: pretrained, licence: [apache-2.0, mit]}``. Weights without a licence in timm's table are refused
unless ``unknown`` is accepted. This module only reads a table; it does not give legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from autodistill.core.errors import InfeasibleError, UnknownNameError

ANY = "any"
UNKNOWN = "unknown"


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
    """Return all licences in timm's table, and ``unknown``."""
    import timm

    return tuple(sorted({UNKNOWN, *map(weights_licence, timm.list_pretrained())}))


def parse(accepted: str | Sequence[str]) -> tuple[str, ...]:
    """Parse accepted licences, given as a list or as one text with commas; ``any`` accepts all.

    Raises:
        UnknownNameError: No weights of timm have this licence. The message lists the nearest names first.
    """
    names = accepted.split(",") if isinstance(accepted, str) else accepted
    names = tuple(str(name).strip().lower() for name in names)
    for name in names:
        if name != ANY and name not in known():
            raise UnknownNameError("licence", name, (ANY, *known()), "These are the licences of timm's weights.")
    return names


def check_licence(name: str, accepted: Iterable[str]) -> None:
    """Check that timm has pretrained weights of a network and that their licence is accepted.

    Raises:
        InfeasibleError: There are no weights, or their licence is not accepted. The message lists the accepted licences
            and the tags of the same network that have one of them.
    """
    import timm

    accepted = tuple(accepted)
    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if found is None or not found.has_weights:
        raise InfeasibleError(f"timm has no pretrained weights for {name}; use init random.")
    licence = weights_licence(name)
    if ANY in accepted or licence in accepted:
        return
    others = [tag for tag in timm.list_pretrained(f"{name.split('.')[0]}.*") if weights_licence(tag) in accepted]
    hint = f" Weights of the same network that are accepted: {', '.join(others)}." if others else ""
    raise InfeasibleError(f"the weights of {name} have the licence {licence}; accepted: {', '.join(accepted)}.{hint}")
