"""Features of a frozen backbone, computed once per image and view, in a teacher cache on disk.

The cache survives crashes and is shared by all processes: a stopped run continues where it was, and another head, seed
or length on the same images costs no forward pass. ``autodistill cache ls`` lists it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autodistill.core.errors import InterruptedTrialError
from autodistill.core.records import stable_key
from autodistill.training.augmentation import policy as views
from autodistill.training.augmentation.policy import Policy
from autodistill.training.data.datasets import ImageData, Split
from autodistill.training.teachers.cache.cache import CacheKey, TeacherCache
from autodistill.training.trials.frozen.backbone import Backbone

BATCH = 64
"""Images per forward pass; more are no faster on a CPU and take more memory."""

Floats = NDArray[np.float32]


class FeatureStore:
    """Features of one backbone for the images of one data set.

    Args:
        backbone: the frozen network.
        data: the images.
        root: folder of all caches.
        seed: seed of the views.
        megabytes: largest size of each cache on disk.
        should_stop: function called between batches; if it returns true, the work is stopped.
        progress: function called as ``progress(images done)`` after each batch.

    Attributes:
        computed: number of images for which the network was run.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: ImageData,
        root: Path,
        *,
        seed: int,
        megabytes: int,
        should_stop: Callable[[], bool],
        progress: Callable[[int], None],
    ) -> None:
        self._backbone, self._data, self._root, self._seed = backbone, data, root, seed
        self._bytes, self._should_stop, self._progress = megabytes * 2**20, should_stop, progress
        self._done = self.computed = 0

    def of(self, split: Split, policy: Policy, view: int) -> Floats:
        """Return the features ``(n, width)`` of one view of the images of a split.

        Raises:
            InterruptedTrialError: a stop was requested; what is done is kept.
            TeacherError: a feature is not finite.
            ResourceError: the disk is full.
        """
        out = np.empty((len(split), self._backbone.width), dtype=np.float32)
        with self._cache(policy, view + 1) as cache:
            for start in range(0, len(split), BATCH):
                if self._should_stop():
                    raise InterruptedTrialError("stopped while features were computed; they are kept.")
                rows = slice(start, start + BATCH)
                found = cache.fetch(torch.from_numpy(split.ids[rows]), view, self._computer(split, rows, policy, view))
                assert found[1] is not None
                out[rows] = found[1].numpy()
                self._done += len(split.ids[rows])
                self._progress(self._done)
            self.computed += cache.forwards
        return out

    def _cache(self, policy: Policy, count: int) -> TeacherCache:
        facts = [self._data.fingerprint, "features"]  # not taken for a cache of logits of the same images
        expects = self._backbone.input
        key = CacheKey(
            stable_key(facts), self._backbone.teacher.fingerprint, policy.view_key(), self._seed, repr(expects)
        )
        return TeacherCache.open(
            self._root,
            key,
            images=self._data.pool_size,
            classes=1,
            views=count,
            embedding=self._backbone.width,
            max_bytes=self._bytes,
        )

    def _computer(self, split: Split, rows: slice, policy: Policy, view: int) -> Any:
        places = {int(name): row for row, name in enumerate(split.ids[rows].tolist(), rows.start)}

        def compute(ids: Tensor) -> tuple[Tensor, Tensor]:
            chosen = np.array([places[name] for name in ids.tolist()])
            raw = torch.from_numpy(np.ascontiguousarray(split.images[chosen])).to(self._backbone.teacher.device)
            pixels = views.apply(policy, raw, ids.to(raw.device), view, self._seed)
            return torch.zeros(len(ids), 1), self._backbone.features(pixels)

        return compute
