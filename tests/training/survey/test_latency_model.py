"""Predicted latency: it recovers a closed form, is calibrated, and only refuses students clearly above a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autodistill.core.errors import InfeasibleError
from autodistill.core.records import Constraint, LatencyTarget, SurveyRow, certain
from autodistill.training.costs.cost_memory import FEATURES, LATENCY, CostMemory
from autodistill.training.costs.counts import known_costs
from autodistill.training.students import build as students
from autodistill.training.survey.latency_model import LEAST, LatencyModel, Prediction
from autodistill.training.survey.predicted_costs import UnsurveyedCosts, fitted

SHAPE = {"image_size": 8, "channels": 1}
FAMILIES = ("a", "b")


def drawn(count: int, seed: int = 0) -> tuple[list[str], list[dict[str, float]]]:
    rng = np.random.default_rng(seed)
    features = []
    for _ in range(count):
        macs = float(np.exp(rng.uniform(12, 18)))
        features.append({
            "params": macs / float(rng.uniform(20, 200)), "macs": macs, "activations": macs / 30,
            "operations": float(rng.integers(20, 120)),
        })  # fmt: skip
    return [FAMILIES[i % 2] for i in range(count)], features


def truth(family: str, one: dict[str, float]) -> float:
    """Milliseconds: an overhead per operation, plus arithmetic at a rate that depends on the family."""
    return 0.005 * one["operations"] + one["macs"] / (2e7 if family == "a" else 1e7)


def surveyed(count: int = 60, noise: float = 0.0) -> LatencyModel:
    families, features = drawn(count)
    rng = np.random.default_rng(1)
    factor = np.exp(noise * rng.standard_normal(count))
    return LatencyModel(
        families, features, [truth(f, x) * k for f, x, k in zip(families, features, factor, strict=True)]
    )


def test_a_start_per_operation_and_a_rate_per_family_are_found_again() -> None:
    model = surveyed()
    errors = [abs(model.predict(f, x).ms / truth(f, x) - 1) for f, x in zip(*drawn(40, seed=7), strict=True)]
    assert np.median(errors) < 0.03
    trust = model.leave_one_out()
    assert trust.students == 60
    assert trust.median_error < 0.03


def test_error_bars_are_those_of_the_noise_and_cover_what_they_should() -> None:
    model = surveyed(80, noise=0.1)
    pairs = list(zip(*drawn(60, seed=7), strict=True))
    found = [model.predict(f, x) for f, x in pairs]
    assert np.median([one.deviation for one in found]) == pytest.approx(0.1, rel=0.4)
    assert model.leave_one_out().covered >= 0.85
    assert (
        np.mean([abs(np.log(p.ms / truth(f, x))) <= 2 * p.deviation for p, (f, x) in zip(found, pairs, strict=True)])
        > 0.9
    )


def test_leaving_one_out_is_what_refitting_without_it_gives() -> None:
    families, features = drawn(LEAST + 8)
    latencies = [truth(f, x) for f, x in zip(families, features, strict=True)]
    model = LatencyModel(families, features, latencies)
    errors = []
    for row in range(len(latencies)):
        others = [i for i in range(len(latencies)) if i != row]
        process = model._process.__class__(model._process.kernel_, optimizer=None, alpha=model._process.alpha)
        y = (model._targets - model._process._y_train_mean) / model._process._y_train_std
        process.fit(model._inputs[others], y[others])
        guess = process.predict(model._inputs[[row]])[0] * model._process._y_train_std + model._process._y_train_mean
        errors.append(abs(np.expm1(guess - model._targets[row])))
    trust = model.leave_one_out()
    assert trust.median_error == pytest.approx(np.quantile(errors, 0.5), rel=1e-3, abs=1e-6)
    assert trust.p90_error == pytest.approx(np.quantile(errors, 0.9), rel=1e-3, abs=1e-6)


def test_far_from_the_survey_and_in_unknown_families_the_bar_is_wide() -> None:
    model = surveyed()
    families, features = drawn(1, seed=3)
    near = model.predict(families[0], features[0]).deviation
    far = model.predict(families[0], {name: value * 1e6 for name, value in features[0].items()}).deviation
    unknown = model.predict("c", features[0]).deviation
    assert far > 5 * near
    assert unknown > near


def test_the_least_likely_latency_is_two_deviations_below_the_prediction() -> None:
    predicted = Prediction(10.0, 0.1)
    assert predicted.at_least() == pytest.approx(10 * np.exp(-0.2))
    assert str(predicted) == "10 ms ± 11%"


def test_too_few_students_predict_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"):
        surveyed(LEAST - 1)
    assert fitted([], SHAPE, 3, CostMemory(tmp_path)) is None


class Fixed:
    """A latency model with a constant prediction."""

    def __init__(self, ms: float, deviation: float) -> None:
        self.prediction = Prediction(ms, deviation)

    def predict(self, family: str, features: Any) -> Prediction:
        assert set(FEATURES) <= set(features)
        return self.prediction


@pytest.mark.parametrize(("ms", "refused"), [(4.9, False), (5.5, False), (6.0, False), (6.2, True), (60.0, True)])
def test_a_student_is_refused_on_its_prediction_only_when_clearly_over(ms: float, refused: bool) -> None:
    costs = UnsurveyedCosts(
        ["params", LATENCY], SHAPE, 3, target=LatencyTarget(), memory=CostMemory(None),
        model=Fixed(ms, 0.1), constraints=(Constraint(LATENCY, "<=", 5.0), Constraint("params", "<=", 1.0)),
    )  # fmt: skip
    student = {"family": "resnet", "width": 2}
    if refused:
        with pytest.raises(InfeasibleError, match=r"predicted at .* ms ± 11%, the constraint is latency_ms <= 5"):
            costs(student)
    else:
        model = students.build_student(student, **SHAPE, num_classes=3)
        found = costs(student)
        assert certain(found) == known_costs(model, **SHAPE, metrics=["params"])
        assert found[LATENCY] == ms
        assert found[LATENCY].deviation == 0.1


def test_a_survey_is_fitted_without_its_noisy_rows_and_counts_are_remembered() -> None:
    memory, target = CostMemory(None), LatencyTarget()
    families, features = drawn(LEAST + 2)
    rows = []
    for index, (family, one) in enumerate(zip(families, features, strict=True)):
        student = {"family": family, "index": index}
        memory.put(memory.key(student, SHAPE, 3), one, target)
        rows.append(SurveyRow(student, {LATENCY: truth(family, one)}, noisy=index == 0))
    rows.append(SurveyRow({"family": "a"}, error="cannot be built"))
    model = fitted(rows, SHAPE, 3, memory)
    assert model is not None
    assert model.leave_one_out().students == LEAST + 1
    costs = UnsurveyedCosts(["params", LATENCY], SHAPE, 3, target=target, memory=memory, model=model)
    student = {"family": families[0], "index": 0}
    found = costs(student)
    assert certain(found) == {"params": features[0]["params"]}
    assert found[LATENCY] == pytest.approx(truth(families[0], features[0]), rel=0.5)


def test_a_latency_that_was_measured_before_is_no_estimate() -> None:
    memory, target, student = CostMemory(None), LatencyTarget(), {"family": "resnet", "width": 2}
    costs = UnsurveyedCosts(["params", LATENCY], SHAPE, 3, target=target, memory=memory, model=Fixed(1.0, 0.1))
    memory.put(memory.key(student, SHAPE, 3), {LATENCY: 0.7}, target)
    assert certain(costs(student))[LATENCY] == 0.7
    assert LATENCY not in UnsurveyedCosts(["params"], SHAPE, 3, target=target, memory=memory)(student)


def test_a_table_of_latencies_says_which_students_there_are(tmp_path: Path) -> None:
    (tmp_path / "phone.csv").write_text("family,width,latency_ms\nresnet,2,3.5\n")
    target = LatencyTarget(table=str(tmp_path / "phone.csv"))
    costs = UnsurveyedCosts(["params", LATENCY], SHAPE, 3, target=target, memory=CostMemory(None), model=Fixed(1, 0.1))
    assert certain(costs({"family": "resnet", "width": 2}))[LATENCY] == 3.5
    with pytest.raises(InfeasibleError, match="is not in"):
        costs({"family": "resnet", "width": 4})
