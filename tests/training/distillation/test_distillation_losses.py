"""Distillation losses against published values, identities and the bugs of other implementations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.distillation.distillation_losses import loss_info, losses

# Values agree with the mdistiller, LS-KD, DIST and NKD reference code in float64; the norm is that of the
# gradient with respect to the student's logits.
GOLDEN = [
    ("kd", {"temperature": 1}, 1.0016220343, 0.3247183470),
    ("kd", {"temperature": 2}, 1.5016836822, 0.3907028939),
    ("kd", {"temperature": 4}, 1.7864287789, 0.4230873611),
    ("kd", {"temperature": 20}, 1.8779689366, 0.4332653192),
    ("dkd", {"temperature": 4, "alpha": 1, "beta": 8}, 10.3878625509, 3.1951047172),
    ("dkd", {"temperature": 1, "alpha": 1, "beta": 0.5}, 0.9351911894, 0.3025423762),
    ("dkd", {"temperature": 2, "alpha": 1, "beta": 2}, 2.9594213337, 0.8440438352),
    ("dkd", {"temperature": 4, "alpha": 1, "beta": 0}, 0.9030517732, None),
    ("dkd", {"temperature": 4, "alpha": 0, "beta": 1}, 1.1856013472, None),
    ("dkd", {"temperature": 1, "alpha": 1, "beta": 0}, 0.5211671829, None),
    ("dkd", {"temperature": 1, "alpha": 0, "beta": 1}, 0.8280480129, None),
    ("dkd", {"temperature": 2, "alpha": 1, "beta": 0}, 0.7680934446, None),
    ("dkd", {"temperature": 2, "alpha": 0, "beta": 1}, 1.0956639445, None),
    ("dist", {"temperature": 1}, 2.1342661696, 0.3492089485),
    ("dist", {"temperature": 4}, 30.9407066292, 3.3110563954),
    ("logit_std", {"temperature": 2}, 0.6446322066, 0.1375669731),
    ("logit_std", {"temperature": 3}, 0.6501021560, 0.1423184005),
    ("nkd", {"temperature": 1, "gamma": 1.5}, 3.1892989750, 0.6087439551),
    ("nkd", {"temperature": 3, "gamma": 3.5}, 43.9529762806, 1.4494248637),
    ("hard", {}, 2.0058577933, 0.4935847986),
    ("logit_mse", {}, 5.6602829144, 1.0639814768),
]


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    i = torch.arange(4, dtype=torch.float64)[:, None]
    j = torch.arange(5, dtype=torch.float64)[None, :]
    return 2 * torch.sin(i + 0.7 * j), 3 * torch.cos(0.5 * i - 0.9 * j), torch.tensor([0, 3, 1, 4])


def gradient(name: str, student: Tensor, teacher: Tensor, target: Tensor | None, **keywords: float) -> Tensor:
    student = student.clone().requires_grad_()
    (slope,) = torch.autograd.grad(losses.get(name)(student, teacher, target, **keywords), student)
    return slope


@pytest.mark.parametrize(("name", "keywords", "value", "norm"), GOLDEN)
def test_golden_value_and_gradient_norm(logits, name, keywords, value, norm) -> None:
    student, teacher, target = logits
    loss = losses.get(name)(student, teacher, target, **keywords)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(value, abs=1e-9, rel=0)
    if norm is not None:
        slope = gradient(name, student, teacher, target, **keywords)
        assert slope.norm().item() == pytest.approx(norm, abs=1e-9, rel=0)


def test_defaults_are_the_published_ones(logits) -> None:
    student, teacher, target = logits
    assert losses.get("kd")(student, teacher, target).item() == pytest.approx(1.7864287789, abs=1e-9)
    assert losses.get("dkd")(student, teacher, target).item() == pytest.approx(10.3878625509, abs=1e-9)
    assert loss_info("logit_std").defaults == {"temperature": 2.0}
    assert loss_info("logit_std").distillation_weight == 9.0


def test_soft_cross_entropy_is_kd_plus_the_entropy_of_the_teacher(logits) -> None:
    student, teacher, target = logits
    teacher_log = (teacher / 2).log_softmax(1)
    entropy = -(teacher_log.exp() * teacher_log).sum(1).mean() * 4
    soft = losses.get("soft_ce")(student, teacher, None, temperature=2)
    assert soft.item() == pytest.approx(1.5016836822 + entropy.item(), abs=1e-9)
    assert torch.allclose(
        gradient("soft_ce", student, teacher, None, temperature=2),
        gradient("kd", student, teacher, target, temperature=2),
        atol=1e-15,
    )


def test_kd_tends_to_the_squared_difference_of_centred_logits_at_high_temperature(logits) -> None:
    student, teacher, target = logits
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = difference.square().sum(1).mean() / (2 * 5)
    assert limit.item() == pytest.approx(1.8679810329, abs=1e-9)
    assert losses.get("kd")(student, teacher, target, temperature=1e4).item() == pytest.approx(limit.item(), rel=3e-5)
    slope = gradient("kd", student, teacher, target, temperature=1e6)
    assert torch.allclose(slope, difference / (5 * 4), atol=1e-6)


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "logit_std", "logit_mse", "soft_ce"])
def test_a_student_equal_to_its_teacher_gets_no_gradient(logits, name) -> None:
    _, teacher, target = logits
    # dist: the published eps of 1e-8 stands against products of norms that are as small for rare classes
    assert gradient(name, teacher, teacher, target).abs().max() < (1e-3 if name == "dist" else 1e-7)
    if name != "soft_ce":
        assert losses.get(name)(teacher, teacher, target).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "logit_std", "nkd", "hard", "soft_ce"])
@given(shift=st.floats(-50, 50))
@settings(max_examples=20, deadline=None)
def test_adding_a_constant_to_the_logits_of_a_row_changes_nothing(name, shift) -> None:
    student, teacher = (
        torch.linspace(-2, 3, 20).double().view(4, 5).sin() * 3,
        torch.linspace(1, 9, 20).view(4, 5).cos(),
    )
    target, loss = torch.tensor([0, 3, 1, 4]), losses.get(name)
    moved = loss(student + shift, teacher.double() - 2 * shift, target)
    assert moved.item() == pytest.approx(loss(student, teacher.double(), target).item(), abs=1e-9)


@given(scale=st.floats(0.05, 50), shift=st.floats(-20, 20))
@settings(max_examples=30, deadline=None)
def test_logit_std_ignores_scale_and_shift_of_the_student(scale, shift) -> None:
    i, j = torch.arange(4).double()[:, None], torch.arange(5).double()[None, :]
    student, teacher, target = 2 * (i + 0.7 * j).sin(), 3 * (0.5 * i - 0.9 * j).cos(), torch.arange(4)
    loss = losses.get("logit_std")(scale * student + shift, teacher, target, temperature=2)
    assert loss.item() == pytest.approx(0.6446322066, abs=1e-5)


def test_dkd_is_kd_where_beta_is_the_mass_that_the_teacher_gives_to_other_classes(logits) -> None:
    student, teacher, target = logits
    for row in range(4):
        z, v, y = student[row : row + 1], teacher[row : row + 1], target[row : row + 1]
        others = 1 - (v / 4).softmax(1)[0, y].item()
        decoupled = losses.get("dkd")(z, v, y, temperature=4, alpha=1, beta=others)
        assert decoupled.item() == pytest.approx(losses.get("kd")(z, v, y, temperature=4).item(), abs=1e-12)


def test_the_target_part_of_dkd_with_two_classes_is_kd() -> None:
    student, teacher = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[0.5, 3.0]]).double()
    target = torch.tensor([1])
    expected = losses.get("kd")(student, teacher, target, temperature=2)
    assert losses.get("dkd")(student, teacher, target, temperature=2).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", ["dkd", "nkd"])
def test_bug_18_mixed_labels_give_the_label_weighted_mean_over_both_images(logits, name) -> None:
    student, teacher, target = logits
    other = torch.tensor([2, 1, 4, 0])
    mixed = 0.7 * F.one_hot(target, 5).double() + 0.3 * F.one_hot(other, 5).double()
    loss = losses.get(name)
    expected = 0.7 * loss(student, teacher, target) + 0.3 * loss(student, teacher, other)
    assert loss(student, teacher, mixed).item() == pytest.approx(expected.item(), abs=1e-12)


# Bugs found in other libraries, by their number in the collection that this project keeps.


def test_bug_1_kl_is_summed_over_classes_not_averaged(logits) -> None:
    student, teacher, target = logits
    pointwise = F.kl_div((student / 4).log_softmax(1), (teacher / 4).softmax(1), reduction="none") * 16
    averaged = pointwise.mean()
    assert averaged.item() == pytest.approx(0.3572857558, abs=1e-9)  # K times too small: the wrong value
    assert losses.get("kd")(student, teacher, target).item() == pytest.approx(5 * averaged.item(), abs=1e-9)


def test_bug_2_the_square_of_the_temperature_keeps_gradients_of_one_size(logits) -> None:
    student, teacher, target = logits
    norms = [gradient("kd", student, teacher, target, temperature=t).norm().item() for t in (1, 4, 20)]
    assert max(norms) / min(norms) < 1.4


def test_bug_3_kd_is_a_divergence_and_not_the_squared_difference_of_probabilities(logits) -> None:
    student, teacher, target = logits
    squared = F.mse_loss((student / 20).softmax(1), (teacher / 20).softmax(1))
    assert losses.get("kd")(student, teacher, target, temperature=20).item() > 100 * squared.item()


def test_bug_5_dkd_stays_finite_for_confident_logits() -> None:
    student = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)) * 24
    teacher = torch.randn(8, 1000, generator=torch.Generator().manual_seed(1)) * 24
    target = torch.arange(8)
    naive = F.one_hot(target, 1000).bool().logical_not() * student.softmax(1)
    assert not naive.log().masked_fill(F.one_hot(target, 1000).bool(), 0).isfinite().all()  # as published
    expected = sum(_exact_dkd(*row) for row in zip(student.tolist(), teacher.tolist(), range(8), strict=True)) / 8
    loss = losses.get("dkd")(student, teacher, target, temperature=1, alpha=1, beta=8)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    half = losses.get("dkd")(student.half(), teacher.half(), target, temperature=1, alpha=1, beta=8)
    assert half.item() == pytest.approx(expected, rel=1e-3)


def _exact_dkd(student: list[float], teacher: list[float], label: int, beta: float = 8) -> float:
    """One row in plain Python, from the definition."""

    def log_mass(row: list[float]) -> float:
        top = max(row)
        return top + math.log(math.fsum(math.exp(value - top) for value in row))

    z, v = student[:label] + student[label + 1 :], teacher[:label] + teacher[label + 1 :]
    own = teacher[label] - log_mass(teacher), student[label] - log_mass(student)
    rest = log_mass(v) - log_mass(teacher), log_mass(z) - log_mass(student)
    binary = math.exp(own[0]) * (own[0] - own[1]) + math.exp(rest[0]) * (rest[0] - rest[1])
    p, q = [value - log_mass(v) for value in v], [value - log_mass(z) for value in z]
    return binary + beta * math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def test_bug_6_and_the_zero_initialised_classifier_flat_logits_have_bounded_gradients() -> None:
    student, teacher = torch.zeros(8, 10), torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    target = torch.arange(8)
    assert gradient("dist", student, teacher, target).norm() < 1e3
    for name in losses.names():
        slope = gradient(name, student.half(), teacher.half(), target)
        assert slope.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bug_7_half_precision_logits_are_compared_in_single_precision(dtype) -> None:
    student = (torch.randn(16, 100, generator=torch.Generator().manual_seed(0)) * 8).to(dtype)
    teacher = (torch.randn(16, 100, generator=torch.Generator().manual_seed(1)) * 8).to(dtype)
    exact = losses.get("kd")(student.double(), teacher.double(), torch.arange(16), temperature=20)
    loss = losses.get("kd")(student, teacher, torch.arange(16), temperature=20)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)


def test_bug_7_autocast_does_not_lower_the_precision() -> None:
    student = torch.randn(16, 100, generator=torch.Generator().manual_seed(0)) * 8
    teacher = torch.randn(16, 100, generator=torch.Generator().manual_seed(1)) * 8
    plain = [losses.get(name)(student, teacher, torch.arange(16)) for name in losses.names()]
    with torch.autocast("cpu", torch.bfloat16):
        cast = [losses.get(name)(student, teacher, torch.arange(16)) for name in losses.names()]
    assert cast == plain


@pytest.mark.parametrize("temperature", [0.05, 0.5, 20.0])
def test_bug_8_gradients_stay_finite_at_extreme_temperatures(temperature) -> None:
    student = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 30
    teacher = torch.randn(8, 50, generator=torch.Generator().manual_seed(1)) * 30
    for name in losses.names():
        slope = gradient(name, student, teacher, torch.arange(8), temperature=temperature)
        assert slope.isfinite().all(), name


def test_bug_13_a_teacher_with_other_classes_is_refused() -> None:
    with pytest.raises(UsageError, match=r"student logits \(2, 10\) and teacher logits \(2, 1000\).*class count"):
        losses.get("kd")(torch.zeros(2, 10), torch.zeros(2, 1000), torch.zeros(2, dtype=torch.long))


def test_bug_17_student_and_teacher_are_not_interchangeable(logits) -> None:
    student, teacher, target = logits
    for name in ("kd", "dkd", "logit_std", "nkd", "hard", "soft_ce"):
        loss = losses.get(name)
        assert not math.isclose(loss(student, teacher, target).item(), loss(teacher, student, target).item())


def test_the_published_standard_deviation_is_the_unbiased_one(logits) -> None:
    student, teacher, target = logits
    loss = losses.get("logit_std")(student, teacher, target, temperature=2)
    assert loss.item() != pytest.approx(0.8016992779, abs=0.1)  # what the biased one gives


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_timm_distillation_task_has_the_same_loss_and_gradients(temperature) -> None:
    timm_task = pytest.importorskip("timm.task")
    student_net, teacher_net = _tiny_net(0), _tiny_net(1)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    target = torch.arange(8) % 5
    task = timm_task.LogitDistillationTask(
        student_net,
        timm_task.DistillationTeacher(teacher_net),
        criterion=torch.nn.CrossEntropyLoss(),
        distill_loss_weight=1.0,
        task_loss_weight=0.0,
        temperature=temperature,
        verbose=False,
    )
    theirs = task(images, target)
    theirs["loss"].backward()
    expected = [p.grad.clone() for p in student_net.parameters()]
    student_net.zero_grad()
    ours = losses.get("kd")(student_net(images), teacher_net(images), target, temperature=temperature)
    ours.backward()
    assert ours.item() == pytest.approx(theirs["loss"].item(), rel=1e-5)
    for parameter, slope in zip(student_net.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, slope, rtol=1e-5, atol=1e-7)


def _tiny_net(seed: int) -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    net.num_classes, net.in_chans = 5, 3
    return net


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temperature": 0}, "temperature of loss 'dkd' is 0; it must be a number above 0; 1 to 10 is usual"),
        ({"temperature": "4"}, "temperature of loss 'dkd' is '4'"),
        ({"beta": -1}, "beta of loss 'dkd' is -1; it must be a finite number, 0 or more"),
        ({"beta": math.nan}, "beta of loss 'dkd' is nan"),
        ({"alpha": True}, "alpha of loss 'dkd' is True"),
    ],
)
def test_a_keyword_that_is_no_usable_number_is_refused(keywords, message) -> None:
    with pytest.raises(UsageError, match=message):
        losses.get("dkd")(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), **keywords)


def test_an_unknown_keyword_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        losses.get("kd")(torch.zeros(2, 3), torch.zeros(2, 3), None, temperatur=4)


def test_a_target_of_another_shape_is_refused() -> None:
    with pytest.raises(UsageError, match=r"class indices \(2,\) or mixed labels \(2, 3\)"):
        losses.get("dkd")(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
    with pytest.raises(UsageError, match="got a target of shape None"):
        losses.get("nkd")(torch.zeros(2, 3), torch.zeros(2, 3), None)


def test_the_package_offers_the_registry_by_name() -> None:
    import autodistill

    assert autodistill.losses.names() == (
        *("dist", "dkd", "hard", "kd", "logit_mse", "logit_std", "nkd", "none", "soft_ce"),
    )
