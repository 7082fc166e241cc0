from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn

import autodistill as ad
from autodistill.core.errors import InterruptedTrialError, UsageError
from autodistill.core.records import Candidate, DataSpec, Task, TeacherSpec, WorkerContext
from autodistill.training.distillation.criterion import Distillation
from autodistill.training.distillation.loss_mix import LossMix
from autodistill.training.loop.recipe import Recipe
from autodistill.training.loop.trainer import Batch, Feed, Trainer
from autodistill.training.runtime.distributed import Team
from autodistill.training.trials.evaluate import WorkerState

STEPS = 3


class Compares:
    """A loss that compares the rows of a batch, and trains a projector beside the student."""

    wants_embedding = True

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.projector = nn.Linear(6, 4)

    def parameters(self) -> list[nn.Parameter]:
        return list(self.projector.parameters())

    def add_teacher_outputs(self, batch: Batch) -> Batch:
        return batch

    def loss(self, logits: Tensor, embedding: Tensor | None, batch: Batch) -> Tensor:
        assert embedding is not None
        assert len(logits) == len(embedding) == len(batch.ids)
        similar = torch.softmax(self.projector(embedding) @ self.projector(embedding).T, 1)
        return nn.functional.cross_entropy(logits, batch.target) + similar.square().mean() * 10

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def restore(self, tensors: Any, facts: Any) -> None:
        """Nothing was stored."""


def distillation(model: nn.Module, embedding: str) -> Distillation:
    """Calibrated kd with an embedding term."""
    generator = torch.Generator().manual_seed(2)
    logits, width = torch.randn(40, 5, generator=generator), 4
    vectors = torch.randn(40, width, generator=generator)
    mix = LossMix.parse({"loss": "kd", "temperature": 4.0, "embedding": embedding})
    return Distillation(mix, lambda batch: (logits[batch.ids], vectors[batch.ids]), student=model, teacher_width=width)


FROZEN = "an epoch of the classifier alone, then one of all layers"


def trainer(team: Team | None, embedding: str) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 5, (40,), generator=generator)
    feed = Feed(images, labels, torch.arange(40), (0.5,) * 3, (0.25,) * 3, 5)
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )
    frozen = {"freeze": 1} if embedding == FROZEN else {}
    recipe = Recipe.parse({"batch_size": 13}, {"lr": 0.05}, frozen)  # 13 rows: 6 for one process and 7 for the other
    criterion = Compares() if embedding in ("", FROZEN) else distillation(model, embedding)
    return Trainer(model, feed, criterion, recipe, epochs=2, seed=3, team=team)


def facts(one: Trainer) -> dict[str, Tensor]:
    """Gradients of the first batch, then all weights and statistics after a few steps."""
    one.model.train()
    batch = one.batch(torch.arange(13), 0)
    one._gradients(batch)
    beside = one.criterion.parameters()
    out = {f"gradient {name}": p.grad.clone() for name, p in one.model.named_parameters() if p.grad is not None}
    out |= {f"gradient beside {i}": p.grad.clone() for i, p in enumerate(beside) if p.grad is not None}
    one.run(1 + one.recipe.freeze)
    if isinstance(one.criterion, Distillation):
        out |= {f"scale {name}": torch.tensor(value) for name, value in one.criterion.terms.scales.items()}
    return out | {name: value.clone() for name, value in one.model.state_dict().items()}


def member(file: str, rank: int, pipe: Any, embedding: str) -> None:
    torch.set_num_threads(1)
    team = Team.join(file, rank, 2, "cpu")
    found = {name: value.numpy() for name, value in facts(trainer(team, embedding)).items()}
    pipe.send(found)
    pipe.recv()
    team.leave()


def of_two_processes(folder: Path, embedding: str) -> list[dict[str, Any]]:
    """The facts of each."""
    spawn = multiprocessing.get_context("spawn")
    ends = []
    for rank in range(2):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=member, args=(str(folder / "meet"), rank, theirs, embedding))
        process.start()
        theirs.close()
        ends.append((process, ours))
    found = [pipe.recv() for _, pipe in ends]
    for process, pipe in ends:
        pipe.send("bye")
        process.join()
    return found


@pytest.mark.parametrize(("embedding", "gradients"), [("", 7), (FROZEN, 7), ("embed_cosine", 6), ("rkd", 5)])
def test_two_processes_have_the_gradients_of_one_also_through_batchnorm_and_losses_that_compare_rows(
    tmp_path: Path, embedding: str, gradients: int
) -> None:
    found = of_two_processes(tmp_path, embedding)
    alone = facts(trainer(None, embedding))
    assert set(found[0]) == set(alone)
    assert sum(name.startswith("gradient") for name in alone) == gradients
    assert (alone.get("scale embedding", torch.tensor(2.0)) != 1).all()  # it is calibrated
    for name, value in alone.items():
        assert (found[0][name] == found[1][name]).all(), name  # bit for bit: the processes never drift apart
        tolerance = 1e-6 if name.startswith("gradient") else 1e-5
        torch.testing.assert_close(torch.from_numpy(found[0][name]), value, rtol=0, atol=tolerance)


