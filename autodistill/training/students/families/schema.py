"""What a student family is: a name, typed parameters, the image sizes it takes and a builder.

A family lives in one file of this folder: one decorated function. It knows nothing of distillation or of search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from autodistill.core.errors import UsageError, nearest
from autodistill.core.registry import Registry
from autodistill.training.runtime.source_code import GROUP, code_key

Value = int | float | str | bool

RESOLUTIONS = (8, 28, 32, 64, 96, 128, 160, 224)
"""Image sides that families are tested at; any side between a family's smallest and largest is allowed."""


@dataclass(frozen=True)
class Shape:
    """What a student must take and give.

    Attributes:
        image_size: pixels per side.
        channels: 1 for grey, 3 for colour.
        num_classes: logits per image.
        pretrained: start from timm's weights, where the family has any.
    """

    image_size: int
    channels: int
    num_classes: int
    pretrained: bool = False


@dataclass(frozen=True)
class FamilyParameter:
    """One searchable number or choice of a family.

    Attributes:
        name: its key in ``student:``.
        default: used where a student does not give it.
        changes: what it does to the network: ``width``, ``depth``, ``stem``, ``patch``, ``block``, ``variant``.
        low, high: inclusive bounds of a whole number; both ``None`` where ``choices`` are given.
        choices: the allowed values, where it is not a whole number between bounds.
    """

    name: str
    default: Value
    changes: Literal["width", "depth", "stem", "patch", "block", "variant"]
    low: int | None = None
    high: int | None = None
    choices: tuple[Value, ...] = ()

    @property
    def kind(self) -> Literal["int", "choice"]:
        """``int`` between bounds, or ``choice``."""
        return "choice" if self.choices else "int"

    def check(self, value: Any, where: str) -> Value:
        """``value`` itself.

        Raises:
            UsageError: it is of the wrong type, out of bounds or not a choice; the message says what is allowed.
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
        """The values that make the smallest and the largest network (choices are listed in that order)."""
        if self.choices:
            return self.choices[0], self.choices[-1]
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high


Builder = Callable[[Mapping[str, Any], Shape], nn.Module]
"""``fn(all parameters of the family, shape) -> network`` that maps ``(n, channels, side, side)`` to logits."""


@dataclass(frozen=True)
class Family:
    """A kind of student network.

    Attributes:
        kind: ``convolutional``, ``hybrid`` or ``transformer``.
        summary: one line: what it is, and its paper.
        smallest, largest: image sides it takes.
        pretrained: whether timm has weights for (some of) its variants.
        code: equal while the code that builds it stays as it is; filled in. Empty for the families of this package.
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
        if not self.code and not _is_built_in(self.build):  # now, while the file is what was loaded from it
            object.__setattr__(self, "code", code_key(self.build))

    def parameter(self, name: str) -> FamilyParameter | None:
        """The parameter of that name, or ``None``."""
        return next((one for one in self.parameters if one.name == name), None)

    def defaults(self) -> dict[str, Value]:
        """Every parameter at its default."""
        return {one.name: one.default for one in self.parameters}

    def resolutions(self) -> tuple[int, ...]:
        """The image sides this family is tested at."""
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
    """Decorator that registers a builder as a family; its summary is the first line of the docstring."""

    def decorate(build: Builder) -> Builder:
        summary = (build.__doc__ or "").strip().splitlines()[0]
        entry = Family(name, kind, summary, parameters, build, smallest, largest, pretrained)
        families.register(name)(entry)
        return build

    return decorate


def width(default: int, low: int, high: int) -> FamilyParameter:
    """Channels of the first stage (later stages grow from it), or the embedding of a transformer."""
    return FamilyParameter("width", default, "width", low, high)


def widths(default: int, *choices: int) -> FamilyParameter:
    """As ``width``, where only some numbers fit (attention heads divide it)."""
    return FamilyParameter("width", default, "width", choices=choices)


def depth(default: int, low: int, high: int) -> FamilyParameter:
    """Blocks per stage, or blocks of a transformer."""
    return FamilyParameter("depth", default, "depth", low, high)


def variant(default: str, *choices: str) -> FamilyParameter:
    """Names that timm gives to the sizes of a family whose width and depth cannot be set, from small to large."""
    return FamilyParameter("variant", default, "variant", choices=choices)


REDUCTION = FamilyParameter("reduction", "auto", "stem", choices=("auto", 32, 16, 8, 4, 2))
"""Image side over final map side. ``auto``: the most that leaves a final map of 3 pixels or more."""
