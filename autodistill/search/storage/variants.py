"""Variants of a trial: further forms of its student with their own metrics, each listed like a trial.

For Optuna, a trial remains one trial with the metrics of ``fp32``; a variant is stored as the attribute
``variant:<name>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autodistill.core.records import Constraint, Objective, TrialRecord, described, is_finite, plain

PREFIX = "variant:"


def stored(
    facts: Mapping[str, Any], objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> dict[str, Any]:
    """Return what is stored of a variant: its values, whether they are feasible or noisy, or why it has none."""
    values = facts.get("values")
    if values is None:
        return {"reason": str(facts.get("reason", "it was not measured"))}
    missing = [objective.name for objective in objectives if objective.name not in values]
    if missing:
        return {"reason": f"it has no {', '.join(missing)}"}
    values = {name: plain(value) for name, value in values.items()}
    bad = [f"{name}={described(value)}" for name, value in values.items() if not is_finite(value)]
    if bad:
        return {"reason": f"it has {', '.join(bad)}; a finite number is needed"}
    feasible = all(one.violation(values) <= 0 for one in constraints)
    return {"values": values, "feasible": feasible, **({"noisy": True} if facts.get("noisy") else {})}


def of_attributes(attributes: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the variants among a trial's attributes, by name."""
    return {key[len(PREFIX) :]: value for key, value in attributes.items() if key.startswith(PREFIX)}


def expanded(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Return every trial, followed by its feasible variants with their own values."""
    out: list[TrialRecord] = []
    for trial in trials:
        out.append(trial)
        for name, facts in trial.variants.items():
            if facts.get("feasible"):
                values = {one.name: float(facts["values"][one.name]) for one in objectives}
                out.append(replace(trial, values=values, variant=name, noisy=bool(facts.get("noisy", False))))
    return out
