"""Engine ``ray``: runs the candidates of a study with Ray Tune, on a private Ray of this machine or on a cluster.

A Tune searcher gets candidates from the study, and a Tune scheduler reports to it. Tune's own state is never read back,
so a study can switch between the engines ``ray`` and ``local``. Either every node can read the study's folder, or the
teacher and the checkpoints are copied through a storage (``driving/remote_study.py``).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autodistill.core.errors import UsageError
from autodistill.core.records import EvaluateFactory, WorkerContext
from autodistill.engines.driving.driven import Driven
from autodistill.engines.driving.environment import environment
from autodistill.engines.driving.remote_study import url_of, workers_elsewhere
from autodistill.engines.driving.slots import Slot
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.ray.bridge import StudyBridge
from autodistill.engines.ray.cluster import WorkerResources, cluster, resources_of
from autodistill.engines.ray.options import RayOptions


def run(
    study: Driven,
    factory: EvaluateFactory,
    slots: Sequence[Slot],
    watch: Watch,
    options: RayOptions,
) -> None:
    """Run the candidates of the study until there are none left or the search should stop.

    Args:
        study: The study, or a queue with the same methods.
        factory: Builds the evaluator, once per worker.
        slots: One slot per worker, anywhere on the cluster.
        watch: Receives progress, and reports when to stop.
        options: Keywords of the engine.

    Raises:
        ResourceError: Ray is missing, no cluster answers, or it has too few resources for the workers.
        UsageError: Authentication is disabled, the evaluate function cannot be pickled, or too many workers die.
    """
    share = resources_of(slots, options.cpus_per_worker, options.gpus_per_worker)
    with (
        cluster(slots, share, address=options.address, trust_network=options.trust_network),
        contextlib.ExitStack() as stack,
    ):
        context = _context(slots, share)
        if options.storage is not None:
            storage = stack.enter_context(workers_elsewhere(study, factory, options.storage))
            context = replace(context, storage=storage)
        stack.enter_context(_quiet(len(slots)))
        _drive(study, factory, context, watch, _Tune(len(slots), share, options))


def _context(slots: Sequence[Slot], share: WorkerResources) -> WorkerContext:
    """Return the context of all workers; a worker sees only its own GPUs, which Ray numbers from 0."""
    together = len(slots[0].devices) or 1
    devices = tuple(f"cuda:{i}" if share.gpus else "cpu" for i in range(together))
    return WorkerContext(0, devices[0], max(slot.threads for slot in slots), devices=devices if together > 1 else ())


@dataclass(frozen=True)
class _Tune:
    """Settings of Tune: number of workers, resources of each, and the keywords of the engine."""

    workers: int
    share: WorkerResources
    options: RayOptions


def _drive(study: Driven, factory: EvaluateFactory, context: WorkerContext, watch: Watch, how: _Tune) -> None:
    import ray
    from ray import tune

    from autodistill.engines.ray import tune as shapes
    from autodistill.engines.ray.worker import make_trainable

    try:
        mailbox, name = shapes.make_mailbox(factory)
    except Exception as error:  # what pickling raises: PicklingError, AttributeError, TypeError
        raise UsageError(
            f"the evaluate function cannot be sent to Ray's workers: {error}. "
            "Define it at the top level of a module, and open files and locks inside it."
        ) from error
    bridge = StudyBridge(study, watch, how.workers, stop_workers=lambda: mailbox.stop.remote())
    try:
        with tempfile.TemporaryDirectory(prefix="ad-tune-", ignore_cleanup_errors=True) as scratch:
            tune.run(
                make_trainable(name, context),
                name=f"autodistill-{study.name}",
                num_samples=-1,
                resources_per_trial={"cpu": how.share.cpus, "gpu": how.share.gpus},
                search_alg=shapes.BridgeSearcher(bridge),
                scheduler=shapes.BridgeScheduler(bridge),
                callbacks=[*how.options.callbacks, shapes.BridgeCallback(bridge, mailbox)],
                stop=shapes.BridgeStopper(bridge),
                storage_path=scratch if how.options.storage is None else url_of(how.options.storage),
                reuse_actors=True,
                max_failures=0,  # after a lost node the bridge restarts the trial from the study's own checkpoint
                raise_on_failed_trial=False,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                verbose=0,
            )
    finally:
        bridge.leave()
        ray.kill(mailbox)
    if bridge.failure is not None:
        raise bridge.failure


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.config['candidate'].number:05d}-{trial.trial_id}"


@contextlib.contextmanager
def _quiet(count: int) -> Iterator[None]:
    """Disable Tune's signal handler, snapshots, default loggers and tables; allow as many pending trials as slots."""
    switches = {
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # its snapshots are never read
        "TUNE_MAX_PENDING_TRIALS_PG": str(count),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
        "TUNE_WARN_THRESHOLD_S": "1000000000",
    }
    logger = logging.getLogger("ray")
    before = logger.level
    with environment(switches):
        logger.setLevel(logging.CRITICAL)  # the study stores lost workers with their reason
        try:
            yield
        finally:
            logger.setLevel(before)
