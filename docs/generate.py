"""Reference pages made from the code, so that they cannot go stale.

A page holds a line ``<!-- generated: NAME -->``; :func:`fill` replaces it by the Markdown of the function of that name
in :data:`GENERATORS`. The mkdocs hook (``docs/hooks.py``) calls it for every page; ``tests/docs/`` checks the results.
"""

from __future__ import annotations

import dataclasses
import inspect
import posixpath
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)

FREE_FORM = {
    "space": "name of a built-in space, path of a YAML file, or a mapping",
    "within": "`auto`, `off`, or a number of percentage points",
    "rungs": "`auto`, `off`, `{eta, lowest}` or `{eta, levels}`",
    "survey": "`auto`, `off`, or an integer",
}
"""What those keys of a study file take that the model annotates as ``Any`` and a validator checks."""

COMPUTED = {
    "name": "the data source",
    "data": "`digits`; none where `space` is a mapping",
    "space": "the built-in space for the image size",
    "epochs": "chosen by budget and data",
}
"""Defaults of a study file that depend on other keys (``autodistill.config.study_file``)."""


def fill(markdown: str) -> str:
    """Replace every marker of a page by its generated Markdown.

    Raises:
        KeyError: a marker names no generator.
    """
    return MARKER.sub(lambda match: GENERATORS[match.group(1)](), markdown)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table; ``|`` inside a cell is escaped except in code, which Python-Markdown leaves alone."""
    lines = [columns, ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text.replace("\n", " "))
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def attributes_of(kind: type[Any]) -> dict[str, str]:
    """Read the ``Attributes`` section of a Google-style docstring: name to text on one line, as Markdown."""
    text = inspect.cleandoc(kind.__doc__ or "")
    if "Attributes:\n" not in text:
        return {}
    section = re.split(r"\n(?=\S)", text.split("Attributes:\n", 1)[1])[0]
    found = re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: as_markdown(words) for names, words in found for name in names.split(", ")}


def as_markdown(text: str) -> str:
    """Turn reStructuredText of a docstring into one line of Markdown, without a full stop at its end."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"\s+", " ", text).strip().rstrip(".")


def first_line(value: object) -> str:
    """Return the first sentence of a docstring."""
    return as_markdown((inspect.getdoc(value) or "").split("\n\n", 1)[0])


# --- the study file -------------------------------------------------------------------------------------------------


def study_file() -> str:
    """Generate one table with the keys of a study file, and one for each of its sections."""
    from autodistill.config.study_file import MAY_CHANGE, StudyConfig
    from autodistill.core.records import DataSpec, LatencyTarget, TeacherSpec

    hints = typing.get_type_hints(StudyConfig)
    meanings = attributes_of(StudyConfig)
    rows = []
    for name, field in StudyConfig.model_fields.items():
        kind = FREE_FORM.get(name) or type_words(hints[name])
        default = COMPUTED.get(name) or (f"`{yaml_words(field.default)}`")
        if name in ("teacher", "latency"):
            default = "see below"
        rows.append((f"`{name}`", kind, default, "yes" if name in MAY_CHANGE else "no", meanings[name]))
    parts = [table(("key", "type", "default", "may change", "meaning"), rows)]
    for name, section in (("data", DataSpec), ("teacher", TeacherSpec), ("latency", LatencyTarget)):
        parts += [f"### `{name}`", _section_table(section)]
    return "\n\n".join(parts)


def _section_table(section: type[Any]) -> str:
    """Generate the table of the keys in a section of a study file."""
    from autodistill.config.values import _LIMITS

    hints, meanings = typing.get_type_hints(section), attributes_of(section)
    rows = []
    for field in dataclasses.fields(section):
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        value = field.default if field.default is not dataclasses.MISSING else {}
        default = "required" if missing else f"`{yaml_words(value)}`"
        bounds = _bounds(getattr(_LIMITS.get(field.name), "metadata", ()))
        meaning = meanings.get(field.name) or FIELD_MEANINGS[section.__name__, field.name]
        rows.append((f"`{field.name}`", f"{type_words(hints[field.name])}{bounds}", default, meaning))
    return table(("key", "type", "default", "meaning"), rows)


