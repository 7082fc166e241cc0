"""Student families: importing this package registers the built-in ones."""

from __future__ import annotations

from autodistill.training.students.families import convnets, hybrids, mobile, reparam, transformers
from autodistill.training.students.families.schema import Family, Parameter, Shape, families, family

__all__ = [
    "Family", "Parameter", "Shape", "convnets", "families", "family", "hybrids", "mobile", "reparam", "transformers",
]  # fmt: skip
