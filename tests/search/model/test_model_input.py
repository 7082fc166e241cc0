import numpy as np
import pytest

from autodistill.core.records import Objective
from autodistill.search.model import front_model as model
from autodistill.search.model.front_model import Model
from autodistill.search.model.gaussian_process import typical_length
from autodistill.search.model.model_input import BEYOND, FIDELITY, REFERENCE_QUANTILE, CandidateBatch, ModelInput
from autodistill.search.model.observations import Observations
from autodistill.search.space.encoding import Encoder
from autodistill.search.space.space import Space

SPACE = Space.parse({"student": {"width": {"values": [4, 8, 16, 32, 64]}}, "train": {"lr": {"low": 0.1, "high": 1.0}}})
ENCODER = Encoder.of(SPACE)
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
)
RUNGS = (1.0, 3.0, 9.0)


def pool(widths, lr=0.5):
    values = [{"student.width": w, "train.lr": lr} for w in widths]
    return CandidateBatch.of(values, [{"params": 100.0 * w} for w in widths], ENCODER)


def observed(rows):
    """Rows of (trial, width, lr, accuracy, epochs); epochs 9 is the top rung."""
    owners, widths, rates, accuracy, epochs = map(np.array, zip(*rows, strict=True))
    values = [{"student.width": int(w), "train.lr": float(r)} for w, r in zip(widths, rates, strict=True)]
    full = epochs == RUNGS[-1]
    return Observations(
        ENCODER.encode(values), np.stack([accuracy, 100.0 * widths], axis=1), np.zeros((len(rows), 0)),
        np.where(full, np.nan, epochs), full,
        np.zeros(len(rows), dtype=bool), owners,
    )  # fmt: skip


def model_input(seen, **keys):
    return ModelInput(OBJECTIVES, ("params",), ENCODER, seen, sample=pool([4, 8, 16, 32, 64]), **keys)


def gain_of(candidates, accuracy, deviation, seen, **keys):
    """Expected gain of candidates that are believed to reach ``accuracy``."""
    here = model_input(seen, **keys)
    made = Model(here.data(seen), here, thetas={}, optimize=False, rng=np.random.default_rng(0))
    mean = here.known(candidates.costs)
    mean[:, 0] = model.warp(here.axes[0].scale(accuracy))
    spread = np.zeros_like(mean)
    spread[:, 0] = deviation
    return made.gain(mean, spread)


FULL = [(i, w, 0.2 + 0.1 * i, a, 9.0) for i, (w, a) in enumerate([(4, 0.5), (8, 0.6), (16, 0.7), (32, 0.72), (4, 0.4)])]


def test_the_costliest_student_may_add_to_the_front():
    seen = observed(FULL)
    here = model_input(seen)
    assert here.known([{"params": 6400.0}])[0, 1] == pytest.approx(np.log(16) / np.log(16 * 1.1))
    assert gain_of(pool([64]), [0.8], 1e-9, seen)[0] > 0


def test_the_reference_is_a_quantile_of_the_first_trials_at_their_highest_rung():
    rng = np.random.default_rng(0)
    rows, last = [], []
    for trial in range(30):
        curve = np.sort(rng.random(3))
        reached = 3 if trial % 4 == 0 else 1  # some go to the top, which makes them no better evidence about the rest
        rows += [(trial, 8, 0.5, curve[i], RUNGS[i]) for i in range(reached)]
        last.append(curve[reached - 1])
    rng.shuffle(rows)
    for first in (7, 10):
        axis = model_input(observed(rows), rungs=RUNGS, first=first).axes[0]
        assert axis.reference == pytest.approx(1 - np.quantile(1 - np.array(last[:first]), REFERENCE_QUANTILE))
        assert axis.best == pytest.approx(max(row[3] for row in rows))


def test_a_cheap_student_adds_what_it_dominates_up_to_the_reference_and_nothing_beyond():
    seen = observed(FULL[1:4])  # nothing as cheap yet
    here = model_input(seen)
    cheap, next_one = here.known([{"params": 400.0}, {"params": 1600.0}])[:, 1]  # that of 800 lies beyond itself
    losses = [0.9, 1.1]
    found = gain_of(pool([4, 4]), [here.axes[0].raw(loss) for loss in losses], 1e-9, seen)
    assert found == pytest.approx([(1 - losses[0]) * (next_one - cheap), 0.0], abs=1e-9)


def test_known_costs_that_are_no_objectives_are_inputs_and_a_missing_one_is_neutral():
    costs = [{"params": 400.0, "macs": 1e3}, {"params": 6400.0, "macs": 1e5}]
    sample = CandidateBatch.of([{"student.width": w, "train.lr": 0.5} for w in (4, 64)], costs, ENCODER)
    seen = observed(FULL)
    seen.hints = np.array([[1e3], [1e4], [1e5], [np.nan], [1e4]])
    here = ModelInput(OBJECTIVES, ("params", "macs"), ENCODER, seen, sample=sample)
    assert here.hints == ("macs",)
    assert here.inputs([{"params": 400.0, "macs": 1e4}, {"params": 400.0}])[:, 1] == pytest.approx([0.5, 0.5])
    data = here.data(seen)
    assert data.features[:, -1] == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.5])
    assert here.groups == (0, 1, 2, 3)
    assert data.losses.shape == (5, 2)


