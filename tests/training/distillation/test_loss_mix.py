"""The loss mix: parsing, the total, calibration to the task loss and its state."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.distillation.distillation_losses import losses
from autodistill.training.distillation.embedding_losses import projector
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.distillation.loss_terms import LossTerms, TermScale, task_loss


def batch(seed: int = 0, size: int = 16, classes: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(size, classes, generator=generator).requires_grad_()
    teacher = torch.randn(size, classes, generator=generator) * 3
    return student, teacher, torch.randint(0, classes, (size,), generator=generator)


def gradient(loss: Tensor, at: Tensor) -> Tensor:
    return torch.autograd.grad(loss, at, retain_graph=True)[0]


@pytest.mark.parametrize("mapping", [{"loss": "kd", "alpha": 0}, {"loss": "none"}, {"loss": "none", "alpha": 0.7}, {}])
def test_alpha_zero_is_cross_entropy_bit_for_bit(mapping) -> None:
    student, teacher, target = batch()
    values = LossTerms(LossMix.parse(mapping))(student, target, teacher)
    plain = F.cross_entropy(student, target)
    assert torch.equal(values.total, plain)
    assert torch.equal(gradient(values.total, student), gradient(plain, student))
    assert not LossMix.parse(mapping).uses_teacher


@pytest.mark.parametrize("name", [name for name in losses.names() if name != "none"])
def test_one_alpha_means_the_same_share_of_the_gradient_for_every_loss(name) -> None:
    student, teacher, target = batch()
    terms = LossTerms(LossMix.parse({"loss": name, "alpha": 1.0}))
    norm = gradient(terms(student, target, teacher).total, student).norm()
    assert norm.item() == pytest.approx(gradient(F.cross_entropy(student, target), student).norm().item(), rel=1e-4)


def test_the_total_is_the_weighted_sum_of_the_scaled_terms() -> None:
    student, teacher, target = batch()
    terms = LossTerms(LossMix.parse({"loss": "dkd", "alpha": 0.3, "beta": 2, "temperature": 3}))
    values = terms(student, target, teacher)
    expected = 0.7 * values.task + 0.3 * terms.scales["distillation"] * values.distillation
    assert values.total.item() == pytest.approx(expected.item(), rel=1e-6)
    raw = losses.get("dkd")(student, teacher, target, beta=2, temperature=3)
    assert torch.equal(values.distillation, raw.detach())


def test_the_scale_is_the_ratio_of_mean_norms_of_eight_batches_and_then_stays() -> None:
    terms, task_sum, term_sum = LossTerms(LossMix.parse({"loss": "logit_mse", "alpha": 0.5})), 0.0, 0.0
    for seed in range(8):
        assert terms.calibrating
        student, teacher, target = batch(seed)
        terms(student, target, teacher)
        task_sum += gradient(F.cross_entropy(student, target), student).norm().item()
        term_sum += gradient(F.mse_loss(student, teacher), student).norm().item()
    assert not terms.calibrating
    assert terms.scales["distillation"] == pytest.approx(task_sum / term_sum, rel=1e-5)
    before = terms.scales
    student, teacher, target = batch(99)
    terms(student * 50, target, teacher)
    assert terms.scales == before


def test_calibration_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    mix = LossMix.parse({"loss": "kd", "alpha": 0.5})
    straight, first, second = LossTerms(mix), LossTerms(mix), LossTerms(mix)
    for seed in range(10):
        if seed == 3:
            second.load_state_dict(first.state_dict())
        student, teacher, target = batch(seed)
        expected = straight(student, target, teacher).total
        assert torch.equal((first if seed < 3 else second)(student, target, teacher).total, expected)
    assert second.state_dict() == straight.state_dict()


def test_bug_15_the_state_is_plain_numbers_and_holds_no_teacher() -> None:
    student, teacher, target = batch()
    terms = LossTerms(LossMix.parse({"loss": "kd", "alpha": 0.5}))
    terms(student, target, teacher)
    state = terms.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert len(json.dumps(state)) < 200


def test_bug_16_the_projector_learns_and_measuring_leaves_no_gradient_on_any_parameter() -> None:
    head, project = nn.Linear(6, 10), projector("embed_cosine", 6, 9, seed=0)
    mix = LossMix.parse({"loss": "kd", "alpha": 0.5, "embedding": "embed_cosine"})
    embedding = torch.randn(16, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    _, teacher, target = batch()
    values = LossTerms(mix, project)(head(embedding), target, teacher, embedding, torch.ones(16, 9))
    assert all(p.grad is None for p in (*head.parameters(), *project.parameters()))
    values.total.backward()  # the graph is still there
    assert all(p.grad is not None for p in (*head.parameters(), *project.parameters()))


def test_an_embedding_term_is_calibrated_at_the_embedding() -> None:
    head = nn.Linear(6, 10)
    embedding = torch.randn(16, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    theirs = torch.randn(16, 4, generator=torch.Generator().manual_seed(4))
    _, _, target = batch()
    terms = LossTerms(LossMix.parse({"embedding": "rkd", "embedding_weight": 2, "embedding_angle_weight": 10}))
    logits = head(embedding)
    total = terms(logits, target, None, embedding, theirs).total
    task = gradient(F.cross_entropy(logits, target), embedding)
    assert (gradient(total, embedding) - task).norm().item() == pytest.approx(2 * task.norm().item(), rel=1e-4)


def test_a_compiled_student_with_logits_on_another_graph_is_refused_with_advice() -> None:
    terms = LossTerms(LossMix.parse({"embedding": "crd"}))
    student, _, target = batch()
    with pytest.raises(UsageError, match="uncompiled while LossTerms"):
        terms(student, target, None, torch.randn(16, 4).requires_grad_(), torch.ones(16, 4))


def test_a_student_equal_to_its_teacher_is_not_blown_up() -> None:
    student, _, target = batch()
    terms = LossTerms(LossMix.parse({"loss": "kd", "alpha": 0.5}))
    terms(student, target, student.detach() + 1e-7)
    assert terms.scales["distillation"] <= 1e3
    same = LossTerms(LossMix.parse({"loss": "logit_mse", "alpha": 0.5}))
    same(student, target, student.detach())
    assert same.scales["distillation"] == 1.0
    assert same.calibrating


def test_evaluation_without_gradients_neither_measures_nor_fails() -> None:
    student, teacher, target = batch()
    terms = LossTerms(LossMix.parse({"loss": "kd", "alpha": 0.5}))
    with torch.no_grad():
        values = terms(student.detach(), target, teacher)
    assert values.total.isfinite()
    assert terms.state_dict()["distillation"][0] == 0


def test_mixed_labels_and_label_smoothing_reach_the_task_loss() -> None:
    student, teacher, target = batch()
    mixed = 0.6 * F.one_hot(target, 10) + 0.4 * F.one_hot(target.roll(1), 10)
    values = LossTerms(LossMix.parse({"loss": "kd", "alpha": 0.5, "label_smoothing": 0.1}))(student, mixed, teacher)
    expected = F.cross_entropy(student, mixed, label_smoothing=0.1)
    assert torch.equal(values.task, expected.detach())


def test_task_loss_of_half_precision_logits_is_computed_in_single() -> None:
    student, _, target = batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(task_loss(student.half(), target), F.cross_entropy(student.half().float(), target))


def test_without_calibration_the_published_weights_hold() -> None:
    student, teacher, target = batch()
    terms = LossTerms(LossMix.parse({"loss": "logit_std", "calibrate": False}))
    values = terms(student, target, teacher)
    assert values.total.item() == pytest.approx((0.1 * values.task + 9 * values.distillation).item(), rel=1e-6)
    raw = LossMix.parse({"loss": "kd", "calibrate": False, "task_weight": 1, "distillation_weight": 2})
    values = LossTerms(raw)(student, target, teacher)
    assert values.total.item() == pytest.approx((values.task + 2 * values.distillation).item(), rel=1e-6)


def test_a_label_free_mix_needs_no_labels_and_others_say_so() -> None:
    student, teacher, _ = batch()
    mix = LossMix.parse({"loss": "soft_ce", "alpha": 1})
    assert not mix.uses_target
    assert torch.equal(LossTerms(mix)(student, None, teacher).total, losses.get("soft_ce")(student, teacher, None))
    with pytest.raises(UsageError, match="needs labels"):
        LossTerms(LossMix.parse({"loss": "kd", "alpha": 0.9}))(student, None, teacher)


def test_what_is_missing_is_named() -> None:
    student, _, target = batch()
    with pytest.raises(UsageError, match="loss 'kd' needs teacher_logits"):
        LossTerms(LossMix.parse({"loss": "kd"}))(student, target)
    with pytest.raises(UsageError, match="loss 'crd' needs student_embedding"):
        LossTerms(LossMix.parse({"embedding": "crd"}))(student, target)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"loss": "kdd"}, "unknown distillation loss 'kdd'; did you mean 'kd'"),
        (
            {"loss": "kd", "temprature": 4},
            "unknown key of distillation 'temprature'; did you mean 'temperature'",
        ),
        ({"loss": "kd", "beta": 4}, "unknown key of distillation 'beta'.*The loss is 'kd'"),
        ({"embedding": "rdk"}, "unknown embedding loss 'rdk'; did you mean 'rkd'"),
        ({"embedding": "rkd", "embedding_angle": 1}, "did you mean 'embedding_angle_weight'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(mapping, message) -> None:
    with pytest.raises(UnknownNameError, match=message):
        LossMix.parse(mapping)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"loss": "kd", "alpha": 1.5}, "distillation.alpha is 1.5; it must be a number from 0 to 1"),
        ({"loss": "kd", "alpha": "0.5"}, "distillation.alpha is '0.5'"),
        ({"loss": "kd", "alpha": float("nan")}, "distillation.alpha is nan"),
        ({"loss": "kd", "temperature": -4}, "temperature of loss 'kd' is -4"),
        ({"label_smoothing": True}, "label_smoothing is True"),
        ({"calibrate": "no"}, "calibrate is 'no'; it must be true or false"),
        ({"calibration_batches": 0}, "calibration_batches is 0; it must be an integer of at least 1"),
        ({"loss": "kd", "task_weight": 1}, "task_weight has no effect with calibrate: true"),
        ({"loss": "kd", "calibrate": False, "alpha": 0.5}, "alpha has no effect with calibrate: false"),
        ({"embedding_weight": 2}, "embedding_weight has no effect without an embedding term"),
    ],
)
def test_a_value_out_of_range_or_without_effect_is_refused(mapping, message) -> None:
    with pytest.raises(UsageError, match=message):
        LossMix.parse(mapping)


@given(
    alpha=st.floats(0, 1),
    temperature=st.floats(0.1, 50),
    loss=st.sampled_from(["kd", "dkd", "dist", "nkd", "logit_std"]),
    embedding=st.sampled_from(["none", "rkd", "crd"]),
)
@settings(max_examples=50, deadline=None)
def test_what_is_parsed_is_what_was_said(alpha, temperature, loss, embedding) -> None:
    mix = LossMix.parse({"loss": loss, "alpha": alpha, "temperature": temperature, "embedding": embedding})
    assert (mix.loss, mix.alpha, dict(mix.keywords)) == (loss, alpha, {"temperature": temperature})
    assert mix.embedding == embedding
    assert mix.uses_distillation == (alpha > 0)
    assert mix.uses_embedding == (embedding != "none")


def test_a_scale_skips_norms_that_are_zero_or_not_finite() -> None:
    scale = TermScale(2)
    for task, term in ((0.0, 1.0), (1.0, float("nan")), (float("inf"), 1.0), (1.0, 0.0)):
        scale.measure(task, term)
    assert (scale.value, scale.frozen) == (1.0, False)
    scale.measure(1.0, 4.0)
    scale.measure(3.0, 4.0)
    assert (scale.value, scale.frozen) == (0.5, True)
