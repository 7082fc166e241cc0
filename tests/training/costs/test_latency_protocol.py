"""The latency protocol, on runs of known duration with a simulated clock; runtimes on a tiny network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from autodistill.core.errors import InfeasibleError, ResourceError, UnknownNameError, UsageError
from autodistill.core.records import LatencyTarget
from autodistill.training.costs import latency_protocol as latency
from autodistill.training.costs.latency_protocol import (
    MAX_RUNS,
    MIN_RUNS,
    REPEATS,
    ROUNDS,
    WARM_RUNS,
    measure_runs,
    quieter,
    summarize,
)
from autodistill.training.deployed.runtimes import prepare_run, runtimes, threads, to_onnx
from autodistill.training.students import build as students

SHAPE = {"image_size": 8, "channels": 1}


class Clock:
    """A clock that only advances during runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, durations: Iterator[float]):
        def one() -> None:
            self.calls.append(name)
            self.now += next(durations)

        return one


def rounds_of(calls: list[str]) -> list[str]:
    """Runs of equal neighbours, once each."""
    return [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]


def test_a_steady_run_has_its_own_duration_and_no_spread() -> None:
    clock = Clock()
    found = measure_runs([clock.run("a", cycle([0.001]))], clock=clock)[0]
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p90_ms == pytest.approx(1.0)
    assert found.p99_ms == pytest.approx(1.0)
    assert found.spread == pytest.approx(0, abs=1e-9)
    assert not found.noisy
    assert found.runs == pytest.approx(ROUNDS * latency.ROUND_SECONDS / 0.001, abs=ROUNDS)


def test_models_take_turns_round_by_round() -> None:
    clock = Clock()
    measure_runs([clock.run(name, cycle([0.001])) for name in "abc"], clock=clock)
    assert rounds_of(clock.calls) == list("abc") * (1 + ROUNDS)  # warmed up in turn, then measured in turn


def test_a_slow_minute_of_the_machine_hits_all_models_alike() -> None:
    clock = Clock()

    def drifting(base: float) -> Iterator[float]:
        while True:  # the machine is three times as slow during its first third of a second
            yield base * (3 if clock.now < 0.3 else 1)

    fast, slow = measure_runs([clock.run("a", drifting(0.001)), clock.run("b", drifting(0.002))], clock=clock)
    assert slow.p50_ms / fast.p50_ms == pytest.approx(2)
    assert fast.p50_ms == pytest.approx(1.0)


def test_times_are_divided_by_the_slowness_of_the_machine() -> None:
    clock, slow = Clock(), cycle([1.0, 1.0, 1.4, 1.2, 1.4])
    state = {"now": 1.0}

    def speed() -> float:
        state["now"] = next(slow)
        return state["now"]

    def run() -> None:
        clock.now += 0.002 * state["now"]

    found = measure_runs([run], clock=clock, speed=speed)[0]
    assert found.p50_ms == pytest.approx(2.0)
    assert found.spread == pytest.approx(0, abs=1e-9)


def test_the_p50_is_the_median_of_the_rounds_medians() -> None:
    rounds = [np.array([1.0, 2.0, 90.0]), np.array([3.0, 3.0, 3.0]), np.array([5.0, 8.0, 8.0])]
    found = summarize([one / 1e3 for one in rounds])
    assert found.p50_ms == pytest.approx(3.0)  # medians 2, 3, 8; the median of all runs would be 3 and the mean 13.7
    assert found.spread == pytest.approx((5.5 - 2.5) / 3)
    assert found.p90_ms == pytest.approx(np.quantile(np.concatenate(rounds), 0.9))
    assert found.noisy
    assert found.runs == 9


def test_rounds_in_which_all_models_were_slow_do_not_count_and_one_models_own_spread_does() -> None:
    quiet, slow = [np.array([1.0])] * 4, [np.array([2.0])] * 3
    first, second = [*quiet, *slow], [np.array([5.0])] * 4 + [np.array([9.0])] * 3
    assert quieter([first, second]) == [[0, 1, 2, 3]] * 2
    assert summarize(second, [0, 1, 2, 3]).p50_ms == 5000
    restless = [np.array([float(v)]) for v in (3, 1, 3, 1, 1, 1, 1)]
    assert quieter([first, second, restless])[2] == [0, 1, 2, 3]  # these are quiet in two of three models
    assert quieter([[np.array([float(v)]) for v in (3, 1, 2, 9, 4)]]) == [[0, 1, 2]]
    assert quieter([]) == []


def test_uncertainty_is_the_notch_of_a_box_plot() -> None:
    found = summarize([np.array([v]) for v in (0.9, 1.0, 1.0, 1.1)])
    assert found.spread == pytest.approx(0.05)
    assert found.uncertainty == pytest.approx(1.57 * 0.05 / 2)


def test_one_late_run_in_a_round_is_not_noise() -> None:
    clock = Clock()
    found = measure_runs([clock.run("a", cycle([0.001] * 19 + [0.05]))], clock=clock)[0]
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p99_ms > 10
    assert not found.noisy


