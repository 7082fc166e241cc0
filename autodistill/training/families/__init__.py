"""Student families: importing this package registers the built-in ones."""

from __future__ import annotations

from autodistill.training.families import convnets, fused, hybrids, mobile, transformers
from autodistill.training.families.schema import Family, Parameter, Shape, families, family

__all__ = [
    "Family",
    "Parameter",
    "Shape",
    "convnets",
    "families",
    "family",
    "fused",
    "hybrids",
    "mobile",
    "transformers",
]
