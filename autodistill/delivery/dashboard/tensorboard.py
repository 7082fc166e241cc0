"""TensorBoard log of ``search --tensorboard``: one run per trial, rungs as scalars, settings and result as hparams.

The driver process writes it from the study's records, so it works with every engine and does not slow workers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodistill.core.errors import ResourceError
from autodistill.core.records import State, TrialRecord

FOLDER = "tensorboard"
_ENDED = (State.COMPLETE, State.PRUNED, State.FAIL)


class TensorBoard:
    """Updates a folder of event files from a study.

    Args:
        folder: folder of the log, with one subfolder per trial.
        trials: existing trials of the study; rungs that an earlier search has logged are not logged again.

    Raises:
        ResourceError: the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path, trials: Sequence[TrialRecord] = ()) -> None:
        self._writer = _writer_class()
        self._folder = folder
        self._rungs: dict[int, int] = {}
        self._ended: set[int] = set()
        for trial in trials:
            if self._run(trial).is_dir():
                self._rungs[trial.number] = max(trial.rungs, default=-1)
                if trial.state in _ENDED:
                    self._ended.add(trial.number)

    def sync(self, trials: Sequence[TrialRecord]) -> None:
        """Log the rungs and final results that are new since the last call."""
        for trial in trials:
            if trial.number in self._ended:
                continue
            known = self._rungs.get(trial.number, -1)
            fresh = [rung for rung in trial.rungs if rung > known]
            ended = trial.state in _ENDED
            if not fresh and not (ended and trial.rungs):
                continue
            writer = self._writer(log_dir=str(self._run(trial)))
            for rung in fresh:
                for name, value in _scalars(trial, rung).items():
                    writer.add_scalar(name, value, global_step=round(trial.rungs[rung].get("epochs", 0)))
            if ended:
                writer.add_hparams(_settings(trial), _result(trial), run_name=".")
                self._ended.add(trial.number)
            writer.close()
            self._rungs[trial.number] = max(trial.rungs)

    def _run(self, trial: TrialRecord) -> Path:
        return self._folder / f"trial-{trial.number:05d}"


def _writer_class() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package uses deprecated names
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ResourceError(
            "--tensorboard needs the package tensorboard, which is not installed: pip install tensorboard."
        ) from None
    return SummaryWriter


def _scalars(trial: TrialRecord, rung: int) -> dict[str, float]:
    """Return the values of a rung by tag; known costs have the prefix ``cost/``."""
    prefix = "cost/" if rung == 0 else ""
    skipped = ("epochs", "seconds") if rung == 0 else ("epochs",)
    known = trial.rungs.get(0, {})
    values = {k: float(v) for k, v in trial.rungs[rung].items() if k not in skipped}
    return {f"{prefix}{k}": v for k, v in values.items() if rung == 0 or k not in known or k == "seconds"}


def _settings(trial: TrialRecord) -> dict[str, bool | str | float | int]:
    out: dict[str, bool | str | float | int] = {"state": trial.state.value, "reason": trial.reason}
    for section in ("student", "distillation", "train"):
        for key, value in getattr(trial, section).items():
            out[f"{section}.{key}"] = value if isinstance(value, (bool, str, float, int)) else str(value)
    return out


def _result(trial: TrialRecord) -> dict[str, float]:
    """Return the values of the highest rung, with the objectives of a COMPLETE trial."""
    last = {**trial.rungs.get(0, {}), **trial.rungs[max(trial.rungs)], **trial.values}
    return {f"result/{name}": float(value) for name, value in last.items()}
