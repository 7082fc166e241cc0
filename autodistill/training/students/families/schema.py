"""Definition of a student family: a name, typed parameters, the image sizes it takes, and a builder.

A family is one decorated function in a module of this folder. It does not depend on distillation or on the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from autodistill.core.errors import UsageError, nearest
from autodistill.core.registry import Registry
from autodistill.training.runtime.source_code import GROUP, code_key
from autodistill.training.weights.loading import LoadedWeights

Value = int | float | str | bool

RESOLUTIONS = (8, 28, 32, 64, 96, 128, 160, 224)
"""Image sides, in pixels, at which families are tested; any side from a family's smallest to its largest is allowed."""


@dataclass(frozen=True)
class Shape:
    """Input and output shape of a student.

    Attributes:
        image_size: pixels per side of the input.
        channels: 1 for grey, 3 for colour.
        num_classes: logits per image.
        weights: weights that a network of timm starts from; ``None`` for random ones.
    """

    image_size: int
    channels: int
    num_classes: int
    weights: LoadedWeights | None = None


@dataclass(frozen=True)
class FamilyParameter:
    """One searchable number or choice of a family.

    Attributes:
        name: key in ``student:``.
        default: value of a student that does not set it.
        changes: the part of the network that it changes.
        low, high: inclusive bounds of a whole number; both ``None`` if ``choices`` are given.
        choices: allowed values, from the smallest network to the largest; empty for a whole number between bounds.
    """

    name: str
    default: Value
    changes: Literal["width", "depth", "stem", "patch", "block", "variant"]
    low: int | None = None
    high: int | None = None
    choices: tuple[Value, ...] = ()

    @property
    def kind(self) -> Literal["int", "choice"]:
        """``int`` (a whole number between bounds) or ``choice``."""
        return "choice" if self.choices else "int"

    def check(self, value: Any, where: str) -> Value:
        """Return ``value`` if it is allowed.

        Args:
            value: the value to check.
            where: prefix of the parameter's name in messages.

        Raises:
            UsageError: The value has the wrong type, is out of bounds or not a choice. The message lists what is
                allowed.
        """
        if self.choices:
            for choice in self.choices:
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return choice
            close = nearest(value, [str(choice) for choice in self.choices], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            allowed = ", ".join(str(choice) for choice in self.choices)
            raise UsageError(f"{where}.{self.name} is {value!r}; allowed: {allowed}.{hint}")
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(
                f"{where}.{self.name} is {value!r}; it must be a whole number from {self.low} to {self.high}."
            )
        if not self.low <= value <= self.high:
            raise UsageError(f"{where}.{self.name} is {value}; allowed: {self.low} to {self.high}.")
        return value

    def extremes(self) -> tuple[Value, Value]:
        """Return the values that make the smallest and the largest network (choices are listed in that order)."""
        if self.choices:
            return self.choices[0], self.choices[-1]
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


Builder = Callable[[Mapping[str, Any], Shape], nn.Module]
"""``fn(all parameters of the family, shape) -> network``, which maps ``(n, channels, side, side)`` to logits."""


@dataclass(frozen=True)
class Family:
    """A kind of student network.

    Attributes:
        name: registered name.
        kind: ``convolutional``, ``hybrid`` or ``transformer``.
        summary: one line with a description and the paper.
        parameters: searchable parameters.
        build: builds a network from all parameters and a shape.
        smallest, largest: bounds of the image side, in pixels.
        pretrained: whether timm has weights for all or some of its variants.
        code: key of the code that builds it, set automatically; empty for the families of this package.
    """

    name: str
    kind: Literal["convolutional", "hybrid", "transformer"]
    summary: str
    parameters: tuple[FamilyParameter, ...]
    build: Builder
    smallest: int = 8
    largest: int = 512
    pretrained: bool = False
    code: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.code and not _is_built_in(self.build):  # computed now, before the file can change on disk
            object.__setattr__(self, "code", code_key(self.build))

    def parameter(self, name: str) -> FamilyParameter | None:
        """Return the parameter with that name, or ``None``."""
        return next((one for one in self.parameters if one.name == name), None)

    def defaults(self) -> dict[str, Value]:
        """Return the default of every parameter."""
        return {one.name: one.default for one in self.parameters}

    def resolutions(self) -> tuple[int, ...]:
        """Return the image sides at which this family is tested."""
        return tuple(side for side in RESOLUTIONS if self.smallest <= side <= self.largest)


def _is_built_in(build: Builder) -> bool:
    return str(getattr(build, "__module__", "")).startswith(f"{__package__}.")


families: Registry[Family] = Registry("student family", GROUP)


def family(
    name: str,
    *parameters: FamilyParameter,
    kind: Literal["convolutional", "hybrid", "transformer"],
    smallest: int = 8,
    largest: int = 512,
    pretrained: bool = False,
) -> Callable[[Builder], Builder]:
    """Return a decorator that registers a builder as a family.

    The first line of the builder's docstring is the summary of the family, which is shown to users. See ``Family`` for
    the arguments.
    """

    def decorate(build: Builder) -> Builder:
        summary = (build.__doc__ or "").strip().splitlines()[0]
        entry = Family(name, kind, summary, parameters, build, smallest, largest, pretrained)
        families.register(name)(entry)
        return build

    return decorate


def width(default: int, low: int, high: int) -> FamilyParameter:
    """Return the parameter ``width``: channels of the first stage, or width of a transformer's embedding."""
    return FamilyParameter("width", default, "width", low, high)


def widths(default: int, *choices: int) -> FamilyParameter:
    """Return the parameter ``width`` with listed values, for families whose attention heads must divide it."""
    return FamilyParameter("width", default, "width", choices=choices)


def depth(default: int, low: int, high: int) -> FamilyParameter:
    """Return the parameter ``depth``: blocks per stage, or blocks of a transformer."""
    return FamilyParameter("depth", default, "depth", low, high)


def variant(default: str, *choices: str) -> FamilyParameter:
    """Return the parameter ``variant``: timm's names of the sizes of a family, from small to large."""
    return FamilyParameter("variant", default, "variant", choices=choices)


REDUCTION = FamilyParameter("reduction", "auto", "stem", choices=("auto", 32, 16, 8, 4, 2))
"""Ratio of image side to final map side; ``auto`` is the largest that leaves a final map of at least 3 x 3 pixels."""
