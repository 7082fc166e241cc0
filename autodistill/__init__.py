"""autodistill: distils an image classifier (the teacher) into a Pareto front of small networks (students).

A search trains students within a budget and keeps the best trade-offs of accuracy, size and latency. All public names
are here. They are loaded on first use, so that ``import autodistill`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autodistill.api import create_study as create_study
    from autodistill.api import open_study as open_study
    from autodistill.api import search as search
    from autodistill.core.budget import Budget as Budget
    from autodistill.core.errors import AutodistillError as AutodistillError
    from autodistill.core.records import Candidate as Candidate
    from autodistill.core.records import Constraint as Constraint
    from autodistill.core.records import Decision as Decision
    from autodistill.core.records import Objective as Objective
    from autodistill.core.records import Report as Report
    from autodistill.core.records import TrialRecord as TrialRecord
    from autodistill.delivery.verify.run import verify as verify
    from autodistill.search.results.front_member import FrontMember as FrontMember
    from autodistill.search.results.verified import Verified as Verified
    from autodistill.search.space.space import Space as Space
    from autodistill.search.study.study import Study as Study

__version__ = "0.1.0"

_PUBLIC = {
    "AutodistillError": "autodistill.core.errors",
    "Budget": "autodistill.core.budget",
    "Candidate": "autodistill.core.records",
    "Constraint": "autodistill.core.records",
    "Decision": "autodistill.core.records",
    "Front": "autodistill.search.results.front",
    "FrontMember": "autodistill.search.results.front_member",
    "FrontSampler": "autodistill.search.sampler.front_sampler",
    "Objective": "autodistill.core.records",
    "Report": "autodistill.core.records",
    "Space": "autodistill.search.space.space",
    "Study": "autodistill.search.study.study",
    "TrialRecord": "autodistill.core.records",
    "Verified": "autodistill.search.results.verified",
    "create_study": "autodistill.api",
    "load": "autodistill.delivery.export.loading",
    "losses": "autodistill.training.distillation.distillation_losses",
    "open_study": "autodistill.api",
    "verify": "autodistill.delivery.verify.run",
}

__all__ = [
    "AutodistillError",
    "Budget",
    "Candidate",
    "Constraint",
    "Decision",
    "Front",
    "FrontMember",
    "FrontSampler",
    "Objective",
    "Report",
    "Space",
    "Study",
    "TrialRecord",
    "Verified",
    "create_study",
    "load",
    "losses",
    "open_study",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name == "search":  # both a package and a function: the package is a module that can be called
        return importlib.import_module("autodistill.search")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'autodistill' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
