"""Python interface: creates or opens a study, and runs a search.

This module joins the set-up, the engines and the passive study.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autodistill.core.budget import Budget
from autodistill.core.errors import InterruptedTrialError, UsageError
from autodistill.core.processes import leave_while_starting
from autodistill.core.records import Evaluate, EvaluateFactory
from autodistill.core.resource_errors import as_resource_error
from autodistill.core.scratch import remove_orphans
from autodistill.core.wording import why_empty
from autodistill.engines import check_keywords, engines
from autodistill.engines.driving.remote_study import fetch_files
from autodistill.engines.driving.slots import Slot, devices_each, make_slots
from autodistill.engines.driving.worker import same_for_all
from autodistill.engines.monitor.progress import shown
from autodistill.engines.monitor.watch import Snapshot, Watch
from autodistill.engines.setup.packing import measured_packing
from autodistill.engines.setup.provenance import record_machine
from autodistill.search.results.front import Front
from autodistill.search.sampler.proposer import Costs
from autodistill.search.storage.study_folder import only_driver
from autodistill.search.study.study import Study


def open_study(source: Any, **changes: Any) -> Study:
    """Create or resume a study from a study file, a study folder or a mapping of its keys.

    Args:
        source: Path of a study file, folder of a study, or mapping of keys.
        changes: Keys that override those of ``source``, e.g. ``directory=``, ``budget=``.

    Returns:
        The study, ready for :func:`search`.

    Raises:
        ConfigError: The configuration has problems; all are listed.
        UsageError: The folder holds another study; the differing keys are listed.
    """
    from autodistill.engines.setup.study_setup import study_from

    return study_from(source, changes)


def create_study(**keys: Any) -> Study:
    """Create or resume a study from keywords, the keys of a study file: ``data=, teacher=, space=, …``.

    Args:
        keys: Keys of a study file, and ``directory=``: folder of the study; ``None`` keeps the study in memory.

    Returns:
        The study, ready for :func:`search`.

    Raises:
        ConfigError: The configuration has problems, or names that are not registered; all are listed.
        UsageError: The folder holds another study; the differing keys are listed.
    """
    return open_study(keys)


def search(
    study: Study | str | Path,
    *,
    evaluate: Evaluate | None = None,
    costs: Costs | None = None,
    budget: str | Budget | None = None,
    workers: int | None = None,
    engine: str | None = None,
    progress: bool | Callable[[Snapshot], None] = True,
    **options: Any,
) -> Front:
    """Search until the budget is spent. Call it again with a larger budget to continue.

    Args:
        study: A study, or any source that :func:`open_study` accepts.
        evaluate: Your own evaluation instead of timm training: yields one :class:`Report` per rung, rung 0 first.
        costs: For ``evaluate``: function from a student to its known costs by objective name, or ``None`` if unknown.
        budget: Total budget of the study over all calls, e.g. ``"2h"`` or ``"40trials"``; ``None``: the study's own.
        workers: Number of workers on this machine; ``None``: the study's own, or one per GPU.
        engine: Name of a registered engine; ``None``: the study's own, or ``local``.
        progress: ``True`` shows progress on stderr: a live panel on a terminal, else a plain line from time to time.
            ``False`` shows nothing. A function is called with a :class:`Snapshot` whenever the search changes.
        options: Further keywords of the engine.

    Returns:
        The front so far. Its files are written to the study's folder.

    Raises:
        AutodistillError: The search failed; ``core/errors.py`` lists all kinds.
        KeyboardInterrupt: After SIGINT, once everything is saved. SIGTERM raises
            ``SystemExit(143)`` instead, SIGHUP ``SystemExit(129)``.
    """
    leave_while_starting()
    study = study if isinstance(study, Study) else open_study(study)
    config = study.config
    limits = Budget.parse(budget) if budget is not None else config.limits if config is not None else Budget()
    chosen = engine or getattr(config, "engine", None) or "local"
    check_keywords(chosen, options, search)
    drive = engines.get(chosen)
    packing = getattr(config, "slots_per_gpu", 1)
    remove_orphans()
    make = _slots_of(config, workers, own=evaluate is not None, limited=chosen == "local")
    slots = make(slots_per_gpu=1 if packing == "auto" else packing)
    if evaluate is None and getattr(config, "data", None) is None:
        raise UsageError("this study has no data; give data= and teacher=, or evaluate= with your own evaluation.")
    with (
        shown(progress) as callback,
        as_resource_error(),
        only_driver(study.directory, study.storage, study.name),
        study.running(limits),
        (watch := Watch(callback, study)).signals(),
    ):
        study.under_way = lambda: watch.under_way()
        watch.until(lambda: study.time_is_up)
        try:
            factory = _factory(study, evaluate, costs, watch, slots[0].device)
            record_machine(study, len(slots))
            if packing == "auto" and slots[0].device.startswith("cuda") and not watch.should_stop():
                slots = make(slots_per_gpu=measured_packing(study, watch, slots))
            study.use_devices(devices_each(slots, options.get("gpus_per_worker")))
            if missing := fetch_files(study):
                watch.stage("storage", missing)
            if not watch.should_stop():
                drive(study, factory, slots, watch, **options)
        except InterruptedTrialError:  # the teacher's training was interrupted; a resumed study continues it
            if watch.signal is None:
                raise
        study.record_promises()
        watch.update("done")
        front = study.front()
        if study.directory is not None:
            front.save(study.directory, empty=why_empty(study.trials(), study.constraints))
    watch.pass_on()
    return front


def _slots_of(config: Any, workers: int | None, *, own: bool, limited: bool) -> Callable[..., tuple[Slot, ...]]:
    """Return a function that makes the slots of a study; its keyword ``slots_per_gpu`` is still open.

    Args:
        config: Configuration of the study; ``None`` if it has none.
        workers: Number of workers; ``None``: the study's own.
        own: Whether the evaluation is the user's own; its slots have no GPU, and one device each.
        limited: Whether all workers run on this machine.
    """
    count = workers if workers is not None else getattr(config, "workers", None)
    together = 1 if own else getattr(config, "devices_per_trial", 1)
    return functools.partial(make_slots, count, use_gpus=not own, limited=limited, devices_per_trial=together)


def _factory(
    study: Study, evaluate: Evaluate | None, costs: Costs | None, watch: Watch, device: str
) -> EvaluateFactory:
    """Prepare the study, and return the factory that builds the evaluator of each worker."""
    if evaluate is None:
        from autodistill.engines.setup.prepare import prepare

        return prepare(study, watch, device=device)
    study.set_known_costs([], costs)
    return functools.partial(same_for_all, evaluate)
