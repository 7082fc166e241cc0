"""Embedding terms against published values, closed forms and their invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from autodistill.core.errors import UsageError
from autodistill.training.distillation.embedding_losses import embedding_info, embedding_losses, projector

NAMES = embedding_losses.names()


def embeddings(size: int = 6, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def test_rkd_has_the_golden_value_of_its_parts_and_of_their_sum() -> None:
    """Features as tabulated with the goldens: spatial means of sines, 3 channels against 6."""
    i, c = torch.arange(4).double(), torch.arange(6).double()
    h = torch.arange(4).double()
    grid = lambda *parts: sum(p.view([-1 if k == n else 1 for k in range(4)]) for n, p in enumerate(parts))  # noqa: E731
    student = grid(0.3 * i, 0.5 * c[:3], 0.7 * h, 1.1 * h).sin().mean((2, 3))
    teacher = grid(0.2 * i, -0.4 * c, 0.6 * h[:2], -0.8 * h[:2]).cos().mean((2, 3))
    rkd = embedding_losses.get("rkd")
    assert rkd(student, teacher, angle_weight=0).item() == pytest.approx(0.0123895056, abs=1e-9)
    assert rkd(student, teacher, distance_weight=0).item() == pytest.approx(0.0002583436, abs=1e-9)
    assert rkd(student, teacher).item() == pytest.approx(0.0126478492, abs=1e-9)


def test_rkd_ignores_rotation_shift_and_scale_of_the_embedding() -> None:
    student, teacher = embeddings(seed=0).double(), embeddings(seed=1).double()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(2)).double())
    rkd = embedding_losses.get("rkd")
    assert rkd(3 * student @ rotation + 1, teacher).item() == pytest.approx(rkd(student, teacher).item(), rel=1e-9)


def test_rkd_of_a_large_batch_takes_angles_within_groups_of_64() -> None:
    student, teacher = embeddings(130).double(), embeddings(130, seed=1).double()
    rkd = embedding_losses.get("rkd")
    groups = [rkd(student[s], teacher[s], distance_weight=0) for s in (slice(0, 64), slice(64, 128))]
    expected = torch.stack(groups).mean().item()
    assert rkd(student, teacher, distance_weight=0).item() == pytest.approx(expected, rel=1e-12)


def test_embed_cosine_is_zero_for_parallel_two_for_opposite_and_one_for_orthogonal() -> None:
    loss, along = embedding_losses.get("embed_cosine"), torch.tensor([[3.0, 4.0]])
    assert loss(along, 7 * along).item() == pytest.approx(0, abs=1e-6)
    assert loss(along, -along).item() == pytest.approx(2, abs=1e-6)
    assert loss(along, torch.tensor([[-4.0, 3.0]])).item() == pytest.approx(1, abs=1e-6)


def test_crd_of_orthogonal_pairs_has_its_closed_form() -> None:
    unit = torch.eye(4).double()
    expected = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 3))
    assert embedding_losses.get("crd")(unit, unit, temperature=0.5).item() == pytest.approx(expected, abs=1e-12)
    indifferent = torch.ones(4, 4).double()
    assert embedding_losses.get("crd")(indifferent, unit).item() == pytest.approx(math.log(4), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_a_finite_scalar_that_spares_the_teacher(name, size, dtype) -> None:
    student = embeddings(size).to(dtype).requires_grad_()
    teacher = embeddings(size, seed=1).to(dtype).requires_grad_()
    loss = embedding_losses.get(name)(student, teacher)
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert student.grad.isfinite().all()
    assert teacher.grad is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", [0.0, 1.0, 1e4])
def test_collapsed_embeddings_have_finite_gradients(name, constant) -> None:
    """All images alike: dead units at the start of training."""
    student = torch.full((6, 5), constant).half().requires_grad_()
    embedding_losses.get(name)(student, embeddings()).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_lower_the_precision(name) -> None:
    plain = embedding_losses.get(name)(embeddings(), embeddings(seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embedding_losses.get(name)(embeddings(), embeddings(seed=1)), plain)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name) -> None:
    info = embedding_info(name)
    assert info.summary.endswith(".")
    assert info.source
    for keyword, tried in info.ranges.items():
        assert tried.low <= info.defaults[keyword] <= tried.high


def test_other_widths_need_a_projector_except_for_relations() -> None:
    wide, narrow = embeddings(width=8), embeddings(width=5)
    assert embedding_losses.get("rkd")(narrow, wide).isfinite()
    assert isinstance(projector("rkd", 5, 8, seed=0), nn.Identity)
    assert isinstance(projector("crd", 8, 8, seed=0), nn.Identity)
    with pytest.raises(UsageError, match=r"got \(6, 5\) from the student and \(6, 8\).*projector\(\)"):
        embedding_losses.get("crd")(narrow, wide)
    assert embedding_losses.get("crd")(projector("crd", 5, 8, seed=0)(narrow), wide).isfinite()


def test_a_projector_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (projector("embed_cosine", 64, 256, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert first.weight.requires_grad