FIELD_MEANINGS = {
    ("LatencyTarget", "runtime"): "`torch`, `torch-compile` or `onnxruntime`",
    ("LatencyTarget", "device"): "`cpu`, `cuda` or `cuda:N`",
    ("LatencyTarget", "batch"): "images per forward pass",
    ("LatencyTarget", "precision"): "number format: `fp32`, `fp16` or `bf16`; `onnxruntime` measures `fp32`",
    ("LatencyTarget", "threads"): "CPU threads of one forward pass",
}
"""Meanings of fields whose class describes them together in its first line."""


def _bounds(metadata: Iterable[object]) -> str:
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    said = [
        text.format(getattr(one, key))
        for one in metadata
        for key, text in words.items()
        if getattr(one, key, None) is not None
    ]
    return f", {' '.join(said)}" if said else ""


def type_words(hint: Any) -> str:
    """Describe a type hint in the words of a YAML file, such as ``integer, or nothing``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        some = [type_words(one) for one in arguments if one is not type(None)]
        return " or ".join([*some, *(["nothing"] if type(None) in arguments else [])])
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin in (tuple, list):
        return f"list of {type_words(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "mapping"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
    if dataclasses.is_dataclass(hint):
        return "text" if hint.__name__ == "StorageUrl" else "section, or its first key alone"
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def yaml_words(value: Any) -> str:
    """Write a default as a YAML file would."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(yaml_words, value))}]"
    return "{}" if value == {} else str(value)


# --- the command line -----------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Return every command of ``autodistill`` by its name, such as ``search`` and ``cache ls``."""
    from typer.main import get_command

    from autodistill.cli import app

    found: dict[str, Any] = {}

    def walk(group: Any, prefix: str) -> None:
        for name, one in group.commands.items():
            if hasattr(one, "commands"):
                walk(one, f"{prefix}{name} ")
            elif not one.hidden:
                found[f"{prefix}{name}"] = one

    walk(get_command(app), "")
    return found


def command_line() -> str:
    """Generate a section for each command: summary, examples, arguments and options."""
    parts = []
    for name, command in commands().items():
        summary, _, examples = (command.help or "").partition("\b")
        parts += [f"## {name}", as_markdown(summary) + "."]
        if examples.strip():
            lines = [line[2:] if line.startswith("  ") else line for line in examples.strip("\n").splitlines()]
            parts.append("```text\n" + "\n".join(lines) + "\n```")
        shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        rows = [(_names_of(one), _default_of(one), (getattr(one, "help", "") or "").rstrip(".")) for one in shown]
        if rows:
            parts.append(table(("argument or option", "default", "meaning"), rows))
    return "\n\n".join(parts)


