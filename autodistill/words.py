"""Candidates in words, for tables, progress lines and pictures."""

from __future__ import annotations

from typing import Any

from autodistill.records import Params


def student_words(student: Params) -> str:
    """``{"family": "resnet", "width": 16}`` as ``resnet width=16``."""
    rest = [f"{key}={_short(value)}" for key, value in student.items() if key not in ("family", "model")]
    head = str(student.get("model") or student.get("family") or "")
    return " ".join([head, *rest] if head else rest)


def distillation_words(distillation: Params) -> str:
    """``{"loss": "kd", "temperature": 4.0, "alpha": 0.7}`` as ``kd temperature=4 alpha=0.7``."""
    rest = [f"{key}={_short(value)}" for key, value in distillation.items() if key != "loss" and value is not None]
    return " ".join([str(distillation.get("loss", "")), *rest]).strip()


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
