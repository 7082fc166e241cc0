"""The interface of a teacher: a frozen function from images to logits.

It takes the study's images in [0, 1] and converts them to the network's input: channels, resolution, mean and
standard deviation. It is always in eval mode, has no gradients and is never part of a student's checkpoint.
``load.py`` reads each kind of source.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import TeacherError, UsageError
from autodistill.training.students.embeddings import EmbeddingTap, embedding_width
from autodistill.training.teachers.keras_files import keras_hint

LOGITS, PROBABILITIES, SIGMOID = OUTPUTS = ("logits", "probabilities", "sigmoid")
"""Allowed kinds of a network's outputs: logits, results of a softmax, results of a sigmoid."""

_LEAST = math.log(torch.finfo(torch.float32).tiny)
"""Value used as the logarithm of a probability of zero."""

_MOST = -math.log(torch.finfo(torch.float32).eps)
"""Value used as the log-odds of a probability of one; the largest that float32 tells from one has 15.2."""

_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Preprocessing:
    """Input that a network expects, and the meaning of its outputs.

    Attributes:
        image_size: pixels per side.
        channels: number of channels, 1 or 3.
        mean: mean per channel in [0, 1], or one number for all channels.
        std: standard deviation per channel, or one number for all channels.
        class_map: position of each class of the data in the network's outputs; empty if the orders are equal.
        outputs: kind of the outputs, ``logits``, ``probabilities`` (of a softmax) or ``sigmoid``; empty if not
            specified, which means logits.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    class_map: tuple[int, ...] = ()
    outputs: str = field(default="", repr=False)  # not in repr: fingerprints are hashes of it

    def __str__(self) -> str:
        """Describe the network's input in words: ``32 px, 3 channels, mean [0.5], std [0.5]``."""
        mean, std = ("[" + ", ".join(f"{value:g}" for value in values) + "]" for values in (self.mean, self.std))
        return f"{self.image_size} px, {self.channels} channel{'s' * (self.channels > 1)}, mean {mean}, std {std}"

    def override(self, options: Mapping[str, Any]) -> Preprocessing:
        """Return a copy with the values in ``options``; keys of other options are ignored.

        Raises:
            UsageError: a value is invalid.
        """
        changes: dict[str, Any] = {}
        try:
            for name in ("image_size", "channels"):
                if options.get(name) is not None:
                    changes[name] = int(options[name])
            for name, kind in (("mean", float), ("std", float), ("class_map", int)):
                if options.get(name) is not None:
                    value = options[name]
                    changes[name] = tuple(map(kind, value if isinstance(value, Sequence) else [value]))
            if options.get("outputs") is not None:
                changes["outputs"] = str(options["outputs"])
        except (TypeError, ValueError) as error:
            raise UsageError(f"teacher options {dict(options)}: {error}.") from error
        changed = replace(self, **changes)
        if changed.channels not in (1, 3) or changed.image_size < 1 or min(changed.std) <= 0:
            raise UsageError(
                f"teacher options give channels {changed.channels}, image_size {changed.image_size}, "
                f"std {changed.std}; allowed: 1 or 3 channels, a size and a std above 0."
            )
        if changed.outputs not in ("", *OUTPUTS):
            raise UsageError(f"teacher option outputs is {changed.outputs!r}; allowed: {', '.join(OUTPUTS)}.")
        return changed


