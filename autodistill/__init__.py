"""autodistill: from a teacher, images and a budget to a Pareto front of students.

Everything public is here; it loads on first use, so that ``import autodistill`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodistill.api import search as search
    from autodistill.core.records import Candidate as Candidate
    from autodistill.core.records import Decision as Decision
    from autodistill.core.records import Report as Report
    from autodistill.delivery.verify.run import verify as verify
    from autodistill.search.results.verified import Verified as Verified
    from autodistill.search.study.study import Study as Study

__version__ = "0.1.0"

_PUBLIC = {
    "Candidate": "autodistill.core.records",
    "Decision": "autodistill.core.records",
    "Front": "autodistill.search.results.front",
    "FrontSampler": "autodistill.search.sampler.front_sampler",
    "Report": "autodistill.core.records",
    "Study": "autodistill.search.study.study",
    "Verified": "autodistill.search.results.verified",
    "load": "autodistill.delivery.export.loading",
    "losses": "autodistill.training.distillation.distillation_losses",
    "verify": "autodistill.delivery.verify.run",
}

__all__ = [
    "Candidate",
    "Decision",
    "Front",
    "FrontSampler",
    "Report",
    "Study",
    "Verified",
    "load",
    "losses",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name == "search":  # both the room and the function: the room is a module that can be called
        return importlib.import_module("autodistill.search")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'autodistill' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
