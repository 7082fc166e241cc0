"""Views: reproducibility, the same geometry at every size, statistics of random strengths, and parsing of policies."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.training.augmentation import operations as augment
from autodistill.training.augmentation.policy import Policy, apply, policies
from autodistill.training.augmentation.random_numbers import Draws, signed

EVERYTHING = Policy(
    crop="resized",
    flip=True,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    erase=0.5,
    operations=3,
    magnitude=0.8,
)
POLICIES = {name: policies.get(name) for name in policies.names()} | {"everything": EVERYTHING}


def images(count: int = 12, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


def smooth(count: int, size: int) -> Tensor:
    """Images without detail below 1/8 of the side, so that resolutions can be compared."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return (F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


# SplitMix64 with seed 1234567, as published with the generator (prng.di.unimi.it).
REFERENCE = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)


def test_the_mixing_function_is_splitmix64() -> None:
    from autodistill.training.augmentation.random_numbers import _mix

    state = torch.tensor([signed(1234567 + k * 0x9E3779B97F4A7C15) for k in range(4)])
    assert [value % 2**64 for value in _mix(state).tolist()] == list(REFERENCE)


def test_numbers_are_uniform_and_independent_between_images_views_and_slots() -> None:
    ids = torch.arange(20_000)
    first = Draws(0, ids, 0).uniform(0)
    assert first.min() >= 0
    assert first.max() < 1
    counts = torch.histc(first, 50, 0, 1)
    assert ((counts - 400) ** 2 / 400).sum() < 85  # chi-squared, 49 degrees of freedom: p = 0.001
    for other in (Draws(0, ids, 1).uniform(0), Draws(1, ids, 0).uniform(0), Draws(0, ids, 0).uniform(1)):
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1]) < 0.03


def test_integers_cover_their_range_evenly() -> None:
    drawn = Draws(3, torch.arange(9000), 2).integer(4, 9)
    assert torch.bincount(drawn, minlength=9).tolist() == pytest.approx([1000] * 9, abs=130)
    assert len(torch.bincount(drawn)) == 9


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_view_is_the_same_whatever_else_is_in_the_batch_and_in_whatever_order(name, channels) -> None:
    pixels, ids = images(channels=channels), torch.arange(100, 112)
    together = apply(POLICIES[name], pixels, ids, 7, 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(apply(POLICIES[name], pixels[order], ids[order], 7, 3), together[order])
    for row in range(12):
        alone = apply(POLICIES[name], pixels[row : row + 1], ids[row : row + 1], 7, 3)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("name", POLICIES)
def test_views_are_floats_between_zero_and_one_and_leave_their_image_alone(name) -> None:
    pixels = images()
    before = pixels.clone()
    views = apply(POLICIES[name], pixels, torch.arange(12), 0, 0, size=20)
    assert views.shape == (12, 3, 20, 20)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", POLICIES)
def test_another_view_seed_or_image_gives_other_pixels_where_the_policy_is_random(name) -> None:
    policy, pixels = POLICIES[name], images(count=1).repeat(12, 1, 1, 1)
    base = apply(policy, pixels, torch.arange(12), 0, 0)
    for other in (
        apply(policy, pixels, torch.arange(12), 1, 0),
        apply(policy, pixels, torch.arange(12), 0, 1),
        apply(policy, pixels, torch.arange(50, 62), 0, 0),
    ):
        assert torch.equal(other, base) != policy.random


def test_view_numbers_may_differ_within_a_batch() -> None:
    pixels, ids, view = images(), torch.arange(12), torch.arange(12) % 3
    mixed = apply(EVERYTHING, pixels, ids, view, 0)
    for number in range(3):
        assert torch.equal(mixed[number::3], apply(EVERYTHING, pixels[number::3], ids[number::3], number, 0))


def test_no_random_state_of_torch_numpy_or_python_is_read_or_changed() -> None:
    pixels, ids = images(), torch.arange(12)
    first = apply(EVERYTHING, pixels, ids, 0, 0)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    random.seed(123)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    assert torch.equal(apply(EVERYTHING, pixels, ids, 0, 0), first)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


@pytest.mark.parametrize("name", POLICIES)
def test_student_and_teacher_see_the_same_view_at_their_own_size(name) -> None:
    pixels, ids = smooth(8, 64), torch.arange(8)
    teacher = apply(POLICIES[name], pixels, ids, 2, 5)
    student = apply(POLICIES[name], pixels, ids, 2, 5, size=16)
    assert torch.equal(student, augment.resize(teacher, 16))
    assert (F.avg_pool2d(teacher, 4) - student).abs().mean() < 0.03
    wrong = apply(POLICIES[name], pixels, ids, 3, 5, size=16)
    if POLICIES[name].random:
        assert (F.avg_pool2d(teacher, 4) - wrong).abs().mean() > 0.05


def test_the_policy_none_only_scales() -> None:
    pixels = images()
    assert torch.equal(apply(Policy(), pixels, torch.arange(12), 5, 5), pixels.float() / 255)


def test_a_padded_crop_is_one_of_the_windows_of_the_padded_image() -> None:
    pixels = images(count=300, size=8)
    views = apply(policies.get("flip_crop"), pixels, torch.arange(300), 0, 0)
    padded, seen = F.pad(pixels, (1, 1, 1, 1)).float() / 255, []
    for row in range(300):
        found = [
            (dy, dx, mirrored)
            for dy in range(3)
            for dx in range(3)
            for mirrored in (False, True)
            if torch.equal(_window(padded[row], dy, dx, mirrored), views[row])
        ]
        assert len(found) == 1
        seen += found
    assert len(set(seen)) == 18
    assert sum(mirrored for *_, mirrored in seen) == pytest.approx(150, abs=35)
    assert sum(dy for dy, *_ in seen) / 300 == pytest.approx(1, abs=0.2)


def _window(padded: Tensor, dy: int, dx: int, mirrored: bool) -> Tensor:
    window = padded[:, dy : dy + 8, dx : dx + 8]
    return window.flip(2) if mirrored else window


def test_flips_are_off_unless_asked_for() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).mul(16).expand(200, 1, 16, 16).contiguous()
    for name in ("crop", "resized_crop", "colour"):
        views = apply(policies.get(name), ramp, torch.arange(200), 0, 0)
        assert (views[:, :, 8, 12] >= views[:, :, 8, 3]).all()
    for name in ("flip_crop", "flip_resized_crop"):
        views = apply(policies.get(name), ramp, torch.arange(200), 0, 0)
        mirrored = (views[:, 0, 8, 12] < views[:, 0, 8, 3]).sum().item()
        assert mirrored == pytest.approx(100, abs=30)


