import optuna
import pytest

from autodistill.core.errors import UnknownNameError
from autodistill.core.records import Objective
from autodistill.search.sampler import by_name as samplers
from autodistill.search.space.space import Space

WIDTHS = {"student": {f"width{i}": {"values": [8, 16, 32, 64]} for i in range(4)}}
DIRECTIONS = ["maximize", "minimize"]
OBJECTIVES = (
    Objective("accuracy", "maximize", "fraction", "trained"),
    Objective("params", "minimize", "count", "known", log=True),
)


def params(student):
    return {"params": float(sum(student.values()))}


def test_every_name_builds_a_sampler_that_can_run():
    space = Space.parse(WIDTHS)
    for name in samplers.SAMPLERS:
        built = samplers.build_sampler(name, space, seed=0, objectives=OBJECTIVES, costs=params)
        study = optuna.create_study(directions=DIRECTIONS, sampler=built)
        trial = study.ask()
        assert set(space.suggest(trial)["student"]) == {f"width{i}" for i in range(4)}


def test_an_unknown_sampler_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="did you mean 'nsga3' or 'nsga2'"):
        samplers.build_sampler("nsga", Space.parse(WIDTHS), seed=0, objectives=OBJECTIVES)
