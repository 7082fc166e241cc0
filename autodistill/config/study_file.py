"""Configuration of a study, checked as a whole before anything is written.

A configuration comes from a YAML file, flags, keywords, or several of them (later ones override earlier ones). All its
problems are reported together, with file and line. Names of losses, families and the like are checked by
``engines/setup/check_names.py``, since looking them up loads torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autodistill.config.problems import Problem, Sources, explain, to_lines
from autodistill.config.values import (
    check_budget,
    check_measures,
    check_name,
    check_objectives,
    check_rungs,
    check_space,
    check_storage,
    check_survey,
    check_teacher,
    check_variants,
    check_within,
    is_points,
    levels_of,
    listed,
    section,
    split_commas,
)
from autodistill.core import strict_yaml
from autodistill.core.budget import Budget
from autodistill.core.database_url import StorageUrl
from autodistill.core.errors import AutodistillError, ConfigError, UsageError
from autodistill.core.records import LATENCY, MULTICLASS, MULTILABEL, DataSpec, LatencyTarget, TaskKind, TeacherSpec
from autodistill.core.teacher_choice import PARAMETER, from_list

MAY_CHANGE = ("name", "budget", "workers", "engine", "devices_per_trial", "slots_per_gpu", "warm_start", "within")
"""Keys that may change when a study is resumed, since they do not affect the results of a trial."""

OBJECTIVES = ("accuracy", "params", LATENCY)

LABEL_OBJECTIVES = ("average_precision", "params", LATENCY)
"""Default objectives with several labels per image."""

_SOURCES = {"data": "digits", "teacher": "auto"}
_EPOCHS = {"digits": 30, "fashion_mnist": 9, "synthetic": 20, "synthetic_scenes": 20}
_OTHER_EPOCHS = 30
_NEEDS_A_TEACHER_WITH_EMBEDDING = ("embeddings",)  # spaces that are never chosen by the size of the images
_PIXELS = {
    "digits": 8,
    "fashion_mnist": 28,
    "cifar10": 32,
    "cifar100": 32,
    "synthetic": 32,
    "manifest": 64,
    "hf": 64,
    "webdataset": 64,
    "synthetic_scenes": 32,
    "image_folder": 64,
}
_OTHER_PIXELS = (64, 224)  # of sources that tell their size only when they are read
_LOCAL = "local-dir:"
_MARKS = ("teacher.json", "study.yaml", "config.json")
"""Files of a folder that is a teacher: of ``teach``, a study, or ``export``."""
_FILE_ENDINGS = (".safetensors", ".onnx", ".npz", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar", ".yaml", ".yml")


class StudyConfig(BaseModel):
    """All keys of a study file, checked; keys that are left out have the defaults of this class.

    Attributes:
        name: Name of the study, and of its default folder in ``runs/``.
        data: The images; ``None`` for studies with their own evaluation.
        task: ``multiclass``: every image has one class; ``multilabel``: any number of labels, each of which is present
            or absent by itself.
        teacher: Teacher to distil from; with a list the search chooses one per trial.
        space: Search space: built-in name, YAML file, or mapping.
        set: Restrictions of the space: parameter name to a choice, a list of choices or ``{low, high}``.
        left_out: Choices of a built-in space that cannot serve the task or the number of classes: parameter name to
            choices. Filled in when the study is created.
        objectives: Objectives of the front.
        measures: Measures of your own: name to ``module:function`` of ``(logits, labels)``. With ``NAME:maximize`` or
            ``NAME:minimize`` in ``objectives`` they are objectives of the front.
        constraints: Constraints, e.g. ``params <= 1e6``, ``accuracy >= teacher - 0.05``.
        within: ``auto``: students far below the teacher count as no gain, unless a constraint bounds the accuracy;
            ``off``: they count. A number of points, e.g. 5, stands for the constraint ``accuracy >= teacher - 0.05``.
        sampler: Algorithm that proposes candidates.
        rungs: ``auto``, ``off``, ``{eta, lowest}`` (``lowest``: share of ``epochs``) or ``{eta, levels}``.
        epochs: Epochs of the top rung; the last of ``levels`` if given. ``None``: chosen by budget and data when the
            study is created (``engines/timing/top_rung.py``), or determined by the user's evaluation.
        training: Settings shared by all trials (``batch_size``, ``ema`` …).
        latency: How ``latency_ms`` is measured.
        variants: Forms in which a finished student is measured: ``fp32``, and ``int8``.
        survey: ``auto``, ``off``, or the number of students to measure before training.
        budget: Total budget of the study over all resumes; ``None``: no limit.
        engine: Name of the engine that runs the workers.
        workers: Number of workers on this machine; ``None``: one per GPU, or one.
        devices_per_trial: Number of GPUs (or groups of CPU threads) that train one candidate together.
        slots_per_gpu: Number of workers that share one GPU; ``auto`` measures a few students first.
        storage: Database server that stores the trials, without its password; ``None``: SQLite in the study's folder.
        seed: Random seed of the search.
        warm_start: Folders of other studies, whose fronts are tried first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(check_name)]
    data: Annotated[DataSpec, section(DataSpec)] | None
    task: TaskKind = MULTICLASS
    teacher: Annotated[TeacherSpec, section(TeacherSpec), AfterValidator(check_teacher), BeforeValidator(from_list)] = (
        TeacherSpec()
    )
    space: Annotated[Any, AfterValidator(check_space)]
    set: dict[str, Any] = {}
    left_out: dict[str, list[Any]] = {}
    objectives: Annotated[tuple[str, ...], BeforeValidator(split_commas), AfterValidator(check_objectives)] = OBJECTIVES
    measures: Annotated[dict[str, str], AfterValidator(check_measures)] = {}
    constraints: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    within: Annotated[Any, AfterValidator(check_within)] = "auto"
    sampler: Literal["front", "gp", "tpe", "nsga2", "nsga3", "random", "qmc"] = "front"
    rungs: Annotated[Any, AfterValidator(check_rungs)] = "auto"
    epochs: Annotated[int, Field(ge=1)] | None = None
    training: dict[str, Any] = {}
    latency: Annotated[LatencyTarget, section(LatencyTarget)] = LatencyTarget()
    variants: Annotated[
        tuple[Literal["fp32", "int8"], ...], BeforeValidator(split_commas), AfterValidator(check_variants)
    ] = ("fp32",)
    survey: Annotated[Any, AfterValidator(check_survey)] = "auto"
    budget: Annotated[str, AfterValidator(check_budget)] | None = None
    engine: Annotated[str, Field(min_length=1)] = "local"
    workers: Annotated[int, Field(ge=1)] | None = None
    devices_per_trial: Annotated[int, Field(ge=1, le=64)] = 1
    slots_per_gpu: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = 1
    storage: Annotated[StorageUrl, BeforeValidator(check_storage)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    warm_start: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()

    @property
    def limits(self) -> Budget:
        """The budget, parsed; without limits where the study names none."""
        return Budget.parse(self.budget)

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Any] | None,
        overrides: Mapping[str, Any] | None = None,
        *,
        flags: Mapping[str, str] | None = None,
    ) -> StudyConfig:
        """Read a configuration, and check all of it.

        Args:
            source: A study file, a mapping of its keys, or ``None`` for the defaults.
            overrides: Keys that override ``source``. Dotted keys set one key of a section (``data.root``), mappings are
                merged into the section, and ``None`` leaves the key unchanged.
            flags: Dotted key to the flag that set it, for messages.

        Raises:
            ConfigError: There are problems; all are listed.
            UsageError: The file cannot be read.
        """
        keys, sources = _read(source)
        sources = sources.with_flags(flags or {})
        if not isinstance(keys, dict):
            raise ConfigError([f"{sources.name}: expected keys such as 'data: digits', got {keys!r}"], sources.name)
        keys = _absolute_paths(keys, sources.folder)
        for key, value in (overrides or {}).items():
            if value is not None:
                _merge(keys, key, value)
        keys = _absolute_paths(_with_defaults(keys), Path.cwd())
        problems: list[Problem] = []
        try:
            config = cls.model_validate(keys)
        except ValidationError as error:
            problems = explain(error, _allowed_keys, sources)
        problems += _constraint_problems(keys, sources)
        problems += _set_problems(keys, sources)
        if problems:
            raise ConfigError(to_lines(problems), sources.name)
        return config

    def resolved(self) -> dict[str, Any]:
        """Return plain values of all keys for ``study.yaml``; :meth:`load` reads them back."""
        out: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, StorageUrl):
                value = value.public
            elif is_dataclass(value) and not isinstance(value, type):
                value = {k: v for k, v in asdict(value).items() if v is not None and v != {}}
            elif isinstance(value, tuple):
                value = list(value)
            if value is not None:
                out[name] = value
        return out