@dataclass(frozen=True)
class TrainedOn:
    """What is known of the images that a teacher was trained on.

    Attributes:
        elsewhere: whether they are not the user's images: published weights.
        data: fingerprint of the pool that they come from; empty if unknown.
        held_out: identifier of the images of that pool that it was not trained on (``ImageData.held_out``).
    """

    elsewhere: bool = False
    data: str = ""
    held_out: str = ""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen teacher.

    Attributes:
        name: source from which it was loaded, for messages.
        fingerprint: 16 hex digits of weights and preprocessing; teachers with equal fingerprints give equal logits.
        preprocessing: input that the network expects.
        device: device that it runs on.
        network: function from the preprocessed input to logits; ``None`` for stored logits.
        stored: logits ``(pool, classes)`` of all plain images of the pool; ``None`` for a network.
        members: teachers of an ensemble, with their shares.
        trained_on: where the images that it was trained on are known; ``None`` elsewhere.
        multilabel: whether each logit is that of one label by itself, not of classes that exclude each other.
    """

    name: str
    fingerprint: str
    preprocessing: Preprocessing
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    network: Callable[[Tensor], Tensor] | None = None
    stored: Tensor | None = None
    members: tuple[tuple[float, Teacher], ...] = ()
    trained_on: TrainedOn | None = None
    multilabel: bool = False

    @property
    def image_size(self) -> int:
        """Pixels per side of the network's input."""
        return self.preprocessing.image_size

    @property
    def by_id(self) -> bool:
        """Whether it has stored logits of plain images by id only, so that it cannot be run on views."""
        return self.stored is not None

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute logits ``(batch, classes)``, fp32, on the device of ``images``.

        Args:
            images: floats in [0, 1], ``(batch, channels, side, side)``.

        Raises:
            TeacherError: the teacher has stored logits only, or its output is not a batch of logits.
        """
        if self.members:
            answers = [(share, member(images)) for share, member in self.members]
            return _mean_of_label_probabilities(answers) if self.multilabel else _mean_of_probabilities(answers)
        if self.network is None:
            raise TeacherError(f"teacher {self.name} is a file of logits; it cannot be run on images.")
        logits = logits_of(self.network(self.prepare(images)))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise TeacherError(
                f"teacher {self.name} gave {shape} for {len(images)} images; expected a torch tensor "
                f"(batch, classes).{keras_hint(logits)}"
            )
        return self._select(logits).to(images.device)

    def of_ids(self, ids: Tensor) -> Tensor:
        """Return stored logits ``(batch, classes)`` of plain images.

        Raises:
            TeacherError: the teacher has no stored logits, or lacks those of some of these images.
        """
        if self.stored is None:
            raise TeacherError(f"teacher {self.name} has no stored logits.")
        found = self.stored[ids.cpu()]
        if not bool(torch.isfinite(found).all()):
            raise TeacherError(
                f"teacher {self.name} has no finite logits for some images, e.g. id "
                f"{int(ids.cpu()[~torch.isfinite(found).all(1)][0])}. Store logits for all training and "
                "validation images, and after them for the unlabelled ones."
            )
        return self._select(found).to(ids.device)

    @torch.no_grad()
    def embedding(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits ``(batch, classes)`` and embedding ``(batch, width)`` of images in [0, 1] in one pass.

        Raises:
            TeacherError: the teacher is not a network with a classifier.
        """
        if not isinstance(self.network, nn.Module):
            raise TeacherError(f"teacher {self.name} has no embedding; choose a loss mix without that term.")
        tap = EmbeddingTap(self.network)
        try:
            logits = self(images)
            return logits, tap.take().float().to(images.device)
        finally:
            tap.remove()

    def embedding_width(self) -> int:
        """Return the width of the embedding.

        Raises:
            TeacherError: the teacher has no embedding.
        """
        if not isinstance(self.network, nn.Module):
            raise TeacherError(
                f"teacher {self.name} has no embedding. Give a network of PyTorch, or leave embedding terms out of the "
                "search: --set distillation.embedding=none."
            )
        return embedding_width(self.network)

    def prepare(self, images: Tensor) -> Tensor:
        """Convert images in [0, 1] to the network's input."""
        wanted = self.preprocessing
        images = images.to(self.device)
        if images.shape[1] == 1 and wanted.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        elif images.shape[1] == 3 and wanted.channels == 1:
            images = (images * images.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if images.shape[-1] != wanted.image_size:
            size = (wanted.image_size, wanted.image_size)
            images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
            images = images.clamp(0, 1)
        mean, std = (images.new_tensor(value).view(1, -1, 1, 1) for value in (wanted.mean, wanted.std))
        return (images - mean) / std

    def _select(self, logits: Tensor) -> Tensor:
        """Select the outputs of the data's classes; take the logarithm of probabilities, the log-odds of sigmoids."""
        chosen, outputs = self.preprocessing.class_map, self.preprocessing.outputs
        found = (logits[:, list(chosen)] if chosen else logits).float()
        if outputs == SIGMOID:  # not torch.logit: with a bound it hides numbers outside 0 to 1
            least = -_MOST if self.multilabel else _LEAST
            return (found.log() - (-found).log1p()).clamp(least, _MOST)
        return found.log().clamp_min(_LEAST) if outputs == PROBABILITIES else found


def logits_of(answer: Any) -> Any:
    """Return the logits of a network's answer: of an object with ``logits`` (Hugging Face), or the first of a tuple."""
    found = getattr(answer, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(answer, Mapping) and isinstance(answer.get("logits"), Tensor):
        return answer["logits"]
    return answer[0] if isinstance(answer, tuple | list) and answer else answer


def freeze(network: nn.Module, device: torch.device | None) -> nn.Module:
    """Wrap ``network`` in permanent eval mode without gradients, on ``device`` (``None`` leaves it where it is)."""
    frozen = _Frozen(network).requires_grad_(False).eval()
    if device is None:
        return frozen
    return frozen.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _Frozen(nn.Module):
    """A network that cannot be set to training mode.

    Its input is channels-last, with which convolutions run 1.4 times as fast on a CPU. Some networks fail with it,
    because they call ``view`` on the output of a convolution; after their first failure they get contiguous input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._format = torch.channels_last
        self.train(False)

    def forward(self, images: Tensor) -> Any:
        if self._format is torch.contiguous_format or images.ndim != 4:
            return logits_of(self.network(images))
        try:
            return logits_of(self.network(images.contiguous(memory_format=self._format)))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            self._format = torch.contiguous_format
            self.network.to(memory_format=torch.contiguous_format)
            return logits_of(self.network(images.contiguous()))

    def train(self, mode: bool = True) -> _Frozen:
        del mode
        return super().train(False)

    def get_classifier(self) -> Any:
        found = getattr(self.network, "get_classifier", None)
        return found() if found else None


def fingerprint_of(source: nn.Module | bytes, preprocessing: Preprocessing, **facts: Any) -> str:
    """Return 16 hex digits, a hash of weights (or file content), preprocessing and further facts."""
    if preprocessing.outputs in (PROBABILITIES, SIGMOID):
        facts["outputs"] = preprocessing.outputs
    digest = hashlib.sha256(json.dumps([repr(preprocessing), facts], sort_keys=True, default=str).encode())
    if isinstance(source, bytes):
        digest.update(source)
        return digest.hexdigest()[:16]
    for name, value in source.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.view(torch.uint8).numpy().data if array.ndim else array.numpy().tobytes())
    return digest.hexdigest()[:16]


def _mean_of_probabilities(answers: list[tuple[float, Tensor]]) -> Tensor:
    """Return logits whose softmax is the weighted mean of the members' softmaxes, shifted to their mean logsumexp."""
    level = sum((share * logits.logsumexp(1, keepdim=True) for share, logits in answers), torch.zeros(()))
    mixed = torch.stack([logits.log_softmax(1) + _log(share) for share, logits in answers]).logsumexp(0)
    return mixed + level


def _mean_of_label_probabilities(answers: list[tuple[float, Tensor]]) -> Tensor:
    """Return logits whose sigmoids are the weighted mean of the members' sigmoids, label by label."""
    present = torch.stack([F.logsigmoid(logits) + _log(share) for share, logits in answers]).logsumexp(0)
    absent = torch.stack([F.logsigmoid(-logits) + _log(share) for share, logits in answers]).logsumexp(0)
    return present - absent


def _log(share: float) -> Tensor:
    return torch.tensor(share, dtype=torch.float64).log().float()
