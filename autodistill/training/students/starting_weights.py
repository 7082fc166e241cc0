"""Weights that a student starts from with ``init: pretrained``: timm's of its variant, or those that a space names.

A space maps names to sources (``weights: {mobilenetv3_small_100: runs/a#12}``). A name is a variant, a network of timm,
or a family of free width, whose students get the slices that fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autodistill.core.errors import InfeasibleError, UsageError, unknown_name
from autodistill.training.students.build import TIMM, build_student, families, validate
from autodistill.training.weights import licences
from autodistill.training.weights.loading import LoadedWeights, normalization, read
from autodistill.training.weights.source import WeightSource, resolve

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of pixels in [0, 1]."""

_USUAL_SIDE = 224
_ANY_COUNT = 7  # classes of a network that is only built to see whether weights fit


def network_name(student: Mapping[str, Any]) -> str:
    """Return timm's name of a student's network; empty for a family of free width."""
    filled = validate(student)
    if filled["family"] == TIMM:
        return str(filled["model"])
    return str(filled["variant"]) if families.get(filled["family"]).pretrained else ""


def weights_text(student: Mapping[str, Any], mapping: Mapping[str, str]) -> str:
    """Return the text that names the weights of a student.

    Args:
        student: family and parameters.
        mapping: variant, network of timm or family, to the text of its weights; others have timm's own.

    Raises:
        UsageError: The student's family has no weights. The message lists those that have.
    """
    name, family = network_name(student), str(student["family"])
    for key in (name, name.split(".")[0], family):
        if key and key in mapping:
            return mapping[key]
    if name:
        return name
    have = [other for other in families.names() if families.get(other).pretrained]
    raise UsageError(
        f"family {family} has no pretrained weights; families that have: {', '.join(have)}, timm. Weights of your own "
        f"are given in the search space, weights: {{{family}: FOLDER}}."
    )


def source_of(
    student: Mapping[str, Any], mapping: Mapping[str, str], *, licence: str | Sequence[str] = licences.ANY
) -> WeightSource:
    """Find the weights of a student, without reading or downloading them.

    Raises:
        UsageError: The family has no weights.
        InfeasibleError: They have a licence that is not accepted.
        WeightsError: They do not exist, or are not where the mapping says.
    """
    found = resolve(weights_text(student, mapping))
    licences.check_licence(found.text, found.licence, licences.parse(licence))
    return found


def read_for(
    student: Mapping[str, Any],
    mapping: Mapping[str, str],
    classes: Sequence[str],
    *,
    licence: str | Sequence[str] = licences.ANY,
) -> LoadedWeights:
    """Read the weights of a student, to be passed to ``build_student``; errors as in ``source_of``."""
    return read(source_of(student, mapping, licence=licence)).for_classes(tuple(classes))


def statistics_of(student: Mapping[str, Any], source: WeightSource, channels: int) -> Statistics | None:
    """Return mean and standard deviation of the input that a student's weights were trained with, if known."""
    found = normalization(source, channels, network_name(student))
    return None if found is None else (found[0], found[1])


def fit_problem(student: Mapping[str, Any], mapping: Mapping[str, str]) -> str:
    """Return why weights on this machine that a space names for a student do not fit it; empty if they do.

    Published weights of timm are not read: they fit their network.
    """
    text = weights_text(student, mapping) if network_name(student) or student["family"] in mapping else ""
    if not text or text == network_name(student):
        return ""
    try:
        source = resolve(text)
        if not source.is_here:
            return ""
        shape = {"image_size": source.image_size or _USUAL_SIDE, "channels": source.channels or 3}
        weights = read(source).for_classes(())
        build_student(student, **shape, num_classes=_ANY_COUNT, weights=weights)
    except UsageError as error:
        return str(error)
    except InfeasibleError:  # of this size of images; the study has another
        return ""
    return ""


def check_mapping(mapping: Mapping[str, str]) -> list[str]:
    """Return the problems of a space's ``weights``: names that are nothing, and weights that are not there."""
    import timm

    problems = []
    variants = [str(one) for name in families.names() for one in _variants(name)]
    for name, text in mapping.items():
        if name not in variants and name not in families and not timm.is_model(name.split(".")[0]):
            allowed = [*variants, *families.names()]
            problems.append(unknown_name("variant or family in weights", name, allowed, "Networks of timm work too."))
            continue
        try:
            resolve(text)
        except UsageError as error:
            problems.append(f"weights.{name}: {error}")
    return problems


def _variants(family: str) -> tuple[Any, ...]:
    found = families.get(family).parameter("variant")
    return found.choices if found is not None else ()
