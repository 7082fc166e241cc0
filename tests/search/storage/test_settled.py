"""One architecture has one latency: a noisy measurement gives way to a settled one, wherever trials are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from toys import LEVELS, make_study

from autodistill.core.records import Candidate, Report
from autodistill.search.model.observations import ObservationStore
from autodistill.search.results.front import Front
from autodistill.search.space.encoding import Encoder
from autodistill.search.study.study import Study

WIDTH = 16
TOP = len(LEVELS)


def finish(study: Study, accuracy: float, latency: float, *, noisy: bool, width: int = WIDTH, int8: float = 0) -> int:
    """Train one student of this width to the top; each call has a learning rate of its own."""
    study.enqueue({"student": {"width": width}, "train": {"lr": accuracy}})
    with study.running(f"{len(study.trials()) + 1}trials"):
        candidate = study.ask()
        assert isinstance(candidate, Candidate)
        known = {"params": float(width), "latency_ms": latency}
        study.report(candidate, Report(0, known, noisy=noisy))
        for rung, epochs in enumerate(LEVELS, 1):
            values = {**known, "accuracy": accuracy}
            form = {"int8": {"values": {**values, "latency_ms": int8}, "noisy": noisy}} if int8 and rung == TOP else {}
            study.report(candidate, Report(rung, values, float(epochs), variants=form, noisy=noisy))
        study.close(candidate)
    return candidate.number


def latencies(study: Study) -> list[float]:
    return [trial.values["latency_ms"] for trial in study.trials()]


def test_a_noisy_latency_gives_way_to_the_one_that_a_later_trial_settles(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    finish(study, 0.3, 0.44, noisy=True)
    finish(study, 0.4, 0.53, noisy=True)
    finish(study, 0.5, 0.58, noisy=False)
    finish(study, 0.45, 0.7, noisy=True, width=32)
    for one in (study, Study.open(tmp_path) if (tmp_path / "study.yaml").exists() else study):
        assert latencies(one) == [0.58, 0.58, 0.58, 0.7]
        assert [trial.noisy for trial in one.trials()] == [False, False, False, True]
        assert [trial.number for trial in one.front().trials] == [2]  # one network, one row
    assert all(trial.rungs[rung]["latency_ms"] == 0.58 for trial in study.trials()[:3] for rung in trial.rungs)


def test_without_a_settled_latency_the_smallest_of_an_architecture_counts(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    finish(study, 0.3, 0.44, noisy=True)
    finish(study, 0.5, 0.58, noisy=True)
    assert latencies(study) == [0.44, 0.44]
    assert all(trial.noisy for trial in study.trials())
    assert len(study.front()) == 1


def test_variants_settle_by_their_form(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    finish(study, 0.3, 0.44, noisy=True, int8=0.2)
    finish(study, 0.4, 0.58, noisy=False, int8=0.3)
    first = study.trials()[0].variants["int8"]
    assert (first["values"]["latency_ms"], first["noisy"]) == (0.3, False)
    assert {(t.variant, t.values["latency_ms"]) for t in Front.of("", study.objectives, study.trials()).trials} <= {
        ("fp32", 0.58),
        ("int8", 0.3),
    }


def test_the_sampler_goes_by_the_settled_latency(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    names = tuple(o.name for o in study.objectives)
    growing = ObservationStore(study.space, Encoder.of(study.space), names, lambda values: {}, LEVELS)
    for accuracy, latency, noisy in ((0.3, 0.44, True), (0.4, 0.53, True), (0.5, 0.58, False)):
        finish(study, accuracy, latency, noisy=noisy)
        growing.update(study._log.stored())
    whole = ObservationStore(study.space, Encoder.of(study.space), names, lambda values: {}, LEVELS)
    whole.update(study.optuna.get_trials(deepcopy=False))
    for store in (growing, whole):
        measured = store.observations().raw[:, names.index("latency_ms")]
        np.testing.assert_array_equal(measured, np.full(len(measured), 0.58))
        assert {o.final["latency_ms"] for o in store.closed.values()} == {0.58}
