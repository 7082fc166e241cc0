"""Restoring a study's state when it starts or resumes: paused, interrupted and repeatedly crashing trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import optuna

from autodistill.core.records import WORK, Constraint, Objective, State, TrialRecord
from autodistill.search.rungs.epoch_time import EpochTime
from autodistill.search.rungs.levels import Rungs
from autodistill.search.rungs.losses_by_rung import LossesByRung
from autodistill.search.rungs.teacher_time import overhead, teacher_seconds, views_key
from autodistill.search.sampler.proposer import Proposer
from autodistill.search.storage.trial_log import TrialLog
from autodistill.search.study.rung_rules import ModelRule, PeerRule
from autodistill.search.study.scheduler import Scheduler

BLANK = "the driver ended before the trial had a candidate; the next candidate gets its number"

MAX_ATTEMPTS = 3  # attempts at one rung, each ended by the death of its driver, before a trial is given up

Ends = dict[int, tuple[State, str, str]]
"""Trials that end now: number to state, reason code and message."""


def restore_state(
    log: TrialLog, rungs: Rungs, objectives: Sequence[Objective], running: Collection[int]
) -> tuple[Scheduler, LossesByRung, Ends]:
    """Rebuild the scheduler and the losses by rung from the stored trials, and return the trials to end.

    Args:
        log: trials of the study.
        rungs: fidelities of the study.
        objectives: axes of the front.
        running: numbers of trials that are being worked on.

    Returns:
        Scheduler, losses by rung, and trials that end now.
    """
    scheduler, losses_by_rung, ends = Scheduler(rungs, EpochTime()), LossesByRung(objectives, rungs.top), Ends()
    for record in log.read():
        known = record.rungs.get(0, {})
        for rung in filter(None, record.rungs):
            losses_by_rung.add(record.number, rung, {**known, **record.rungs[rung]})
        learn_epoch_time(scheduler.epoch_time, record)
        if "candidate" not in log.attributes(record.number):
            continue  # its driver died before it had one; see Proposer.blank
        if record.state in (State.RUNNING, State.PARTIAL) and record.number not in running:
            end = _end_of(record, log.attributes(record.number), rungs, objectives)
            if end is not None:
                ends[record.number] = end
            elif record.reason == "PAUSED" and record.state is State.PARTIAL:
                scheduler.pause(record.number, log.rung(record.number), known)
            else:
                scheduler.interrupted.append(record)
    return scheduler, losses_by_rung, ends


def learn_epoch_time(epoch_time: EpochTime, record: TrialRecord) -> None:
    """Learn the seconds per epoch, and those of teacher outputs without a cache, from a trial's reports."""
    known, teacher = record.rungs.get(0, {}), teacher_seconds(record.rungs)
    family = str(record.student.get("family", ""))
    epoch_time.learn(record.number, costs_of(known), record.epochs, record.seconds - overhead(record), family)
    if teacher is not None:
        epoch_time.uncached.learn(record.number, views_key(record.distillation, record.train), record.epochs, teacher)


def costs_of(reported: Mapping[str, float]) -> dict[str, float]:
    """Return the known costs among the values stored for rung 0."""
    return {name: value for name, value in reported.items() if name not in WORK}


def _end_of(
    record: TrialRecord, attributes: Mapping[str, object], rungs: Rungs, objectives: Sequence[Objective]
) -> tuple[State, str, str] | None:
    """Return the end of a trial that cannot continue (finished, or out of attempts); ``None`` if it can."""
    if rungs.top in record.rungs and all(o.name in record.latest for o in objectives):
        return State.COMPLETE, "", rungs.reached  # the driver died between the last report and the end
    rung = max(record.rungs, default=0)
    if record.state is State.RUNNING and next_attempt(attributes, rung)["attempts"] > MAX_ATTEMPTS:
        return State.FAIL, "ATTEMPTS", f"did not survive {MAX_ATTEMPTS} attempts after rung {rung}"
    return None


def next_attempt(attributes: Mapping[str, object], rung: int) -> dict[str, int]:
    """Return the attributes of a trial that goes on after its driver died: attempts count since its last new rung.

    Args:
        attributes: the trial's.
        rung: the last that it has reported.
    """
    before = int(str(attributes.get("attempts_rung", 0)))
    return {"attempts": 1 if rung > before else int(str(attributes.get("attempts", 1))) + 1, "attempts_rung": rung}


def rule_of(
    proposer: Proposer,
    study: optuna.Study,
    rungs: Rungs,
    objectives: Sequence[Objective],
    losses_by_rung: LossesByRung,
    constraints: Sequence[Constraint],
) -> PeerRule | ModelRule | None:
    """Return the rung rule that suits the proposer's sampler; ``None`` if every trial trains to the top."""
    if not rungs.stopping or rungs.top == 1:
        return None
    plain = PeerRule(rungs, objectives, losses_by_rung, constraints)
    return ModelRule(proposer.front_sampler, study, plain) if proposer.is_front else plain
