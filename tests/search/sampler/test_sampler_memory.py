"""The sampler's memory: a decision that is made again starts from what was before it."""

from __future__ import annotations

import numpy as np

from autodistill.search.sampler.sampler_memory import MOST_CHARACTERS, SamplerMemory, Shortlist


def test_a_decision_made_again_starts_where_it_started() -> None:
    memory = SamplerMemory()
    memory.begin((1, 0, 0))
    first = Shortlist(1, ({"a": 1},))
    memory.keep(shortlist=first, counted=())
    assert memory.begin((2, 1, 0)).shortlist == first
    memory.keep(shortlist=Shortlist(2, ({"a": 2},)), counted=((1, "x"),))
    again = memory.begin((2, 1, 0))
    assert (again.shortlist, again.counted) == (first, ())


def test_what_was_saved_is_loaded_exactly_and_only_changes_are_saved() -> None:
    saved: list[str] = []
    memory = SamplerMemory(save=saved.append)
    memory.begin((1, 0, 0))
    memory.thetas[0], memory.fitted_at = np.array([0.1 + 0.2, -1e-17]), 9
    memory.keep(shortlist=Shortlist(1, ({"student.width": 0.1, "loss": "kd", "off": None},)), counted=((1, None),))
    memory.begin((1, 0, 0))
    memory.keep(shortlist=memory.now.shortlist, counted=((1, None),))
    assert len(saved) == 2 or saved[-1] == saved[0]
    other = SamplerMemory()
    other.load(saved[-1])
    assert other.now == memory.now
    assert other.fitted_at == 9
    assert (other.thetas[0] == memory.thetas[0]).all()
    assert other.begin((1, 0, 0)).shortlist is None


def test_a_damaged_memory_counts_as_none() -> None:
    for text in ("", "rubbish", "AAAA"):
        memory = SamplerMemory()
        memory.load(text)
        assert memory.now == SamplerMemory().now


def test_a_memory_too_long_for_a_database_is_not_saved() -> None:
    saved: list[str] = []
    memory = SamplerMemory(save=saved.append)
    memory.begin((1, 0, 0))
    rng = np.random.default_rng(0)
    many = tuple({"x": float(x)} for x in rng.random(MOST_CHARACTERS // 8))
    memory.keep(shortlist=Shortlist(1, many), counted=())
    assert saved == [""]
