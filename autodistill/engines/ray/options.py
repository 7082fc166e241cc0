"""Keywords of the engine ``ray``, without importing Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RayOptions:
    """Keywords of ``search(engine="ray", …)``.

    Attributes:
        address: ``host:port`` of a cluster, or ``auto``; ``None``: ``RAY_ADDRESS``, else a private Ray on this machine.
        cpus_per_worker: Cores per worker; ``None``: the threads of its slot.
        gpus_per_worker: GPUs per worker, a fraction to share one; ``None``: as the slots share this machine's GPUs.
        trust_network: Whether a Ray without authentication is allowed.
        storage: Folder or URL supported by pyarrow, for checkpoints, students and Tune's logs; workers then need no
            access to the study's folder. ``None``: workers use that folder, and Tune keeps no files.
        callbacks: Further Tune callbacks, e.g. Ray's loggers for TensorBoard, MLflow or W&B.
    """

    address: str | None = None
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None
    trust_network: bool = False
    storage: str | None = None
    callbacks: Sequence[Any] = ()