def _names_of(parameter: Any) -> str:
    """Return the spelling of a parameter with the placeholder of its value."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    flag = getattr(parameter, "is_flag", False)
    value = "" if flag else f" {parameter.metavar or _kind_of(parameter)}"
    names = ", ".join(f"`{one}{value}`" for one in parameter.opts)
    return names + "".join(f" / `{one}`" for one in parameter.secondary_opts)


def _kind_of(parameter: Any) -> str:
    """Return the placeholder of an option that has none of its own."""
    descriptor = getattr(parameter, "type_descriptor", None)
    name = getattr(getattr(descriptor, "annotation", None), "__name__", "") or str(getattr(parameter, "type", ""))
    return {"str": "TEXT", "int": "N", "float": "X", "Path": "PATH"}.get(name, name.upper())


def _default_of(parameter: Any) -> str:
    value = parameter.default
    return "" if value is None or value is False or callable(value) or value in ((), []) else f"`{yaml_words(value)}`"


# --- spaces, families, losses, objectives, settings -----------------------------------------------------------------


def search_spaces() -> str:
    """Generate a table of the built-in spaces and the parameters of each."""
    from autodistill.search.space.builtin import load_space, space_names
    from autodistill.search.space.space import Space

    rows, parts = [], []
    for name in space_names():
        mapping = load_space(name)
        low, high = mapping.get("image_sizes", ("", ""))
        families = mapping["student"]["family"]
        chosen = families["values"] if isinstance(families, Mapping) else families
        size = Space.parse(mapping, source=name).size()
        count = "not finite" if size is None else f"{size:,}"
        rows.append((f"`{name}`", mapping.get("description", ""), f"{low} to {high}", len(chosen), count))
        settings = [
            (f"`{parameter.name}`", f"`{_values_of(parameter.distribution)}`")
            for parameter in Space.parse(mapping).parameters
        ]
        parts += [f"### {name}", table(("parameter", "values"), settings)]
    overview = table(("space", "what it holds", "image sides (px)", "families", "candidates"), rows)
    return "\n\n".join([overview, *parts])


def _values_of(distribution: Any) -> str:
    """Describe a distribution of Optuna in the grammar of a space."""
    if hasattr(distribution, "choices"):
        return yaml_words(list(distribution.choices))
    more = ", log: true" if getattr(distribution, "log", False) else ""
    step = getattr(distribution, "step", None)
    more += f", step: {step}" if step not in (None, 1) else ""
    return f"{{low: {distribution.low:g}, high: {distribution.high:g}{more}}}"


def families() -> str:
    """Generate a table of the student families and the parameters of each."""
    import autodistill.training.students.build  # noqa: F401  (registers the built-in families)
    from autodistill.training.students.families.schema import families as registry

    rows, parts = [], []
    for name in registry.names():
        one = registry.get(name)
        weights = "yes" if one.pretrained else "no"
        rows.append((f"`{name}`", one.kind, f"{one.smallest} to {one.largest}", weights, as_markdown(one.summary)))
        settings = [
            (
                f"`{parameter.name}`",
                ", ".join(f"`{yaml_words(value)}`" for value in parameter.choices)
                if parameter.choices
                else f"{parameter.low} to {parameter.high}",
                f"`{yaml_words(parameter.default)}`",
                parameter.changes,
            )
            for parameter in one.parameters
        ]
        parts += [f"### {name}", table(("parameter", "allowed", "default", "changes"), settings)]
    overview = table(("family", "kind", "image sides (px)", "timm weights", "what it is"), rows)
    return "\n\n".join([overview, *parts])


def losses() -> str:
    """Generate a table of the distillation losses and one of the embedding terms."""
    from autodistill.training.distillation.distillation_losses import loss_info
    from autodistill.training.distillation.distillation_losses import losses as registry
    from autodistill.training.distillation.embedding_losses import embedding_info, embedding_losses
    from autodistill.training.distillation.losses_of_task import info_of
    from autodistill.training.distillation.multilabel_losses import multilabel_losses

    columns = ("name", "what it is", "source", "keywords with their defaults", "ranges worth searching")
    logits = [_loss_row(loss_info(name)) for name in registry.names()]
    embedding = [_loss_row(embedding_info(name)) for name in embedding_losses.names()]
    return "\n\n".join(
        [
            "## On logits",
            table(columns, logits),
            "## On logits, with several labels per image",
            table(columns, [_loss_row(info_of(name, "multilabel")) for name in multilabel_losses.names()]),
            "## On embeddings",
            table(columns, embedding),
        ],
    )


def _loss_row(info: Any) -> tuple[str, ...]:
    defaults = ", ".join(f"`{name}` {value:g}" for name, value in info.defaults.items())
    ranges = ", ".join(f"`{name}` {one.low:g} to {one.high:g}" for name, one in info.ranges.items())
    least = f" Needs at least {info.least_classes} classes." if info.least_classes > 2 else ""
    return (
        f"`{info.name}`",
        f"{as_markdown(info.summary)}{'.' + least if least else ''}",
        as_markdown(info.source),
        defaults,
        ranges,
    )


def loss_mix() -> str:
    """Generate the table of the keys that every loss shares."""
    from autodistill.training.distillation.loss_mix import LossMix

    meanings = attributes_of(LossMix)
    rows = [
        (f"`{one.name}`", f"`{yaml_words(one.default)}`", meanings[one.name])
        for one in dataclasses.fields(LossMix)
        if not one.name.endswith("keywords") and one.name != "kind"  # the study's task, not a key
    ]
    return table(("key", "default", "meaning"), rows)


def training_settings() -> str:
    """Generate the table of the settings of a training."""
    from autodistill.training.loop.recipe import Recipe, allowed

    meanings = attributes_of(Recipe)
    rows = [
        (f"`{one.name}`", allowed(one.name), yaml_words(one.default), meanings[one.name])
        for one in dataclasses.fields(Recipe)
    ]
    return table(("setting", "allowed", "default", "meaning"), rows)


def augmentation_policies() -> str:
    """Generate the table of the policies: the fields that differ from doing nothing, and how large a crop is."""
    from autodistill.training.augmentation.policy import Policy, policies

    rows = []
    for name in policies.names():
        policy = policies.get(name)
        changed = [one for one in dataclasses.fields(Policy) if getattr(policy, one.name) != one.default]
        parts = [f"{one.name} {yaml_words(getattr(policy, one.name))}" for one in changed]
        if policy.crop == "pad":
            parts.insert(1, f"padding {policy.padding:g}")
        if policy.crop == "resized":
            parts.insert(1, f"min_area {policy.min_area:g}")
        rows.append((f"`{name}`", ", ".join(dict.fromkeys(parts)) or "plain images"))
    return table(("policy", "what it is made of"), rows)


def policy_fields() -> str:
    """Generate the list of the fields of a policy; mixing pairs of images is a setting of its own."""
    from autodistill.training.augmentation.policy import Policy

    return "\n".join(f"- `{name}`: {words}" for name, words in attributes_of(Policy).items() if name[:3] != "mix")


def objectives() -> str:
    """Generate the table of the registered objectives."""
    from autodistill.search.objectives.objectives import objectives as registry

    rows = [
        (f"`{one.name}`", one.direction, one.unit, one.stage, "yes" if one.log else "no", one.description)
        for one in map(registry.get, registry.names())
    ]
    return table(("name", "direction", "unit", "stage", "logarithmic", "what it is"), rows)


def data_sources() -> str:
    """Generate the list of registered data sources with the first sentence of each."""
    import autodistill.training.data.datasets  # noqa: F401  (registers the built-in sources)
    from autodistill.training.data.sources.base import data_sources as registry

    return table(
        ("source", "what it gives"), [(f"`{name}`", first_line(registry.get(name))) for name in registry.names()]
    )


# --- codes and words ------------------------------------------------------------------------------------------------


def reason_codes() -> str:
    """Generate the table of the reason codes of trials."""
    from autodistill.delivery.report.tables import REASONS
    from autodistill.search.study.trial_ends import FREE

    rows = [(f"`{code}`", meaning, "no" if code in FREE else "yes") for code, meaning in REASONS.items()]
    return table(("code", "meaning", "counts against a budget of trials"), rows)


def exit_codes() -> str:
    """Generate the table of the exit codes, each with the errors that it stands for."""
    from autodistill.core import errors

    found: dict[int, list[type[errors.AutodistillError]]] = {}
    for one in vars(errors).values():
        if inspect.isclass(one) and issubclass(one, errors.AutodistillError):
            found.setdefault(one.exit_code, []).append(one)
    rows = []
    for code in sorted(found):
        first = found[code][0]
        rows.append((str(code), ", ".join(f"`{one.__name__}`" for one in found[code]), first_line(first)))
    rows += [
        ("130", "`KeyboardInterrupt`", "Ctrl-C; everything is saved"),
        ("143", "`SystemExit`", "SIGTERM; everything is saved"),
    ]
    return table(("exit code", "errors", "meaning"), [("0", "", "success"), *rows])


def glossary() -> str:
    """Generate the glossary of the report."""
    from autodistill.delivery.report.glossary import glossary as words

    made = words()
    return table(made.columns, made.rows)


def contributing() -> str:
    """Take over CONTRIBUTING.md without its heading, with links as they are from a page in ``development/``."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n")[2].strip()
    text = re.sub(r"```python file=(\S+) name=\S+", r'```python title="\1"', text)

    def from_here(match: re.Match[str]) -> str:
        target = posixpath.relpath(match.group(1), "docs/development")
        return f"]({target}"

    return re.sub(r"\]\((?!\w+://|#)([^)#\s]+)", from_here, text)


GENERATORS: dict[str, Callable[[], str]] = {
    one.__name__: one
    for one in (
        study_file,
        command_line,
        search_spaces,
        families,
        losses,
        loss_mix,
        training_settings,
        augmentation_policies,
        policy_fields,
        objectives,
        data_sources,
        reason_codes,
        exit_codes,
        glossary,
        contributing,
    )
}
"""Marker to the function that makes its Markdown."""