def differences(old: StudyConfig, new: StudyConfig) -> list[str]:
    """Return one line, with both values, per key that differs and that must not change when a study is resumed."""
    before, after = (_flat(_meaning(config)) for config in (old, new))
    absent = object()
    order = list(StudyConfig.model_fields)
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key, absent) != after.get(key, absent)]
    changed.sort(key=lambda key: order.index(key.split(".", 1)[0]))
    return [f"{key}: the study has {_value(before, key)}, this run has {_value(after, key)}" for key in changed]


def _meaning(config: StudyConfig) -> dict[str, Any]:
    """Return the keys that affect the results of a trial.

    Older studies may have ``epochs`` or ``lowest`` beside ``levels``, which have no effect and are ignored.
    """
    out = {key: value for key, value in config.resolved().items() if key not in MAY_CHANGE}
    if levels := levels_of(config.rungs):
        out["epochs"], out["rungs"] = levels[-1], {k: v for k, v in config.rungs.items() if k != "lowest"}
    return out


def default_space(data: Mapping[str, Any]) -> str:
    """Return the built-in space for the image size of a data section, or the nearest; of several the narrowest."""
    from autodistill.search.space import builtin as spaces

    pixels = known_pixels(data)
    least, most = _OTHER_PIXELS if pixels is None else (pixels, pixels)

    def distance(name: str) -> tuple[float, float]:
        low, high = spaces.load_space(name).get("image_sizes", (1, 1))
        return max(math.log(low / least), math.log(most / high), 0.0), high / low

    names = [name for name in spaces.space_names() if name not in _NEEDS_A_TEACHER_WITH_EMBEDDING]
    return min(names, key=distance, default="tiny")