def test_rows_are_split_without_remainder_and_too_few_are_refused() -> None:
    teams = [Team(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [(s.start, s.stop) for s in (team.rows(13) for team in teams)] == [(0, 4), (4, 8), (8, 13)]
    with pytest.raises(UsageError, match="2 images cannot be split over 3 devices"):
        teams[0].rows(2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    from autodistill.training.data import datasets
    from autodistill.training.trials.teach import teach

    folder = tmp_path_factory.mktemp("study")
    data = DataSpec("digits", train_size=200)
    teacher = teach(
        datasets.load_images(data, folder / "cache"), TeacherSpec(options={"epochs": 1}), directory=folder / "teacher"
    )
    return Task(data, teacher, str(folder), (1, 3), ("accuracy", "params"), training={"batch_size": 64})


@pytest.mark.slow
def test_a_candidate_on_two_devices_reports_what_it_reports_on_one(task: Task) -> None:
    student = {"family": "resnet", "width": 8, "depth": 1}
    mixes: list[Callable[[int], Candidate]] = [
        lambda number: Candidate(number, student, {"loss": "kd", "temperature": 4.0, "alpha": 0.5}, {"lr": 3e-3}, 7),
        lambda number: Candidate(number, student, {"loss": "dist", "alpha": 0.7}, {"lr": 3e-3, "mixup": 0.4}, 8),
    ]
    one = WorkerState(task, WorkerContext())
    two = WorkerState(task, WorkerContext(devices=("cpu", "cpu")))
    try:
        for index, make in enumerate(mixes):
            alone = [report.values for report in one.evaluate(make(2 * index))]
            together = [report.values for report in two.evaluate(make(2 * index + 1))]
            assert len(alone) == len(together) == 3
            for a, b in zip(alone, together, strict=True):
                assert b == pytest.approx(a, abs=1e-4)
    finally:
        if two.helpers is not None:
            two.helpers.close()


def one_candidate(number: int) -> Candidate:
    return Candidate(number, {"family": "resnet", "width": 8, "depth": 1}, {"loss": "none"}, {"lr": 3e-3}, 7)


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_another_number_of_devices_and_a_dead_helper_ends_its_trial_only(
    task: Task,
) -> None:
    asked: list[int] = []

    def stop_at_the_fifth_step() -> bool:
        asked.append(1)
        return len(asked) == 5

    two = WorkerState(task, WorkerContext(devices=("cpu", "cpu"), should_stop=stop_at_the_fifth_step))
    assert two.helpers is not None
    try:
        with pytest.raises(InterruptedTrialError, match=r"after 1\.3 of 3 epochs"):
            list(two.evaluate(one_candidate(10)))
        (process, _), *_ = two.helpers._helpers
        process.kill()
        with pytest.raises(RuntimeError):
            list(two.evaluate(one_candidate(11)))
        assert two.helpers._helpers == []
        again = [report.values for report in two.evaluate(one_candidate(12))]  # with new helpers
    finally:
        two.helpers.close()
    one = WorkerState(task, WorkerContext())
    went_on = [report.values for report in one.evaluate(one_candidate(10))]
    alone = [report.values for report in one.evaluate(one_candidate(13))]
    for values, b, c in zip(alone, went_on, again, strict=True):
        assert b == pytest.approx(values, abs=1e-4)
        assert c == pytest.approx(values, abs=1e-4)


@pytest.mark.slow
def test_the_local_engine_gives_each_of_its_workers_two_devices_and_leaves_no_process(tmp_path: Path) -> None:
    study = ad.Study.create(
        data={"source": "digits", "train_size": 200},
        teacher={"source": "auto", "options": {"epochs": 1}, "accept_weak": True},
        space={"student": {"family": "resnet", "width": [8, 12, 16], "depth": 1}, "train": {"lr": 3e-3}},
        objectives=["accuracy", "params"],
        epochs=1,
        rungs="off",
        survey="off",
        sampler="random",
        devices_per_trial=2,
        directory=tmp_path / "study",
    )
    most: list[int] = []
    ad.search(study, budget="2trials", workers=2, progress=lambda snapshot: most.append(len(descendants())))
    assert [t.state.value for t in study.trials() if t.reason != "DUPLICATE"] == ["COMPLETE"] * 2
    assert max(most) >= 4  # two workers, a helper each
    psutil.wait_procs(descendants(), timeout=5)
    assert [one.cmdline() for one in descendants() if "resource_tracker" not in " ".join(one.cmdline())] == []


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_processes_meet_at_any_path(tmp_path: Path) -> None:
    file = tmp_path / "a?b#c%41"
    team = Team.join(str(file), 0, 1, "cpu")
    try:
        assert [path.name for path in tmp_path.iterdir()] == [file.name]
    finally:
        team.leave()
