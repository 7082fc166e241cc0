"""The training loop, shared by teachers, students and retraining.

Images stay ``uint8`` in one tensor: memory-mapped on the CPU, or on the GPU if they fit. A batch is selected by row
numbers; views, mixup and normalization are computed on the batch. There is no loader process.

Every random number is a function of a seed and a position: the order of images of (seed, epoch), dropout of
(seed, step), views of (view seed, image, view). A training that is stopped between any two steps and resumed from its
checkpoint therefore ends with the same bits as an uninterrupted one. On one CPU thread the same seed gives the same
bits.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autodistill.core.errors import DivergedError, InfeasibleError, ResourceError, StoreError
from autodistill.training.augmentation import mixup
from autodistill.training.augmentation import policy as views
from autodistill.training.augmentation.operations import resize
from autodistill.training.augmentation.policy import Policy
from autodistill.training.data.datasets import ImageData
from autodistill.training.loop import decisions, measures, norm_statistics
from autodistill.training.loop.averaging import Average
from autodistill.training.loop.optimizers import (
    body_share,
    build_optimizer,
    head_parameters,
    learning_rate,
    optimizer_state,
    restore_optimizer,
)
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.unlabelled_feed import UnlabelledFeed, UnlabelledRows
from autodistill.training.runtime import strided
from autodistill.training.runtime.distributed import BatchShare, Team
from autodistill.training.students.embeddings import EmbeddingTap, heads_of
from autodistill.training.students.student_input import StudentInput

_CHECK_EVERY = 16
"""Steps between two checks of the losses on a GPU, because each check waits for the device."""
_FORWARD = 512
"""Images per forward pass without gradients."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Training images with their labels and normalization.

    Attributes:
        images: ``uint8 (n, channels, side, side)``.
        labels: ``int64 (n,)``, or ``(n, classes)`` of 0 and 1, on the device of ``images``.
        ids: ``int64 (n,)``, on the device of ``images``; they identify the images for views and caches.
        mean: mean per channel, of pixels in [0, 1].
        std: standard deviation per channel, of pixels in [0, 1].
        classes: number of classes.
        unlabelled: further images, which each batch takes beside labelled ones; ``None`` if there are none.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int
    unlabelled: UnlabelledFeed | None = None

    @classmethod
    def of(cls, data: ImageData, *, unlabelled: bool = False) -> Feed:
        """Return the training images of ``data`` without copying them.

        Args:
            data: the images.
            unlabelled: whether to add the unlabelled images, for a training with a teacher.
        """
        train = data.train
        images, labels, ids = (torch.from_numpy(array) for array in (train.images, train.labels, train.ids))
        further = UnlabelledFeed.of(data.unlabelled) if unlabelled else None
        return cls(images, labels, ids, data.mean, data.std, len(data.classes), further)

    def near(self, device: torch.device) -> Feed:
        """Move everything to the GPU ``device`` if the images take less than a quarter of its free memory."""
        size = self.images.nbytes + (0 if self.unlabelled is None else self.unlabelled.images.nbytes)
        if device.type != "cuda" or size * 4 > torch.cuda.mem_get_info(device)[0]:
            return self
        images, labels, ids = (tensor.to(device) for tensor in (self.images, self.labels, self.ids))
        unlabelled = None if self.unlabelled is None else self.unlabelled.to(device)
        return replace(self, images=images, labels=labels, ids=ids, unlabelled=unlabelled)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of views, the input of the losses.

    Attributes:
        views: floats in [0, 1], ``(b, channels, side, side)``, already mixed if the policy mixes.
        target: ``int64 (b,)``; floats ``(b, classes)`` for mixed labels, and for several labels per image. Only of the
            labelled images.
        raw: ``uint8`` images from which the views were made, unmixed.
        ids: identifiers of the images, ``(b,)``.
        view: number of the view that was made of each image.
        mixed: pairs of images that were mixed; ``None`` without mixup and cutmix.
        teacher: teacher logits ``(b, classes)`` for ``views``; ``None`` if they are not needed.
        teacher_embedding: the teacher's embedding ``(b, width)``; ``None`` if it is not needed.
        share: the part that this process computed, if several processes share the batch.
        labelled: number of labelled images, which come first; ``None`` if all are.
    """

    views: Tensor
    target: Tensor
    raw: Tensor
    ids: Tensor
    view: int
    mixed: mixup.MixedPairs | None = None
    teacher: Tensor | None = None
    teacher_embedding: Tensor | None = None
    share: BatchShare | None = None
    labelled: int | None = None

    def part(self, rows: slice) -> Batch:
        """Return some rows of a labelled batch; ``mixed`` spans the whole batch and is dropped."""
        changed = {name: tensor[rows] for name, tensor in self._tensors().items()}
        return replace(self, mixed=None, **changed)

    def joined(self, unlabelled: Batch) -> Batch:
        """Return a batch with unlabelled images after the labelled ones; both are mixed among themselves only."""
        theirs = unlabelled._tensors()
        both: dict[str, Any] = {
            name: torch.cat([own, theirs[name]]) for name, own in self._tensors().items() if name != "target"
        }
        return replace(self, mixed=None, labelled=len(self.ids), **both)

    def parts(self, number: int) -> list[Batch]:
        """Split the batch for gradient accumulation, labelled and unlabelled images each into equal shares."""
        count = len(self.ids) if self.labelled is None else self.labelled
        size = -(-count // number)
        if size == count:
            return [self]
        starts = range(0, count, size)
        if self.labelled is None:
            return [self.part(slice(start, start + size)) for start in starts]
        rest = len(self.ids) - count
        edges = [count + rest * index // len(starts) for index in range(len(starts) + 1)]
        return [
            self._selected(slice(start, min(start + size, count)), slice(*edges[index : index + 2]))
            for index, start in enumerate(starts)
        ]

    def _selected(self, labelled: slice, unlabelled: slice) -> Batch:
        changed: dict[str, Any] = {
            name: tensor[labelled] if name == "target" else torch.cat([tensor[labelled], tensor[unlabelled]])
            for name, tensor in self._tensors().items()
        }
        return replace(self, mixed=None, labelled=labelled.stop - labelled.start, **changed)

    def _tensors(self) -> dict[str, Any]:
        return {one.name: value for one in fields(self) if isinstance(value := getattr(self, one.name), Tensor)}


class Criterion(Protocol):
    """The loss that a training minimises."""

    @property
    def wants_embedding(self) -> bool:
        """Whether ``loss`` needs the student's embedding, the vectors before its classifier."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """Return parameters that are trained with the student and discarded afterwards."""
        ...

    def add_teacher_outputs(self, batch: Batch) -> Batch:
        """Return the batch with the teacher's outputs that the loss needs."""
        ...

    def loss(self, logits: Tensor, embedding: Tensor | None, batch: Batch) -> Tensor:
        """Compute the scalar loss of the student's ``logits (b, classes)`` and ``embedding (b, width)``."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state to save in a checkpoint: tensors, and JSON values."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore a state returned by ``state``."""
        ...


