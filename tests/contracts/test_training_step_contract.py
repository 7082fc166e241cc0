"""One training step of every family on colour images ends, and its gradients are those of contiguous tensors.

oneDNN writes past its memory in some shapes (``autodistill/training/runtime/strided.py``): each step runs in a
child process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from places import TESTS
from torch import nn

from autodistill.training.students import build as students
from autodistill.training.students.build import families

CHILD = TESTS / "training_step_child.py"
SIDES = (32, 64, 96, 224)
TOLERANCE = 1e-4


def failures(cases: Sequence[dict[str, Any]], *, seconds: float) -> list[str]:
    """What went wrong, a line per case; children that die or hang are followed by others with the cases after.

    Args:
        cases: what the child reads.
        seconds: after so long in one case a child is ended.
    """
    found, left = [], list(cases)
    while left:
        errors, ended = steps(left, seconds)
        found += [
            f"{case}: gradients differ by {error:.1e}"
            for case, error in zip(left, errors, strict=False)
            if not error <= TOLERANCE
        ]
        if len(errors) < len(left):
            found.append(f"{left[len(errors)]}: {ended}")
        left = left[len(errors) + 1 :]
    return found


def steps(cases: Sequence[dict[str, Any]], seconds: float) -> tuple[list[float], str]:
    """Differences of one child's cases as far as it came, and how it ended."""
    errors: list[float] = []
    said = ""
    with subprocess.Popen(
        [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n".join(map(json.dumps, cases)))
        child.stdin.close()
        while True:
            guard = threading.Timer(seconds, child.kill)
            guard.start()
            line = child.stdout.readline()
            guard.cancel()
            if not line:
                break
            if line.startswith('{"error"'):
                errors.append(json.loads(line)["error"])
            elif not line.startswith('{"begins"'):
                said = line.strip()
    return errors, f"exit code {child.returncode} {said}"


def end(name: str, which: int) -> dict[str, Any]:
    """The smallest (0) or largest (1) student of a family; what the image size decides stays at its default."""
    free = [one for one in families.get(name).parameters if one.changes not in {"stem", "patch"}]
    return {"family": name, **{one.name: one.extremes()[which] for one in free}}


def has_strided_pointwise(student: dict[str, Any], side: int) -> bool:
    model = students.build_student(student, image_size=side, channels=3, num_classes=5)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return any(layer.kernel_size == (1, 1) and max(layer.stride) > 1 for layer in layers)


def test_narrow_strided_pointwise_convolutions_train_in_every_width() -> None:
    widths = (1, 2, 3, 4, 6, 7, 8, 12, 15, 16, 17)
    cases = [{"width": width, "side": 64, "threads": threads} for width in widths for threads in (1, 2)]
    assert failures(cases, seconds=300) == []


def test_small_students_with_strided_pointwise_convolutions_train_on_colour() -> None:
    cases = [
        {"student": student, "side": side, "threads": threads}
        for name in families.names()
        for side in (32, 64)
        if families.get(name).smallest <= side
        if has_strided_pointwise(student := end(name, 0), side)
        for threads in (1, 2)
    ]
    cases.append({"student": {"family": "timm", "model": "mobileone_s0"}, "side": 64, "threads": 2})
    assert {"mobileone", "repvgg", "resnet"} <= {case["student"]["family"] for case in cases}
    assert failures(cases, seconds=300) == []


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", families.names())
def test_every_family_trains_on_colour(name: str, side: int) -> None:
    if not families.get(name).smallest <= side <= families.get(name).largest:
        pytest.skip(f"takes no {side} px")
    cases = [{"student": end(name, which), "side": side, "threads": threads} for which in (0, 1) for threads in (1, 2)]
    assert failures(cases, seconds=600) == []
