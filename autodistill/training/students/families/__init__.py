"""Student families. Importing this package registers the built-in families."""

from __future__ import annotations

from autodistill.training.students.families import convnets, hybrids, mobile, reparam, transformers
from autodistill.training.students.families.schema import Family, FamilyParameter, Shape, families, family

__all__ = [
    "Family", "FamilyParameter", "Shape", "convnets", "families", "family", "hybrids", "mobile", "reparam",
    "transformers",
]  # fmt: skip