def known_pixels(data: Mapping[str, Any]) -> int | None:
    """Return the side of the images of a data section, as far as it is known before they are read."""
    size, source, options = data.get("image_size"), str(data.get("source")), data.get("options")
    if size is None and source == "synthetic" and isinstance(options, Mapping):
        size = options.get("size")
    size = _PIXELS.get(source) if size is None else size
    return size if isinstance(size, int) and size > 0 else None


CHOSEN = ("views", "batch_size")
"""Training settings that are chosen with the epochs, if the user sets none (``engines/timing/top_rung.py``)."""


def default_epochs(config: StudyConfig) -> int:
    """Return the epochs of the top rung if the user sets none and the budget is large enough."""
    return _OTHER_EPOCHS if config.data is None else _EPOCHS.get(config.data.source, _OTHER_EPOCHS)


def _read(source: str | Path | Mapping[str, Any] | None) -> tuple[Any, Sources]:
    if source is None or isinstance(source, Mapping):
        return dict(source or {}), Sources("the given settings")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "create one with 'autodistill init', or use flags only"
        raise UsageError(f"there is no study file {str(path)!r}; {hint}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the study file {str(path)!r}: {error}.") from error
    data, lines = strict_yaml.load(text, str(path))
    return data, Sources(str(path), lines, path.resolve().parent, is_file=True)


def _merge(keys: dict[str, Any], key: str, value: Any) -> None:
    """Apply one override to ``keys``: a dotted key sets one key of a section, a mapping is merged into it."""
    name, _, rest = key.partition(".")
    old = keys.get(name)
    if is_dataclass(old) and not isinstance(old, type):
        old = asdict(old)
    if (rest or isinstance(value, Mapping)) and name in _SOURCES and (old is None or isinstance(old, str)):
        old = {"source": old or _SOURCES[name]}
    inside = dict(old) if isinstance(old, Mapping) else {}
    if rest:
        _merge(inside, rest, value)
        keys[name] = inside
    elif isinstance(value, Mapping) and name != "space":
        keys[name] = {**inside, **value}
    else:
        keys[name] = value


