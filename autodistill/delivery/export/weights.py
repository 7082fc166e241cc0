"""Choice of the exported weights: those of the search's run, or those that ``verify`` trained and stored.

The search's weights were selected by their validation accuracy, so this accuracy is biased upwards. ``verify`` stores
the weights of each student's first new seed. They were not selected by a result, so their expected accuracy is the
verified mean. The run with the median accuracy would be as fair, but it needs the weights of all seeds on disk and a
validation split, which ``train+val`` does not leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from autodistill.core.errors import UsageError
from autodistill.core.records import TrialRecord

if TYPE_CHECKING:
    from torch import nn

    from autodistill.search.results.verified import VerifiedRow

Origin = Literal["search", "verified"]
WEIGHTS = ("auto", *get_args(Origin))
AUTO = "auto"


@dataclass(frozen=True)
class Source:
    """The training that exported weights come from.

    Attributes:
        origin: ``search``, or ``verified`` for a new seed of ``verify``.
        seed: seed of that training.
        accuracy: accuracy of exactly these weights on the test split; ``None`` for the search's, which are not tested.
        trained_on: ``train``, or ``train+val`` if the training included the validation images.
    """

    origin: Origin
    seed: int
    accuracy: float | None = None
    trained_on: str = "train"

    @property
    def words(self) -> str:
        """Description for users."""
        if self.origin == "search":
            return f"weights: of the search's own run, seed {self.seed}"
        extra = ", trained on the validation images too" if self.trained_on != "train" else ""
        return f"weights: of verify's first seed, {self.seed}, not selected by any result{extra}"

    def to_json(self) -> dict[str, Any]:
        """Return the source as a dictionary, for the provenance."""
        out: dict[str, Any] = {"from": self.origin, "seed": self.seed, "trained_on": self.trained_on}
        return out if self.accuracy is None else {**out, "test_accuracy": self.accuracy}


def source_of(directory: Path, trial: TrialRecord, wanted: str = AUTO) -> Source:
    """Choose the source of the weights of ``trial`` without loading them.

    Args:
        directory: folder of the study.
        trial: trial of the student.
        wanted: ``search``, ``verified``, or ``auto``: verified weights if ``verify`` stored them, else the search's.

    Raises:
        UsageError: the choice does not exist, or is ``verified`` for a variant or a trial that was not verified.
    """
    from autodistill.search.results.verified import read_verified, verified_folder
    from autodistill.training.trials.run_result import read_result

    if wanted not in WEIGHTS:
        raise UsageError(f"weights is {wanted!r}; allowed: {', '.join(WEIGHTS)}.")
    if trial.variant != "fp32":  # the file of a variant was made from the search's weights
        if wanted == "verified":
            raise UsageError(
                f"trial {trial.number} was selected in its {trial.variant} form, but verify trains and measures fp32 "
                f"only; allowed: auto, search. For the verified weights, give --trial {trial.number} (and --formats)."
            )
        return Source("search", trial.seed)
    found = read_verified(directory)
    row = next((one for one in found.students if one.trial == trial.number), None) if found else None
    if wanted == "search" or (wanted == AUTO and (row is None or not row.weights)):
        return Source("search", trial.seed)
    folder = verified_folder(directory, trial.number)
    assert found is not None
    assert row is not None
    result = read_result(folder)
    return Source("verified", row.seeds[0], None if result is None else result.accuracy, found.refit)


def take_weights(directory: Path, trial: TrialRecord, source: Source) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network with the weights of ``source``, and its facts as in ``student_facts``.

    Raises:
        StoreError: the weights are missing or damaged.
    """
    from autodistill.search.results.verified import verified_folder
    from autodistill.training.trials.retraining import load_run
    from autodistill.training.trials.trial_files import load_student, student_facts

    if source.origin == "verified":
        return load_run(verified_folder(directory, trial.number))
    return load_student(directory, trial.number), student_facts(directory, trial.number)


def verified_note(source: Source, row: VerifiedRow) -> str:
    """Return the model card's note on the origin of the weights, shown with verified figures."""
    if source.origin == "search":
        return (
            f"**Weights in this folder:** those of the search's own run (seed {source.seed}), which were not measured "
            "on the test images. The mean and the interval above are the expected accuracy of a run of this recipe."
        )
    own = "" if source.accuracy is None else f" They classify {source.accuracy:.4f} of the test images correctly."
    extra = " The validation images were trained on too." if source.trained_on != "train" else ""
    return (
        f"**Weights in this folder:** those of the first of these {len(row.seeds)} trainings (seed {source.seed}), "
        f"which was fixed before any result was known.{own}{extra}"
    )
