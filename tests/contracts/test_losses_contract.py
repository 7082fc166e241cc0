"""What every registered loss keeps, plugins included: a new loss is tested by being registered."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autodistill.training.distillation.distillation_losses import loss_info, losses

pytestmark = pytest.mark.parametrize("name", losses.names())
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def batch(size: int = 6, classes: int = 7, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size * 100 + classes)
    student = torch.randn(size, classes, generator=generator) * scale
    teacher = torch.randn(size, classes, generator=generator) * scale
    return student, teacher, torch.randint(0, classes, (size,), generator=generator)


@pytest.mark.parametrize(("size", "classes"), [(6, 7), (1, 7), (6, 2), (1, 2), (2, 300)])
def test_it_is_a_finite_scalar_with_finite_gradients(name, size, classes) -> None:
    student, teacher, target = batch(size, classes)
    student.requires_grad_()
    loss = losses.get(name)(student, teacher, target)
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_logits_of_ten_thousand_have_finite_gradients(name, dtype, temperature) -> None:
    student, teacher, target = batch(scale=1.0)
    student = (student.sign() * 1e4).to(dtype).requires_grad_()
    teacher = (teacher.clamp(-1, 1) * 1e4).to(dtype)
    loss = losses.get(name)(student, teacher, target, temperature=temperature)
    loss.backward()
    assert loss.isfinite()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_the_teacher_gets_no_gradient(name) -> None:
    student, teacher, target = batch()
    teacher.requires_grad_()
    losses.get(name)(student.requires_grad_(), teacher, target).backward()
    assert teacher.grad is None


def test_one_hot_mixed_labels_equal_class_indices(name) -> None:
    student, teacher, target = batch()
    mixed = F.one_hot(target, student.shape[1]).float()
    loss = losses.get(name)
    assert torch.equal(loss(student, teacher, mixed), loss(student, teacher, target))


def test_labels_of_two_images_are_accepted(name) -> None:
    student, teacher, target = batch()
    mixed = (F.one_hot(target, 7) * 0.6 + F.one_hot(target.roll(1), 7) * 0.4).requires_grad_(False)
    assert losses.get(name)(student, teacher, mixed).isfinite()


def test_the_mean_is_over_the_batch(name) -> None:
    if name == "dist":
        pytest.skip("correlates over the batch")
    student, teacher, target = batch()
    once = losses.get(name)(student, teacher, target)
    twice = losses.get(name)(student.repeat(2, 1), teacher.repeat(2, 1), target.repeat(2))
    assert twice.item() == pytest.approx(once.item(), rel=1e-5)


def test_inputs_are_left_as_they_are(name) -> None:
    student, teacher, target = batch()
    before = student.clone(), teacher.clone(), target.clone()
    losses.get(name)(student, teacher, target)
    assert all(torch.equal(a, b) for a, b in zip((student, teacher, target), before, strict=True))


def test_it_says_what_it_is(name) -> None:
    info = loss_info(name)
    assert info.name == name
    assert info.summary.endswith(".")
    assert info.source
    assert "temperature" in info.defaults
    assert set(info.ranges) <= set(info.defaults)
    for keyword, tried in info.ranges.items():
        assert tried.low <= info.defaults[keyword] <= tried.high
    keywords = [p for p in inspect.signature(losses.get(name)).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {p.name for p in keywords} == set(info.defaults)


def test_labels_are_unused_unless_the_loss_needs_them(name) -> None:
    student, teacher, target = batch()
    if not loss_info(name).uses_target:
        assert torch.equal(losses.get(name)(student, teacher, None), losses.get(name)(student, teacher, target))
    else:
        assert not torch.equal(
            losses.get(name)(student, teacher, (target + 1) % 7), losses.get(name)(student, teacher, target)
        )