def _with_defaults(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Add defaults that depend on other keys: data, name, space, epochs, latency and constraints."""
    out = {key: value for key, value in keys.items() if value is not None}
    if "data" not in out:
        out["data"] = None if isinstance(out.get("space"), Mapping) else "digits"
    data = out["data"]
    if is_dataclass(data) and not isinstance(data, type):
        data = asdict(data)
    section = {"source": data} if isinstance(data, str) else data if isinstance(data, Mapping) else {}
    name = str(section.get("source") or "study")
    out.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "study")
    out.setdefault("space", default_space(section))
    if out.get("task") == MULTILABEL:
        out.setdefault("objectives", LABEL_OBJECTIVES)
    levels = levels_of(out.get("rungs"))
    if levels:
        out.setdefault("epochs", levels[-1])
    if "int8" in str(out.get("variants", "")) and isinstance(latency := out.get("latency", {}), Mapping):
        out["latency"] = {"runtime": "onnxruntime", **latency}  # the only runtime for both forms
    bounds = listed(out.get("constraints", ()))
    if is_points(out.get("within")) and isinstance(bounds, tuple):
        bound = f"accuracy >= teacher - {out.pop('within') / 100:g}"
        out["constraints"] = bounds if bound in bounds else (*bounds, bound)
    return out


def _absolute_paths(keys: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make relative paths absolute, relative to the study file, so that the study can be resumed from any folder."""
    out = dict(keys)
    for key in ("teacher", "space"):
        if isinstance(out.get(key), str):
            out[key] = _absolute(out[key], folder, folders=key == "teacher")
    if out.get("warm_start"):
        folders = listed(out["warm_start"])
        out["warm_start"] = tuple(_absolute(f, folder, True) for f in folders) if type(folders) is tuple else folders
    space: Any = out.get("space")
    if isinstance(space, Mapping) and "weights" in space:
        from autodistill.search.space.weights_section import absolute_weights

        out["space"] = space = {**space, "weights": absolute_weights(space["weights"], folder)}
    if isinstance(space, Mapping) and space.get("include"):
        given = space["include"] if isinstance(space["include"], list) else [space["include"]]
        out["space"] = {**space, "include": [_absolute(name, folder, folders=False) for name in given]}
    out["teacher"] = _absolute_members(from_list(out.get("teacher")), folder)
    if out["teacher"] is None:
        del out["teacher"]
    for key, names in (("data", ("root",)), ("teacher", ("source", "weights")), ("latency", ("table",))):
        part = out.get(key)
        if isinstance(part, Mapping):
            out[key] = {**part, **{k: _absolute(part[k], folder, k in ("root", "table")) for k in names if k in part}}
    if isinstance(data := out.get("data"), Mapping) and data.get("unlabelled"):
        out["data"] = {**data, "unlabelled": _absolute_unlabelled(data["unlabelled"], folder)}
    return out


def _absolute_unlabelled(value: Any, folder: Path) -> Any:
    """Make the folder of unlabelled images absolute; the name of a source stays unless a folder is called like it."""
    if isinstance(value, Mapping):
        return {**value, "root": _absolute(value["root"], folder, True)} if value.get("root") else value
    if isinstance(value, str) and (folder / Path(value).expanduser()).is_dir():
        return _absolute(value, folder, True)
    return _absolute(value, folder)


def _absolute_members(teacher: Any, folder: Path) -> Any:
    """Make the paths of the teachers in a choice or an ensemble absolute, and of weights that one is trained from."""
    options = teacher.get("options") if isinstance(teacher, Mapping) else None
    if not isinstance(options, Mapping):
        return teacher
    if "weights" in options:
        options = {**options, "weights": _absolute(options["weights"], folder)}
        teacher = {**teacher, "options": options}
    if not isinstance(members := options.get("members"), list):
        return teacher
    made = [
        {**one, **{key: _absolute(one[key], folder) for key in ("source", "weights") if key in one}}
        if isinstance(one, Mapping)
        else _absolute(one, folder)
        for one in members
    ]
    return {**teacher, "options": {**options, "members": made}}


def _absolute(value: Any, folder: Path, always: bool = False, *, folders: bool = True) -> Any:
    """Make ``value`` absolute if it is a path: by its ending, or because a file or a teacher's folder exists there."""
    if not isinstance(value, str) or not value:
        return value
    if value.startswith(_LOCAL):
        return _LOCAL + _absolute(value.removeprefix(_LOCAL), folder, always=True)
    path = folder / Path(value).expanduser()
    named = value.lower().endswith(_FILE_ENDINGS) or ("/" in value and ":" not in value)
    study, _, number = value.rpartition("#")
    trial = number.isdigit() and bool(study) and (folder / Path(study).expanduser() / "study.yaml").is_file()
    there = trial or path.is_file() or (folders and any((path / file).is_file() for file in _MARKS))
    return str(path.resolve()) if always or named or there else value


def _constraint_problems(keys: Mapping[str, Any], sources: Sources) -> list[Problem]:
    """Return the problems of the constraints; a study of images may also bound registered metrics."""
    from autodistill.search.objectives.objectives import mistaken, objectives, parse_constraint

    given = listed(keys.get("constraints", ()))
    axes = split_commas(keys.get("objectives", OBJECTIVES))
    if not isinstance(given, tuple) or not isinstance(axes, tuple):
        return []
    own = [name for name, *declared in (str(axis).split(":") for axis in axes) if declared or name in objectives]
    names = own if keys.get("data") is None else [*own, *objectives.names()]
    problems = []
    latency = keys.get("latency", {})
    runtime = latency.get("runtime") if isinstance(latency, Mapping) else None
    if "int8" in str(keys.get("variants", "")) and runtime not in (None, "onnxruntime"):
        text = f"got {runtime!r}; variants has int8, which needs onnxruntime, so fp32 must be measured with it too"
        problems.append(sources.problem(("latency", "runtime"), text))
    for index, text in enumerate(given):
        try:
            constraint = parse_constraint(text, tuple(dict.fromkeys(names)))
            problem = "" if keys.get("data") is None else mistaken(constraint)
        except UsageError as error:
            problem = str(error)
        else:
            if constraint.below is not None and keys.get("within") == "off":
                problem = f"'{text}' bounds the accuracy by the teacher's, but within is off; use one of them"
        if problem:
            problems.append(sources.problem(("constraints", index), problem))
    return problems


def _set_problems(keys: Mapping[str, Any], sources: Sources) -> list[Problem]:
    """Return the problems of the restrictions of the space, with their lines; empty if the space itself is wrong."""
    given = keys.get("set")
    if not isinstance(given, Mapping) or not given:
        return []
    from autodistill.search.space.builtin import compose, load_space
    from autodistill.search.space.fitting.to_study import fitted

    named, data = keys.get("space"), keys.get("data")
    size = known_pixels(data) if isinstance(data, Mapping) else None
    try:
        mapping = compose(named) if isinstance(named, Mapping) else load_space(str(named))
        space = fitted(mapping, choices=given, image_size=size)
    except AutodistillError:
        return []  # reported where the space is read
    problems = []
    for name, wanted in given.items():
        if name == f"distillation.{PARAMETER}":  # added to the space by a list of teachers
            continue
        try:
            space.restrict({name: wanted})
        except ConfigError as error:
            problems += [sources.problem(("set", name), text.removeprefix(f"{name}: ")) for text in error.problems]
    return problems


def _allowed_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the keys that are allowed in the section at ``path``."""
    kinds: dict[str, type[Any]] = {"data": DataSpec, "teacher": TeacherSpec, "latency": LatencyTarget}
    if not path:
        return tuple(StudyConfig.model_fields)
    return tuple(one.name for one in fields(kinds[str(path[0])])) if str(path[0]) in kinds else ()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            out.update(_flat(item, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = list(item) if isinstance(item, (list, tuple)) else item
    return out


def _value(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "none"
