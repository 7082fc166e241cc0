"""Diagram of a student as a row of blocks: kind of each stage, output shape, share of the parameters.

The stages are recorded in one forward pass of one grey image and drawn as SVG for an HTML page. For a graph of every
operation, use a viewer of the exported ONNX file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_MOST_STAGES = 40
_WIDTH, _HEIGHT, _GAP, _PER_LINE = 110, 76, 22, 8
_TIMES = "\u00d7"
_SKIPPED = ("Identity", "Dropout", "DropPath")


@dataclass(frozen=True)
class Stage:
    """One block of the diagram.

    Attributes:
        name: name of the module in the network.
        kind: class of the module.
        shape: output shape without the batch: ``(channels, height, width)``, ``(tokens, width)``, ``(classes,)``.
        params: number of parameters.
        repeats: number of equal consecutive blocks that this one represents; ``params`` counts all of them.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    repeats: int = 1


def student_stages(facts: Mapping[str, Any]) -> list[Stage]:
    """Return the stages of a finished student.

    Args:
        facts: ``architecture``, ``image_size``, ``channels`` and ``classes``, as returned by ``student_facts``.

    Raises:
        InfeasibleError: the student cannot be built.
    """
    from autodistill.training.students import build as students

    size, channels = int(facts["image_size"]), int(facts["channels"])
    model = students.build_student(
        facts["architecture"], image_size=size, channels=channels, num_classes=max(2, len(facts["classes"]))
    )
    return stages_of(model, (channels, size, size))


def stages_of(model: nn.Module, shape: tuple[int, int, int]) -> list[Stage]:
    """Return the stages of a network for images of ``shape`` (channels, height, width), in the order they run."""
    import torch

    chosen = dict(_parts(model))
    ran: list[Stage] = []

    def note(name: str, kind: str, params: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            del module, inputs
            if isinstance(output, torch.Tensor):
                ran.append(Stage(name, kind, tuple(output.shape[1:]), params))

        return hook

    handles = [
        part.register_forward_hook(note(name, _kind(part), sum(p.numel() for p in part.parameters())))
        for name, part in chosen.items()
    ]
    try:
        with torch.no_grad():
            model.eval()(torch.full((1, *shape), 0.5))
    finally:
        for handle in handles:
            handle.remove()
    return _grouped(ran)


def stages_svg(stages: list[Stage], title: str) -> str:
    """Draw the stages as SVG, with the page's colours (``currentColor``) and a text description for screen readers."""
    total = sum(stage.params for stage in stages) or 1
    lines = -(-len(stages) // _PER_LINE)
    width = min(len(stages), _PER_LINE) * (_WIDTH + _GAP) - _GAP + 4
    height = lines * (_HEIGHT + _GAP) - _GAP + 4
    words = escape(f"{title}: " + ", then ".join(_stage_text(stage) for stage in stages))
    parts = [
        f'<svg class="stages" role="img" viewBox="0 0 {max(width, 10)} {max(height, 10)}" '
        f'width="{max(width, 10)}" height="{max(height, 10)}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{words}</title>",
    ]
    for index, stage in enumerate(stages):
        line, column = divmod(index, _PER_LINE)
        x, y = 2 + column * (_WIDTH + _GAP), 2 + line * (_HEIGHT + _GAP)
        parts.append(_box(stage, x, y, stage.params / total))
        if index + 1 < len(stages):
            parts.append(_arrow(x, y, last=column == _PER_LINE - 1))
    return "".join([*parts, "</svg>"])


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of the network; an ``nn.Sequential`` of composite modules is replaced by its children."""
    from torch import nn

    for name, child in model.named_children():
        if isinstance(child, nn.Sequential) and any(len(list(part.children())) for part in child):
            for inner, part in child.named_children():
                yield f"{name}.{inner}", part
        else:
            yield name, child


def _kind(module: nn.Module) -> str:
    """Return the class of a module; for a sequence of equal blocks, their number and class."""
    inside = [type(part).__name__ for part in module.children()]
    if type(module).__name__ == "Sequential" and inside and len(set(inside)) == 1:
        return f"{len(inside)} {inside[0]}" if len(inside) > 1 else inside[0]
    return type(module).__name__


def _grouped(stages: list[Stage]) -> list[Stage]:
    """Merge equal neighbours, and normalization with its layer; leave out dropout and identity layers."""
    out: list[Stage] = []
    for stage in stages:
        if stage.kind in _SKIPPED:
            continue
        last = out[-1] if out else None
        like = last is not None and (last.kind, last.shape) == (stage.kind, stage.shape) and stage.params > 0
        if like and last is not None and last.name.rpartition(".")[0] == stage.name.rpartition(".")[0] != "":
            out[-1] = replace(last, params=last.params + stage.params, repeats=last.repeats + 1)
        elif last is not None and last.shape == stage.shape and (stage.params == 0 or "BatchNorm" in stage.kind):
            out[-1] = replace(last, params=last.params + stage.params)  # an activation or normalization
        else:
            out.append(stage)
    if len(out) > _MOST_STAGES:
        rest = out[_MOST_STAGES - 1 :]
        more = Stage(f"{len(rest)} more", rest[-1].kind, rest[-1].shape, sum(s.params for s in rest))
        out = [*out[: _MOST_STAGES - 1], more]
    return out


def _box(stage: Stage, x: int, y: int, share: float) -> str:
    """Draw a box with four lines of text and a bar for the share of the parameters."""
    times = f" {_TIMES}{stage.repeats}" if stage.repeats > 1 else ""
    rows = [f"{stage.name}{times}", stage.kind, _TIMES.join(map(str, stage.shape)) or "1", f"{stage.params:,} params"]
    out = [f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7" class="stage"/>']
    bar = max(1.0, share * (_WIDTH - 16)) if stage.params else 0
    out.append(f'<rect x="{x + 8}" y="{y + _HEIGHT - 9}" width="{bar:.1f}" height="4" rx="2" class="share"/>')
    for index, words in enumerate(rows):
        weight = ' font-weight="600"' if index == 0 else ""
        out.append(f'<text x="{x + 8}" y="{y + 16 + 14 * index}" font-size="11"{weight}>{escape(_cut(words))}</text>')
    return "".join(out)


def _arrow(x: int, y: int, *, last: bool) -> str:
    """Draw an arrow from a box to the next one in the line, or to the next line."""
    right, middle, under = x + _WIDTH, y + _HEIGHT // 2, y + _HEIGHT
    half = _GAP // 2
    if last:
        way = f"M{x + _WIDTH // 2} {under}v{half}H{_WIDTH // 2}v{half - 3}m-4-4l4 5 4-5"
    else:
        way = f"M{right + 2} {middle}h{_GAP - 6}m-5-4l5 4-5 4"
    return f'<path class="flow" d="{way}"/>'


def _stage_text(stage: Stage) -> str:
    times = f", {stage.repeats} times" if stage.repeats > 1 else ""
    return (
        f"{stage.name} ({stage.kind}{times}), output {' by '.join(map(str, stage.shape))}, {stage.params:,} parameters"
    )


def _cut(words: str) -> str:
    return words if len(words) <= 16 else f"{words[:15]}…"