def test_resized_crops_lie_inside_the_image_and_have_the_asked_area() -> None:
    """An image of the coordinates shows where each crop came from."""
    side = torch.arange(64, dtype=torch.uint8) * 4
    plane = torch.stack([side[:, None].expand(64, 64), side[None, :].expand(64, 64)])
    views = apply(Policy(crop="resized", min_area=0.25), plane.expand(500, 2, 64, 64), torch.arange(500), 0, 0)
    height = (views[:, 0, -1, 0] - views[:, 0, 0, 0]) * 255 / 4 / 63
    width = (views[:, 1, 0, -1] - views[:, 1, 0, 0]) * 255 / 4 / 63
    area = height * width
    assert area.min() > 0.23
    assert area.max() <= 1.01
    assert area.mean().item() == pytest.approx(0.62, abs=0.03)
    assert (width / height).log().abs().max() < np.log(4 / 3) + 0.02
    assert (width / height).log().mean().abs() < 0.03


def test_crops_at_the_edge_of_the_image_have_no_dark_fringe() -> None:
    white = torch.full((100, 1, 16, 16), 255, dtype=torch.uint8)
    assert (apply(policies.get("resized_crop"), white, torch.arange(100), 0, 0) > 0.999).all()
    assert (apply(Policy(operations=2, magnitude=1.0), white, torch.arange(100), 0, 0) == 0).any()


def test_an_affine_map_is_composed_as_matrices_are() -> None:
    first = augment.geometric(torch.tensor([0]), torch.tensor([1.0]), 1.0)  # 30 degrees
    second = augment.geometric(torch.tensor([3]), torch.tensor([0.5]), 1.0)  # 0.15 of the side
    matrix = lambda m: torch.tensor([[m.xx, m.xy, m.x], [m.yx, m.yy, m.y], [0, 0, 1]])  # noqa: E731
    assert torch.allclose(matrix(second.after(first)), matrix(second) @ matrix(first))
    assert matrix(first)[:2, :2].det().item() == pytest.approx(1)
    assert second.x.item() == pytest.approx(0.3)


def test_three_rotations_by_thirty_degrees_move_a_corner_to_the_next() -> None:
    turn = augment.geometric(torch.tensor([0]), torch.tensor([1.0]), 1.0)
    spot = torch.zeros(1, 1, 9, 9)
    spot[0, 0, 0, 4] = 1.0  # top centre
    turned = turn.after(turn).after(turn).sample(spot)
    assert turned[0, 0].argmax().item() in (4 * 9, 4 * 9 + 8)
    assert turned.max().item() == pytest.approx(1, abs=1e-5)