class Trainer:
    """A training of one model, which can be stopped, saved and resumed between any two steps.

    Args:
        model: network to train; it is moved to ``device``.
        feed: training images.
        criterion: loss.
        recipe: optimizer, schedule, augmentation.
        epochs: epochs of the whole schedule, i.e. of the top rung, even if the training stops earlier.
        seed: seed of the order of images and of dropout.
        view_seed: seed of the views, shared by all trials of a study.
        view_count: number of views per image, used in rotation; 0 makes a new view in every epoch.
        policy: augmentation policy of the views; the recipe's if omitted.
        student_input: side and normalization of the model's input; those of ``feed`` if omitted.
        device: device to train on.
        team: processes that share this training; ``None`` if there is only this one.
    """

    def __init__(
        self,
        model: nn.Module,
        feed: Feed,
        criterion: Criterion,
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        view_seed: int = 0,
        view_count: int = 0,
        policy: Policy | None = None,
        student_input: StudentInput | None = None,
        device: torch.device | str = "cpu",
        team: Team | None = None,
    ) -> None:
        self.device, self._team = torch.device(device), team
        self.feed, self.criterion, self.recipe = feed, criterion, recipe
        self.epochs, self.seed = epochs, seed
        self.view_seed, self.view_count = view_seed, view_count
        self.policy = policy or recipe.policy()
        strided.protect(model)
        # with channels_last, convolutions and BatchNorm train 1.3 to 1.7 times as fast, on CPUs too
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.step = 0
        self.accumulate = 1
        self.batch_size = min(recipe.batch_size, len(feed.labels))
        self.steps_per_epoch = len(feed.labels) // self.batch_size
        self._frozen_steps = recipe.freeze * self.steps_per_epoch
        self._is_frozen = False
        self._unlabelled: UnlabelledRows | None = None
        if feed.unlabelled is not None and recipe.unlabelled_ratio > 0:
            available, ratio = len(feed.unlabelled.ids), recipe.unlabelled_ratio
            self._unlabelled = UnlabelledRows(available, ratio, batch_size=self.batch_size, seed=seed)
        self._parameters = list(self.model.parameters())  # listed once: 3 % of a small student's step
        self.average = Average(self.model, recipe.ema)
        self._optimizer = build_optimizer(self.model, recipe, extra=criterion.parameters())
        self._embedding = EmbeddingTap(self.model) if criterion.wants_embedding else None
        compiled = recipe.compile and team is None and not criterion.wants_embedding  # a hook takes the embedding
        self._call: Callable[[Tensor], Tensor] = torch.compile(self.model) if compiled else self.model
        if team is not None:
            self._call = team.wrap(self.model)
        shape = (1, -1, 1, 1)
        self.input = student_input or StudentInput(feed.images.shape[-1], feed.mean, feed.std)
        self._mean = torch.tensor(self.input.mean, device=self.device).view(shape)
        self._std = torch.tensor(self.input.std, device=self.device).view(shape)
        self._finite = torch.ones((), dtype=torch.bool, device=self.device)

    @property
    def epoch(self) -> float:
        """Epochs done, including the fraction of the current one."""
        return self.step / self.steps_per_epoch

    def run(self, epochs: int, *, tick: Callable[[], None] = lambda: None) -> None:
        """Train until ``epochs`` epochs are done in total.

        Args:
            epochs: total number of epochs; nothing happens if they are already done.
            tick: function called before every step; it may raise to stop the training there.

        Raises:
            DivergedError: a loss or gradient is not finite.
            ResourceError: a single image does not fit into the device's memory.
            InfeasibleError: a batch is too small for a BatchNorm layer of the network.
        """
        order, ordered = torch.empty(0, dtype=torch.int64), -1
        self._set_mode()
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            while self.step < epochs * self.steps_per_epoch:
                tick()
                if self._is_frozen != (self.step < self._frozen_steps):
                    self._set_mode()
                epoch, index = divmod(self.step, self.steps_per_epoch)
                if epoch != ordered:
                    order, ordered = self._order(epoch), epoch
                rows = order[index * self.batch_size : (index + 1) * self.batch_size]
                rows = rows.to(self.feed.images.device)
                rank = self._team.rank if self._team else 0
                _seed_torch(_mixed_seed(self.seed + rank, self.step), self.device)
                self._train_step(self.batch(rows, epoch))
                self.step += 1
                self.average.update(self.step)
        self._check(force=True)

    def _set_mode(self) -> None:
        """Set all layers to training mode, or all but the classifier to eval mode without gradients while frozen."""
        frozen = self.step < self._frozen_steps
        _to_train(self.model, frozen=frozen)
        if frozen == self._is_frozen:
            return
        self._is_frozen = frozen
        head = {id(parameter) for parameter in head_parameters(self.model)}
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen or id(parameter) in head)
        if self._team is not None:  # it averages the gradients of the parameters that had one when it was made
            self._call = self._team.wrap(self.model)

    def batch(self, rows: Tensor, epoch: int) -> Batch:
        """Return views, targets and teacher outputs of the images in ``rows (b,)``, and of the unlabelled ones."""
        labels = self.feed.labels[rows].to(self.device)
        batch = self._viewed(self.feed, rows, epoch, labels)
        if self._unlabelled is None or self.feed.unlabelled is None:
            return batch
        further, number = self._unlabelled.at(self.step)
        further = further.to(self.feed.unlabelled.images.device)
        return batch.joined(self._viewed(self.feed.unlabelled, further, number, labels[:0]))

    def _viewed(self, feed: Feed | UnlabelledFeed, rows: Tensor, epoch: int, labels: Tensor) -> Batch:
        raw, ids = feed.images[rows].to(self.device, non_blocking=True), feed.ids[rows].to(self.device)
        view = epoch % self.view_count if self.view_count else epoch
        pixels = views.apply(self.policy, raw, ids, view, self.view_seed)
        pixels, mixed = mixup.mix(self.policy, pixels, ids, epoch, self.view_seed)
        labels = labels.float() if labels.ndim == 2 else labels
        target = labels if mixed is None or not len(labels) else mixed.labels(labels, self.feed.classes)
        return self.criterion.add_teacher_outputs(Batch(pixels, target, raw, ids, view, mixed))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert pixels in [0, 1] to the model's input: resized to its side, normalized, in channels_last format."""
        seen = resize(pixels, self.input.image_size)
        return ((seen - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def evaluation_model(self) -> nn.Module:
        """Return a copy with the averaged weights and recomputed BatchNorm statistics, in eval mode.

        Frozen layers were run with the statistics that they came with, and keep them.
        """
        model: nn.Module = copy.deepcopy(self.model)
        self.average.copy_to(model)
        strided.release(model)
        if not self.step:
            return model.eval()
        with self._autocast():
            _to_train(model, frozen=self.step <= self._frozen_steps)
            norm_statistics.renew(model, self._unmixed())
        return model

    def _unmixed(self) -> Iterator[Tensor]:
        """Yield normalized, unmixed views of the first training images of the next epoch, for BatchNorm statistics."""
        total = norm_statistics.images_for(self.step * self.batch_size, len(self.feed.labels))
        pieces = -(-total // _FORWARD)
        epoch = self.step // self.steps_per_epoch
        view = epoch % self.view_count if self.view_count else epoch
        order = self._order(epoch)[: total // pieces * pieces].to(self.feed.images.device)
        for rows in order.chunk(pieces):
            raw, ids = self.feed.images[rows].to(self.device), self.feed.ids[rows].to(self.device)
            with torch.autocast(self.device.type, enabled=False):  # views are made in full precision, as in training
                pixels = self.normalize(views.apply(self.policy, raw, ids, view, self.view_seed))
            yield pixels

    @torch.no_grad()
    def predict(self, model: nn.Module, images: Tensor, *, batch_size: int = _FORWARD) -> Tensor:
        """Compute logits ``(n, classes)``, fp32 on the CPU, of ``uint8`` images without augmentation."""
        out = []
        for start in range(0, len(images), batch_size):
            pixels = images[start : start + batch_size].to(self.device).float().div_(255)
            with self._autocast():
                logits = model(self.normalize(pixels))
            out.append(logits.float().cpu())
        return torch.cat(out)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything that the rest of the training depends on: tensors, and JSON values."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.values.items()}
        moments, numbers = optimizer_state(self._optimizer)
        extra, criterion = self.criterion.state()
        tensors |= moments | {f"criterion.{name}": value for name, value in extra.items()}
        facts = {"step": self.step, "accumulate": self.accumulate, "optimizer": numbers}
        return tensors, {**facts, "criterion": criterion}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore a state returned by ``state()``.

        Raises:
            StoreError: the state belongs to another model.
        """
        try:
            self.model.load_state_dict(_below("model.", tensors))
            self.average.load(_below("average.", tensors))
            restore_optimizer(self._optimizer, tensors, facts["optimizer"])
            self.criterion.restore(_below("criterion.", tensors), facts["criterion"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise StoreError(f"the checkpoint does not fit this model: {error}") from error
        self.step, self.accumulate = int(facts["step"]), int(facts["accumulate"])

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, -1 - epoch))
        labels = self.feed.labels.cpu()
        if self.recipe.sampler == "balanced":
            share = 1.0 / torch.bincount(labels).double().clamp_min(1.0)
            return torch.multinomial(share[labels], len(labels), replacement=True, generator=generator)
        return torch.randperm(len(labels), generator=generator)

    def _train_step(self, batch: Batch) -> None:
        steps = self.epochs * self.steps_per_epoch
        rate = learning_rate(self.recipe, self.step, steps)
        body = body_share(self.recipe, self.step, steps, frozen=self._frozen_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0) * (body if group.get("body") else 1.0)
        with _enough_values(len(batch.ids)):
            loss = self._gradients(batch)
        norm = nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip or math.inf)
        self._finite &= torch.isfinite(loss + norm)
        self._check()
        self._optimizer.step()

    def _gradients(self, batch: Batch) -> Tensor:
        """Compute gradients of the mean loss, in as many parts as fit into memory; return the loss."""
        while True:
            self._optimizer.zero_grad(set_to_none=True)
            if self._team is not None:
                return self._together(batch, self._team)
            try:
                return self._accumulated(batch)
            except torch.OutOfMemoryError as error:
                if self.accumulate >= len(batch.target):
                    raise ResourceError(
                        f"{self.device} has too little memory for one image; choose a smaller student or image size."
                    ) from error
                self.accumulate *= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulated(self, batch: Batch) -> Tensor:
        total = torch.zeros((), device=self.device)
        for part in batch.parts(self.accumulate):
            with self._autocast():
                logits = self._call(self.normalize(part.views))
            embedding = None if self._embedding is None else self._embedding.take()
            loss = self.criterion.loss(logits, embedding, part)
            loss = loss if part is batch else loss * (len(part.ids) / len(batch.ids))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _together(self, batch: Batch, team: Team) -> Tensor:
        """Compute gradients of the whole batch's loss; this process runs only its own rows. Return the loss."""
        count = len(batch.ids)
        with self._autocast(), team.statistics():
            logits = self._call(self.normalize(batch.views[team.rows(count)]))
        embedding = None
        if self._embedding is not None:
            share = BatchShare(team, self._embedding.take())
            batch, embedding = replace(batch, share=share), team.whole(share.embedding, count)
        loss = self.criterion.loss(team.whole(logits, count), embedding, batch)
        team.backward(loss, self.criterion.parameters())
        return loss.detach()

    def _check(self, *, force: bool = False) -> None:
        """Raise a DivergedError if any loss so far was not finite; on a GPU check only every few steps."""
        waits = self.device.type != "cpu" and self.step % _CHECK_EVERY
        if (force or not waits) and not bool(self._finite):
            raise DivergedError(
                f"the loss is not finite in epoch {int(self.epoch) + 1} of {self.epochs} "
                f"(lr {self.recipe.lr:g}, optimizer {self.recipe.optimizer}); a smaller lr or clip may help."
            )

    def _autocast(self) -> torch.autocast:
        enabled = self.recipe.amp and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def _to_train(model: nn.Module, *, frozen: bool) -> None:
    """Set a network to training mode; if ``frozen``, its classifier only, and everything else to eval mode."""
    model.train(not frozen)
    for head in heads_of(model) if frozen else ():
        head.train()


def scores(
    logits: Tensor, labels: Tensor, teacher: Tensor | None = None, own: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Compute accuracy, cross-entropy, every measure and, with teacher logits, the share of equal decisions.

    For several labels per image, an image counts for the accuracy if all its labels are right (subset accuracy), the
    cross-entropy is that of presence and absence, summed over labels, and decisions are those about single labels.

    Args:
        logits: ``(n, classes)``, on the CPU.
        labels: ``(n,)``, or ``(n, classes)`` of 0 and 1, on the CPU.
        teacher: teacher logits ``(n, classes)``, on the CPU.
        own: measures of the study's own, name to ``module:function``.

    Returns:
        ``accuracy``, ``loss``, every registered measure, those of ``own`` and, with ``teacher``, ``agreement``.

    Raises:
        UsageError: a measure of ``own`` gave no finite number.
    """
    several = labels.ndim == 2
    if several:
        cross_entropy = F.binary_cross_entropy_with_logits(logits.double(), labels.double(), reduction="none").sum(1)
    else:
        cross_entropy = F.cross_entropy(logits.double(), labels, reduction="none")
    plain = logits.double().numpy()
    found = {"accuracy": decisions.accuracy(plain, labels.numpy()), "loss": cross_entropy.mean().item()}
    if teacher is not None:
        found["agreement"] = decisions.agreement(plain, teacher.double().numpy(), several=several)
    return {**measures.compute(plain, labels.numpy(), own), **found}


def _seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators used by a model on ``device``.

    ``torch.manual_seed`` would also record a delayed call with its stack for every other kind of device. That is a
    hundred times as slow, and its memory grows with every step if CUDA is never used.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


def _mixed_seed(seed: int, position: int) -> int:
    """Return a 63-bit seed for a position in a training."""
    value = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (value ^ (value >> 31)) >> 1


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name starts with ``prefix``, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextlib.contextmanager
def _enough_values(images: int) -> Iterator[None]:
    """Explain torch's refusal to normalize one value per channel, which has no variance.

    Raises:
        InfeasibleError: a BatchNorm layer got one value per channel.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InfeasibleError(
            f"a batch of {images} image{'s' * (images != 1)} leaves a BatchNorm layer of this student one value per "
            "channel, which has no variance; set batch_size to at least 2, or choose a family without BatchNorm"
        ) from error
