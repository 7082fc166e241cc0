"""Parsing and checks of single keys of a study file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from dataclasses import Field as Field_
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, create_model
from pydantic_core import core_schema

from autodistill.core.database_url import StorageUrl
from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import TeacherSpec
from autodistill.core.teacher_choice import members

_LIMITS: dict[str, Any] = {
    "image_size": Field(ge=4, le=2048),
    "train_size": Field(ge=2),
    "val_fraction": Field(gt=0, lt=1),
    "seed": Field(ge=0, lt=2**31),
    "timeout_s": Field(gt=0),
    "batch": Field(ge=1),
    "threads": Field(ge=1),
    "source": Field(min_length=1),
}
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)


def section(kind: type[Any]) -> GetPydanticSchema:
    """Return the schema of a section: it accepts a mapping, a text (for the first field) or an instance of ``kind``.

    Args:
        kind: A frozen dataclass of ``core/records.py``.
    """
    hints = get_type_hints(kind)
    keys: dict[str, Any] = {
        one.name: (Annotated[hints[one.name], _LIMITS.get(one.name, Field())], _default(one)) for one in fields(kind)
    }
    form = create_model(kind.__name__, __config__=_STRICT, **keys)
    first = fields(kind)[0].name

    def before(value: Any) -> Any:
        if isinstance(value, kind):
            return asdict(value)
        return {first: value} if isinstance(value, str) else value

    def after(value: BaseModel) -> Any:
        return kind(**{name: getattr(value, name) for name in type(value).model_fields})

    def schema(_source: Any, handler: Any) -> core_schema.CoreSchema:
        inner = core_schema.no_info_after_validator_function(after, handler(form))
        return core_schema.no_info_before_validator_function(before, inner)

    return GetPydanticSchema(schema)


def _default(one: Field_[Any]) -> Any:
    if one.default_factory is not MISSING:
        return Field(default_factory=one.default_factory)
    return ... if one.default is MISSING else one.default


def check_name(value: str) -> str:
    """Check that a name can also be the name of a folder."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(f"got {value!r}; use letters, digits, '.', '_' and '-', the first a letter or digit")
    return value


def split_commas(value: Any) -> Any:
    """Convert a text with commas, or a list, to a tuple; return anything else unchanged."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return tuple(value) if isinstance(value, list) else value


def listed(value: Any) -> Any:
    """Convert a single text, or a list, to a tuple; return anything else unchanged."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def check_measures(value: dict[str, str]) -> dict[str, str]:
    """Refuse measures whose name or ``module:function`` has another form."""
    for name, where in value.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"the name {name!r} is no identifier; use letters, digits and '_', e.g. f2")
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", where):
            raise ValueError(f"{name} is {where!r}; it must be module:function, e.g. my_measures:f2")
    return value


def check_rungs(value: Any) -> Any:
    """Check ``rungs``: ``auto``, ``off``, or a mapping of ``eta`` with ``lowest`` or ``levels``."""
    if value in ("auto", "off"):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"got {value!r}; allowed: auto, off, or a mapping such as {{eta: 3, lowest: 0.05}}")
    unknown = sorted(set(value) - {"eta", "lowest", "levels"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}; allowed: eta, lowest, levels")
    eta, lowest, levels = value.get("eta", 3), value.get("lowest", 0.05), value.get("levels")
    if not _is_int(eta) or eta < 2:
        raise ValueError(f"eta is {eta!r}; it must be a whole number of at least 2 (one trial in eta continues)")
    if isinstance(lowest, bool) or not isinstance(lowest, (int, float)) or not 0 < lowest <= 1:
        raise ValueError(f"lowest is {lowest!r}; it must be a share of the top rung, above 0 and up to 1")
    if levels is not None and (not isinstance(levels, list) or not levels or not all(map(_is_int, levels))):
        raise ValueError(f"levels is {levels!r}; it must be a list of epochs such as [2, 6, 20]")
    return dict(value)


def levels_of(rungs: Any) -> list[int] | None:
    """Return the epochs of the rungs if the study lists them; the last are those of a full training."""
    levels = rungs.get("levels") if isinstance(rungs, Mapping) else None
    return levels if isinstance(levels, list) and levels and all(_is_int(one) and one > 0 for one in levels) else None


def overruled(rungs: Any, epochs: int | None) -> list[str]:
    """Return the problems of settings that contradict ``levels``: another length, or another lowest rung."""
    levels = levels_of(rungs)
    if levels is None:
        return []
    problems = []
    if epochs != levels[-1]:
        problems.append(
            f"epochs: got {epochs}, but rungs.levels ends at {levels[-1]}, the epochs of a full training; "
            "leave epochs out, or make them equal"
        )
    if "lowest" in rungs:
        problems.append(f"rungs: got lowest={rungs['lowest']}, but levels={levels} lists every rung; remove lowest")
    return problems


def check_survey(value: Any) -> Any:
    """Check ``survey``: ``auto``, ``off`` or a number of students."""
    if value in ("auto", "off") or (_is_int(value) and value >= 2):
        return value
    raise ValueError(f"got {value!r}; allowed: auto, off, or the number of students to survey (at least 2)")


def is_points(value: Any) -> bool:
    """Return whether ``value`` is a number of percentage points that a student may be below its teacher."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (value == 0 or 0.1 <= value < 100)


def check_within(value: Any) -> Any:
    """Check ``within``: ``auto`` or ``off``; a number of points has already been converted to a constraint."""
    if value in ("auto", "off"):
        return value
    small = isinstance(value, float) and 0 < value < 0.1
    meant = f"; write {100 * value:g} for {100 * value:g} points" if small else ""
    raise ValueError(
        f"got {value!r}; allowed: auto, off, or the percentage points that a student may be below its teacher, "
        f"such as 5{meant}"
    )


def check_variants(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check ``variants``: each form once, including ``fp32``, the form that is trained."""
    if "fp32" not in value or len(set(value)) != len(value):
        raise ValueError(f"got {', '.join(value) or 'nothing'}; list each form once, including fp32: [fp32, int8]")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_teacher(value: TeacherSpec) -> TeacherSpec:
    """Check a teacher, or all teachers of a choice."""
    try:
        members(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


def check_space(value: Any) -> Any:
    """Check that ``space`` is a name, a file or a mapping; ``search/space/space.py`` checks its content."""
    if isinstance(value, (str, Mapping)) and value:
        return value
    raise ValueError(f"got {value!r}; give a built-in name, a YAML file, or a mapping with a student section")


def check_budget(value: str | None) -> str | None:
    """Check that ``core/budget.py`` can parse the budget."""
    from autodistill.core.budget import Budget

    try:
        Budget.parse(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return value


def check_objectives(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that the objectives are registered or declared (``search/objectives/objectives.py``)."""
    from autodistill.search.objectives.objectives import resolve

    try:
        resolve(value)
    except ConfigError as error:
        raise ValueError("\n".join(error.problems)) from None
    return value


def check_storage(value: Any) -> Any:
    """Parse the URL of a database; return anything but text unchanged, so that pydantic rejects it."""
    return StorageUrl.parse(value) if isinstance(value, str) else value
