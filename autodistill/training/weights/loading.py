"""Loading of weights into a network of timm: classes and input channels are adapted as timm does it.

timm's own functions do the work: each architecture's filter of names and shapes, the sum or the repetition of the first
layer's kernels for other input channels, position embeddings of another size, and a new classifier for other classes.
They log what they could not place; here a layer that got nothing is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from autodistill.core.errors import TeacherError, WeightsError, first_lines
from autodistill.training.weights.files import ending, fit
from autodistill.training.weights.source import WeightSource, fetch

_LISTED = 3
_NO_SOURCE: dict[str, Any] = {"url": None, "file": None, "hf_hub_id": None, "hf_hub_filename": None, "source": None}


@dataclass(frozen=True, eq=False)
class LoadedWeights:
    """Weights that were read from their file.

    Attributes:
        source: where they are from.
        tensors: name to tensor, on the CPU.
        keeps_classifier: whether a classifier with as many classes may be kept; false if its classes are others.
    """

    source: WeightSource
    tensors: Mapping[str, Tensor]
    keeps_classifier: bool = True

    def for_classes(self, classes: tuple[str, ...]) -> LoadedWeights:
        """Return the weights for images of these classes: a classifier of others is not kept."""
        theirs = self.source.classes
        return replace(self, keeps_classifier=theirs is None or theirs == tuple(classes))


def read(source: WeightSource) -> LoadedWeights:
    """Read weights, after downloading them if they are not here.

    Raises:
        WeightsError: they are neither here nor can be fetched.
        TeacherError: the file is missing, damaged, or of a kind that is not opened.
    """
    source = fetch(source)
    return LoadedWeights(source, source.tensors())


def normalization(source: WeightSource, channels: int, network: str = "") -> tuple[tuple[float, ...], ...] | None:
    """Return mean and standard deviation per channel of the input that weights were trained with.

    Args:
        source: the weights.
        channels: channels of the images; if the weights were trained with others, each channel gets the average.
        network: name in timm of the network that they are loaded into, whose usual values hold for a plain file.

    Returns:
        Mean and standard deviation, each ``channels`` long; ``None`` if nothing is known.
    """
    mean, std = source.mean, source.std
    if mean is None or std is None:
        config = timm.get_pretrained_cfg(network) if network and timm.is_model(network.split(".")[0]) else None
        if config is None:
            return None
        mean, std = tuple(config.mean), tuple(config.std)
    return of_channels(mean, channels), of_channels(std, channels)


def of_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return one value per channel: the given ones, or their average for another number of channels."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def create_loaded(name: str, weights: LoadedWeights, *, num_classes: int, in_chans: int, **keywords: Any) -> nn.Module:
    """Call ``timm.create_model`` with weights that were read before.

    Args:
        name: name of the network in timm.
        weights: the weights.
        num_classes: number of logits.
        in_chans: channels of the input.
        keywords: further keywords of the network.

    Raises:
        WeightsError: the weights do not fit the network.
    """
    label = f"{name} does not fit the weights {weights.source.text}"
    if weights.source.name and weights.source.name.split(".")[0] != name.split(".")[0]:
        raise WeightsError(f"{label}: they are of {weights.source.name}.")
    if not weights.source.name and weights.source.student is not None:
        theirs = weights.source.student
        own = theirs.get("variant", theirs.get("model", theirs.get("family")))
        if str(own).split(".")[0] != name.split(".")[0]:
            raise WeightsError(f"{label}: they are of {own}.")
    before = torch.get_rng_state()
    plain = timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_chans, **keywords)
    wanted = plain.state_dict()
    tensors = _named_as(weights.tensors, wanted, _listed(plain.pretrained_cfg.get("classifier")))
    overlay = _overlay(plain.pretrained_cfg, tensors, weights)
    torch.set_rng_state(before)  # the layers that stay random are those of a network without weights
    try:
        model: nn.Module = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=num_classes,
            in_chans=in_chans,
            **keywords,
        )
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError, IndexError) as error:
        _explain(weights.tensors, wanted, label)
        raise WeightsError(f"{label}: {first_lines(error)}") from error
    model.pretrained_cfg = model.default_cfg = plain.pretrained_cfg  # without the tensors
    empty = _without_weights(model, wanted, tensors)
    if empty:
        _explain(weights.tensors, wanted, label)
        shown = ", ".join([*empty[:_LISTED], *(["…"] if len(empty) > _LISTED else [])])
        raise WeightsError(f"{label}: {len(empty)} of {len(wanted)} tensors of the network got no values ({shown}).")
    return model


def _named_as(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    """Rename tensors to the network's names where a common prefix is all that differs; else return them unchanged.

    The classifier may be missing or another one; timm's filters may still rename what does not fit here.
    """
    for have, want in ((tensors, wanted), (_without(tensors, heads), _without(wanted, heads))):
        try:
            return fit(have, want, "", shapes=False)
        except TeacherError:
            continue
    return dict(tensors)


def _without(tensors: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors without those of the classifier, whatever prefix their names have."""
    ends = tuple(f".{one}.{kind}" for one in heads for kind in ("weight", "bias"))
    return {name: value for name, value in tensors.items() if not f".{name}".endswith(ends)}


def _overlay(config: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: LoadedWeights) -> dict[str, Any]:
    """Return what timm has to know of the weights, where it differs from what it knows of the network."""
    source = weights.source
    heads = _listed(config.get("classifier"))
    found = [tensor for one in heads if (tensor := ending(tensors, f"{one}.weight")) is not None]
    rows = int(found[0].shape[0]) if found else (source.count or 0)
    count = source.count if source.kind == "timm" and source.count is not None else rows
    stems = [
        tensor for one in _listed(config.get("first_conv")) if (tensor := ending(tensors, f"{one}.weight")) is not None
    ]
    size = tuple(config.get("input_size", (3, 224, 224)))
    channels = source.channels or (int(stems[0].shape[1]) if stems and stems[0].ndim == 4 else size[0])
    return {
        **_NO_SOURCE,
        "state_dict": dict(tensors),
        "custom_load": False,
        "num_classes": count if weights.keeps_classifier else -1,  # another number drops the classifier
        "input_size": (channels, *size[1:]),
        **({} if source.kind == "timm" else {"label_offset": 0}),
    }


def _without_weights(model: nn.Module, plain: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of ``model``, except of its classifier, that still have their random values.

    Vectors are left out: biases and scales of new layers are often what trained ones may be, zeros and ones.
    """
    heads = tuple(f"{one}." for one in _listed(getattr(model, "pretrained_cfg", {}).get("classifier")))
    return [
        name
        for name, value in model.state_dict().items()
        if value.ndim > 1
        and not name.startswith(heads)
        and torch.equal(value, plain[name])
        and not (name in tensors and tensors[name].shape == value.shape)
    ]


def _explain(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], label: str) -> None:
    """Raise the error that names what is missing and left over; return if the names are all there.

    Raises:
        WeightsError: names differ.
    """
    try:
        fit(tensors, wanted, label, shapes=False)
    except TeacherError as error:
        raise WeightsError(str(error)) from error


def _listed(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
