"""Licences of timm's pretrained weights, as timm's own table states them.

A student that starts from weights inherits their terms, so a study can say which it accepts:
``training: {init: pretrained, licence: [apache-2.0, mit]}``. Weights whose licence timm does not know are refused
unless ``unknown`` is accepted too. This reads a table; it is no legal advice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from autodistill.core.errors import InfeasibleError, UnknownNameError

ANY = "any"
UNKNOWN = "unknown"


def weights_licence(name: str) -> str:
    """The licence of a timm network's weights in lower case, ``unknown`` where timm states none.

    Args:
        name: with a tag (``resnet18.a1_in1k``), or without: then the weights that timm loads by default.
    """
    import timm

    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return str((found and found.license) or UNKNOWN).lower()


@cache
def known() -> tuple[str, ...]:
    """Every licence in timm's table, and ``unknown``."""
    import timm

    return tuple(sorted({UNKNOWN, *map(weights_licence, timm.list_pretrained())}))


def parse(accepted: str | Sequence[str]) -> tuple[str, ...]:
    """Accepted licences from a list, or from one text with commas; ``any`` accepts all.

    Raises:
        UnknownNameError: one that no weights of timm have; the nearest come first.
    """
    names = accepted.split(",") if isinstance(accepted, str) else accepted
    names = tuple(str(name).strip().lower() for name in names)
    for name in names:
        if name != ANY and name not in known():
            raise UnknownNameError("licence", name, (ANY, *known()), "These are the licences of timm's weights.")
    return names


def check_licence(name: str, accepted: Iterable[str]) -> None:
    """Refuse weights that there are none of, or whose licence is not accepted.

    Raises:
        InfeasibleError: with what is accepted, and the tags of the same network that would be.
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