def test_length_scales_are_those_of_as_many_dimensions_as_a_student_has():
    families = {f"f{i}": {"width": [1, 2, 3], "depth": [1, 2, 3]} for i in range(9)}
    space = Space.parse({"student": {"family": list(families), **families}, "train": {"lr": {"low": 0.1, "high": 1.0}}})
    encoder, rng = Encoder.of(space), np.random.default_rng(0)
    sample = CandidateBatch.of(
        [space.sample(rng) for _ in range(40)], [{"params": 1.0 + i} for i in range(40)], encoder
    )
    empty = np.zeros(0)
    seen = Observations(encoder.encode([]), np.zeros((0, 2)), np.zeros((0, 0)), empty, empty > 0, empty > 0, empty)
    seen = seen.join(Observations(
        sample.params[:3], np.array([[0.5, 1.0], [0.6, 2.0], [0.7, 3.0]]), np.zeros((3, 0)), np.full(3, np.nan),
        np.ones(3, dtype=bool), np.zeros(3, dtype=bool), np.arange(3),
    ))  # fmt: skip
    plain = ModelInput(OBJECTIVES, ("params",), encoder, seen, sample=sample)
    assert plain.lengths == pytest.approx(np.full(21, typical_length(4 + 1)))  # family, width, depth, lr; params
    with_rungs = ModelInput(OBJECTIVES, ("params",), encoder, seen, sample=sample, rungs=RUNGS)
    assert with_rungs.lengths[:-1] == pytest.approx(np.full(21, typical_length(4 + 2)))
    assert with_rungs.lengths[-1] == pytest.approx(FIDELITY * typical_length(4 + 2))


def test_the_prior_mean_makes_cheaper_students_worse():
    seen = observed(FULL)
    here = model_input(seen)
    trend = lambda cost: np.log(1 + model.SHIFT) * (1 - cost)  # noqa: E731 - from the reference down to the best
    data = here.data(seen)
    data.losses[:, 0] = model.unwarp(trend(data.losses[:, 1]))  # as the prior mean has it: nothing is left to learn
    made = Model(data, here, thetas={}, optimize=False, rng=np.random.default_rng(0))
    candidates = pool([4, 16, 64], lr=0.9)
    known = here.known(candidates.costs)
    features = here.features(candidates.params, here.inputs(candidates.costs))
    mean, _ = made.predict(features, known, np.zeros_like(known))
    assert mean[:, 0] == pytest.approx(trend(known[:, 1]), abs=1e-6)


def test_the_prior_mean_is_of_what_is_to_be_large():
    seen = observed(FULL)
    small = (Objective("seconds", "minimize", "s", "trained"), OBJECTIVES[1])
    for objectives, expected in ((OBJECTIVES, (0,)), (small, ())):
        here = ModelInput(objectives, ("params",), ENCODER, seen, sample=pool([4, 64]))
        assert here.quality == expected
        made = Model(here.data(seen), here, thetas={}, optimize=False, rng=np.random.default_rng(0))
        assert bool(made._capacity(0, here.data(seen).losses).any()) == bool(expected)


def test_a_warped_loss_comes_back_and_differences_beyond_the_reference_count_least():
    losses = np.array([-0.5, 0.0, 0.3, 1.0, 1.5, 3.0])
    warped = model.warp(losses)
    assert model.unwarp(warped) == pytest.approx(losses)
    assert warped[1:4] == pytest.approx(np.log(losses[1:4] + model.SHIFT))
    assert warped[5] == pytest.approx(np.log(1 + 0.3 * np.log1p(2 / 0.3) + 1))
    slopes = np.diff(warped) / np.diff(losses)
    assert (np.diff(slopes) < 0).all()


def test_what_falls_short_of_a_bound_is_no_gain():
    seen, bounds = observed(FULL), {"accuracy": 0.65}
    assert gain_of(pool([8]), [0.63], 1e-9, seen)[0] > 0.01
    assert gain_of(pool([8]), [0.63], 1e-9, seen, bounds=bounds)[0] == pytest.approx(0.0, abs=1e-9)
    assert gain_of(pool([8]), [0.69], 1e-9, seen, bounds=bounds)[0] > 0.01


def test_a_bound_below_the_reference_changes_nothing():
    seen = observed(FULL)
    assert model_input(seen, bounds={"accuracy": 0.3}).axes == model_input(seen).axes


@pytest.mark.parametrize("bound", [0.7199, 0.72, 0.9])
def test_an_axis_keeps_a_length_where_hardly_a_trial_is_within_the_bound(bound):
    seen = observed(FULL)
    free, axis = model_input(seen).axes[0], model_input(seen, bounds={"accuracy": bound}).axes[0]
    assert axis.reference == min(bound, 0.72)  # without a trial within it, whatever comes nearer is a gain
    assert axis.best == pytest.approx(bound + BEYOND * (0.72 - free.reference))
    assert gain_of(pool([64]), [bound + 0.01], 1e-9, seen, bounds={"accuracy": bound})[0] > 0


def test_an_explanation_expects_no_accuracy_above_one_and_writes_counts_in_full():
    here = model_input(observed([(*row[:3], min(1.0, row[3] + 0.09), *row[4:]) for row in FULL]))
    best = model.warp(np.array([-5.0]))  # far beyond what can be
    said = here.explain(np.array([best[0], here.known([{"params": 20554.0}])[0, 1]]), np.array([0.2, 0.0]), 0.081)
    accuracy = float(said.split()[1])
    assert accuracy <= 1.0
    assert said.startswith("accuracy 1 ± ")
    assert ", params 20,554: may add 0.081 of" in said