def test_colour_factors_have_their_closed_forms() -> None:
    pixels, half = (
        torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0.5, 1.0]),
    )
    assert torch.allclose(augment.brightness(pixels, half)[0], pixels[0] / 2)
    luma = (pixels[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert torch.allclose(augment.contrast(pixels, half)[0], (pixels[0] + luma.mean()) / 2)
    assert torch.allclose(augment.saturation(pixels, half)[0], (pixels[0] + luma) / 2)
    for operation in augment.COLOUR_OPERATIONS[:5]:
        assert torch.allclose(operation(pixels, half)[1], pixels[1], atol=1e-6), operation.__name__
    levels = augment.posterize(pixels, torch.tensor([0.0, 1.0]))
    assert set(levels[0].unique().mul(3).round().tolist()) <= {0, 1, 2, 3}
    assert torch.allclose(augment.solarize(pixels, torch.tensor([0.0, 2.0])), 1 - pixels)
    stretched = augment.autocontrast(pixels, half)
    assert stretched.amin((2, 3)).abs().max() < 1e-6
    assert (stretched.amax((2, 3)) - 1).abs().max() < 1e-6
    flat = torch.full((1, 1, 4, 4), 0.3)
    assert torch.equal(augment.autocontrast(flat, half[:1]), flat)
    grey = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(augment.saturation(grey, half), grey)


def test_erasing_happens_with_its_probability_and_fills_with_the_mean() -> None:
    pixels = images(count=400, channels=1)
    views = apply(Policy(erase=0.3, erase_area=0.25), pixels, torch.arange(400), 0, 0)
    plain = pixels.float() / 255
    changed = (views != plain).flatten(1).sum(1)
    assert (changed > 0).sum().item() == pytest.approx(120, abs=30)
    assert changed.max() <= 0.25 * 256 * 1.35  # whole pixels
    row = int(changed.argmax())
    erased = views[row][views[row] != plain[row]]
    assert torch.allclose(erased, plain[row].mean().expand_as(erased))


def test_operations_are_each_drawn_about_as_often_as_the_others() -> None:
    from autodistill.training.augmentation.policy import _operation

    kind, amount = _operation(Policy(operations=1, magnitude=0.5), Draws(0, torch.arange(12_000), 0), 0)
    assert torch.bincount(kind).tolist() == pytest.approx([1000] * 12, abs=130)
    assert amount.abs().max() <= 0.5
    assert amount.mean().abs() < 0.02


def test_oblong_images_become_square_only_on_demand() -> None:
    oblong = torch.randint(0, 256, (3, 1, 12, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for policy in POLICIES.values():
        assert apply(policy, oblong, torch.arange(3), 0, 0).shape == (3, 1, 20, 20)
        assert apply(policy, oblong, torch.arange(3), 0, 0, size=8).shape == (3, 1, 8, 8)


def test_float_images_or_missing_ids_are_refused() -> None:
    with pytest.raises(UsageError, match="views are made of uint8 images"):
        apply(Policy(), images().float(), torch.arange(12), 0, 0)
    with pytest.raises(UsageError, match=r"with ids \(5,\)"):
        apply(Policy(), images(), torch.arange(5), 0, 0)


def test_view_keys_differ_by_view_and_ignore_mixing() -> None:
    keys = {policy.view_key() for policy in POLICIES.values()}
    assert len(keys) == len(POLICIES)
    assert Policy(mix="cutmix").view_key() == Policy().view_key()
    assert Policy(crop="pad", padding=0.1).view_key() != Policy(crop="pad").view_key()


def test_a_policy_is_parsed_from_a_name_or_from_a_name_with_changes() -> None:
    assert Policy.parse("flip_crop") == Policy(crop="pad", flip=True)
    assert Policy.parse({"name": "flip_crop", "flip": False}) == policies.get("crop")
    assert Policy.parse({"crop": "resized", "min_area": 0.5}) == Policy(crop="resized", min_area=0.5)
    assert Policy.parse(EVERYTHING) is EVERYTHING


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("flipcrop", "did you mean 'flip_crop'"),
        ({"name": "crop", "magnitud": 1.0}, "did you mean 'magnitude'"),
        ({"crop": "padded"}, "unknown crop of an augmentation policy 'padded'; did you mean 'pad'"),
        ({"mix": "mixdown"}, "did you mean 'mixup'"),
        ({"flip": "yes"}, "flip of an augmentation policy is 'yes'; it must be like False"),
        ({"operations": 2.5}, "operations of an augmentation policy is 2.5"),
        ({"magnitude": True}, "magnitude of an augmentation policy is True"),
        ({"magnitude": float("nan")}, "magnitude of an augmentation policy is nan, out of range"),
        ({"padding": 0.6}, "padding of an augmentation policy is 0.6, out of range"),
        ({"mix_alpha": 0}, "mix_alpha of an augmentation policy is 0, out of range"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(value, message) -> None:
    with pytest.raises((UnknownNameError, UsageError), match=message):
        Policy.parse(value)


@given(seed=st.integers(-(2**70), 2**70), image=st.integers(0, 2**62), view=st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_any_seed_image_and_view_number_has_its_numbers(seed, image, view) -> None:
    drawn = Draws(seed, torch.tensor([image]), view).uniform(0)
    assert 0 <= drawn.item() < 1
    assert torch.equal(drawn, Draws(seed, torch.tensor([image]), torch.tensor([view])).uniform(0))
