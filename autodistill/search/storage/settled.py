"""One latency for one architecture: a noisy measurement gives way to a settled one of another trial.

Equal architectures have equal latencies. A trial whose measurement was too noisy to settle is therefore read with the
latency that another trial of the same architecture has settled. Without this rule, one network could stand on the
front several times, once for each noisy value. What is stored does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from autodistill.core.records import LATENCY, TrialRecord


def is_noisy(record: TrialRecord) -> bool:
    """Return whether a latency of a trial, or of a variant of its student, was too noisy to settle."""
    return any(noisy for _, noisy in _latencies(record).values())


def with_settled_latency(record: TrialRecord, same: Iterable[TrialRecord]) -> TrialRecord:
    """Return a record with the best known latency of its architecture, in all its rungs and variants.

    A noisy latency is replaced by the latest settled one. If no trial has settled it, the smallest noisy one counts,
    because other work on the machine only makes a network slower.

    Args:
        record: a trial as it is stored; it is returned as it is unless one of its latencies is noisy.
        same: the trials of the same architecture as they are stored, by number; it may include the record.
    """
    own = _latencies(record)
    unsettled = {form for form, (_, noisy) in own.items() if noisy}
    if not unsettled:
        return record
    best = {form: own[form] for form in unsettled}
    for form, (value, noisy) in (item for other in same for item in _latencies(other).items()):
        if form in best and (not noisy or (best[form][1] and value < best[form][0])):
            best[form] = (value, noisy)
    return replace(
        record,
        values=_with_latency(record.values, best.get("fp32")),
        rungs={rung: _with_latency(values, best.get("fp32")) for rung, values in record.rungs.items()},
        variants={form: _variant(facts, best.get(form)) for form, facts in record.variants.items()},
        noisy=best["fp32"][1] if "fp32" in best else record.noisy,
    )


def _latencies(record: TrialRecord) -> dict[str, tuple[float, bool]]:
    """Return latency and noise by form; the student itself is ``fp32``."""
    found = {}
    if record.rungs and LATENCY in (latest := record.rungs[max(record.rungs)]):
        found["fp32"] = latest[LATENCY], record.noisy
    for form, facts in record.variants.items():
        if LATENCY in (facts.get("values") or {}):
            found[form] = float(facts["values"][LATENCY]), bool(facts.get("noisy", False))
    return found


def _with_latency(values: Mapping[str, float], best: tuple[float, bool] | None) -> dict[str, float]:
    return {**values, LATENCY: best[0]} if best is not None and LATENCY in values else dict(values)


def _variant(facts: Mapping[str, Any], best: tuple[float, bool] | None) -> Mapping[str, Any]:
    return facts if best is None else {**facts, "values": _with_latency(facts["values"], best), "noisy": best[1]}
