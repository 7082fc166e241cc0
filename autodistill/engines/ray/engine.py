"""Engine ``ray``: Ray Tune over the passive study, on a private Ray of this machine or on a cluster.

The study is asked through a Tune searcher and reported to through a Tune scheduler; Tune's own state is never read
back, so a study begun here goes on under ``local`` and the other way round. Either every node sees the study's folder,
or teacher and checkpoints travel through a storage (``home.py``).
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


def run(
    study: Driven,
    factory: EvaluateFactory,
    slots: Sequence[Slot],
    watch: Watch,
    *,
    address: str | None = None,
    cpus_per_worker: float | None = None,
    gpus_per_worker: float | None = None,
    trust_network: bool = False,
    storage: str | None = None,
    callbacks: Sequence[Any] = (),
) -> None:
    """Drive the study until it has no more candidates or is asked to stop.

    Args:
        study: what is searched.
        factory: builds the evaluator, once per worker.
        slots: one worker each, anywhere on the cluster.
        watch: progress and the wish to stop.
        address: ``host:port`` of a cluster, or ``auto``; ``None``: ``RAY_ADDRESS``, else a private Ray on this machine.
        cpus_per_worker: cores that each worker asks for; ``None``: its slot's threads.
        gpus_per_worker: GPUs likewise, a fraction shares one; ``None``: as the slots share this machine's GPUs.
        trust_network: allow a Ray without authentication.
        storage: folder or URL that pyarrow knows, for checkpoints, students and Tune's own logs: then no worker needs
            the study's folder. ``None``: they use that folder, and Tune keeps nothing.
        callbacks: Tune callbacks of your own, e.g. Ray's loggers for TensorBoard, MLflow or W&B.

    Raises:
        ResourceError: Ray is missing, no cluster answers, or it has no room for the workers.
        UsageError: authentication is off, the evaluate function cannot be sent, or workers keep dying.
    """
    share = resources_of(slots, cpus_per_worker, gpus_per_worker)
    with cluster(slots, share, address=address, trust_network=trust_network), contextlib.ExitStack() as stack:
        context = _context(slots, share)
        if storage is not None:
            context = replace(context, storage=stack.enter_context(workers_elsewhere(study, factory, storage)))
        stack.enter_context(_quiet(len(slots)))
        _drive(study, factory, context, watch, _Tune(len(slots), share, storage, callbacks))


def _context(slots: Sequence[Slot], share: WorkerResources) -> WorkerContext:
    """What every worker is told; Ray numbers the GPUs that a worker may see from 0."""
    together = len(slots[0].devices) or 1
    devices = tuple(f"cuda:{i}" if share.gpus else "cpu" for i in range(together))
    return WorkerContext(0, devices[0], max(slot.threads for slot in slots), devices=devices if together > 1 else ())


@dataclass(frozen=True)
class _Tune:
    """How Tune is run: number of workers, what each asks for, where its own logs go, callbacks of the user."""

    workers: int
    share: WorkerResources
    storage: str | None
    callbacks: Sequence[Any]


def _drive(study: Driven, factory: EvaluateFactory, context: WorkerContext, watch: Watch, how: _Tune) -> None:
    import ray
    from ray import tune

    from autodistill.engines.ray import tune as shapes
    from autodistill.engines.ray.worker import make_trainable

    try:
        mailbox, name = shapes.make_mailbox(factory)
    except Exception as error:  # whatever pickling could not send: PicklingError, AttributeError, TypeError
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
                callbacks=[*how.callbacks, shapes.BridgeCallback(bridge, mailbox)],
                stop=shapes.BridgeStopper(bridge),
                storage_path=scratch if how.storage is None else url_of(how.storage),
                reuse_actors=True,
                max_failures=0,  # a lost node is made good by the desk, from the study's own checkpoint
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
    """Tune without its own signal handler, snapshots, default loggers and tables; as many starts at once as slots."""
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
        logger.setLevel(logging.CRITICAL)  # a lost worker is in the study, with its reason
        try:
            yield
        finally:
            logger.setLevel(before)