def test_rounds_that_disagree_are_repeated_and_then_marked() -> None:
    clock = Clock()

    def restless() -> Iterator[float]:
        while True:
            yield 0.001 * np.random.default_rng(int(clock.now / 0.02)).uniform(1, 4)  # another speed each 20 ms

    others = [clock.run(name, cycle([0.001])) for name in ("calm", "still")]
    wild, calm, _ = measure_runs([clock.run("wild", restless()), *others], clock=clock)
    assert wild.noisy
    assert not calm.noisy
    once = calm.runs // ROUNDS
    assert calm.runs == ROUNDS * once  # the run with a stable time was not measured again
    assert rounds_of(clock.calls).count("calm") == 1 + ROUNDS
    wild_calls = clock.calls.count("wild")
    assert wild.runs <= wild_calls
    per_round = wild.runs // (ROUNDS * (1 + REPEATS))
    assert wild.runs == per_round * ROUNDS * (1 + REPEATS)


def test_a_measurement_that_settles_on_repetition_is_not_noisy() -> None:
    clock = Clock()

    def settling() -> Iterator[float]:
        yield from [0.001] * 10  # stable while warming up
        for i in range(ROUNDS):  # every round of the first pass has its own speed
            yield from [0.001 * (1 + i)] * 20
        yield from cycle([0.002])

    found = measure_runs([clock.run("a", settling())], clock=clock)[0]
    assert not found.noisy
    assert found.p50_ms == pytest.approx(2.0)
    assert found.runs > ROUNDS * 20


def test_a_run_is_warmed_up_until_two_windows_agree() -> None:
    clock = Clock()
    cooling = iter([0.1] * WARM_RUNS + [0.004] * WARM_RUNS + [0.001] * 10_000)
    found = measure_runs([clock.run("a", cooling)], clock=clock)[0]
    assert found.p50_ms == pytest.approx(1.0)
    assert found.p99_ms == pytest.approx(1.0) or found.p99_ms == pytest.approx(4.0)


@pytest.mark.parametrize(("seconds", "count"), [(1e-7, MAX_RUNS), (0.001, 20), (1.0, MIN_RUNS)])
def test_a_round_lasts_about_twenty_milliseconds_within_limits(seconds: float, count: int) -> None:
    clock = Clock()
    found = measure_runs([clock.run("a", cycle([seconds]))], clock=clock)[0]
    assert found.runs == pytest.approx(ROUNDS * count, abs=ROUNDS)


def test_no_runs_have_no_latencies() -> None:
    assert measure_runs([]) == []


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return students.build_student({"family": "resnet", "width": 4}, **SHAPE, num_classes=3)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_tiny_network_has_a_latency_in_every_runtime(runtime: str, model: nn.Module) -> None:
    found = latency.measure_latency(model, LatencyTarget(runtime), **SHAPE)
    assert 0 < found.p50_ms < 1000
    assert found.p50_ms <= found.p99_ms
    assert model.training


def test_torch_runs_in_the_precision_that_was_asked_for() -> None:
    seen: list[torch.dtype] = []

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return self.layer(x.flatten(1))

    prepare_run(Probe(), LatencyTarget(precision="bf16", batch=3), **SHAPE)()
    assert seen[-1] == torch.bfloat16


def test_the_onnx_file_gives_the_networks_logits_at_any_batch(model: nn.Module) -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.eval()
    session = onnxruntime.InferenceSession(to_onnx(model, images), providers=["CPUExecutionProvider"])
    more = torch.cat([images, images, images])
    with torch.no_grad():
        expected = model(more).numpy()
    np.testing.assert_allclose(session.run(None, {"images": more.numpy()})[0], expected, atol=1e-4)
    model.train()


def test_a_network_that_onnx_cannot_express_is_infeasible() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x).real

    with pytest.raises(InfeasibleError, match="Odd cannot be exported to ONNX"):
        to_onnx(Odd(), torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (LatencyTarget(runtime="onnxruntim"), UnknownNameError, "'onnxruntim'.*onnxruntime"),
        (LatencyTarget(precision="fp8"), UsageError, "precision 'fp8' does not exist; allowed: fp32, fp16, bf16"),
        (LatencyTarget(device="gpu"), UsageError, "latency.device 'gpu' does not exist; write cpu, cuda"),
        (LatencyTarget("onnxruntime", precision="bf16"), UsageError, "measures fp32, got 'bf16'"),
    ],
)
def test_targets_that_do_not_exist_are_refused(target, error, message: str, model: nn.Module) -> None:
    with pytest.raises(error, match=message):
        prepare_run(model, target, **SHAPE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_here_is_refused(model: nn.Module) -> None:
    with pytest.raises(ResourceError, match="this machine has no CUDA device"):
        prepare_run(model, LatencyTarget(device="cuda"), **SHAPE)


def test_a_missing_runtime_says_what_to_install(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ResourceError, match="pip install onnxruntime"):
        prepare_run(model, LatencyTarget("onnxruntime"), **SHAPE)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_built_in_runtimes_are_registered() -> None:
    assert {"torch", "torch-compile", "onnxruntime"} <= set(runtimes.names())
