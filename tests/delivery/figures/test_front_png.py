from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autodistill.core.records import State, TrialRecord
from autodistill.delivery.figures import front_png as plots
from autodistill.delivery.verify.plot import verify_png
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front, HypervolumeBox
from autodistill.search.results.verified import Figure as Figure_
from autodistill.search.results.verified import Verified, VerifiedRow

THREE = resolve(["accuracy", "params", "latency_ms"])
POINTS = [(0.95, 1e6, 3.0), (0.90, 1e5, 1.0), (0.85, 2e4, 0.5), (0.80, 9e5, 4.0), (0.89, 5e5, 1.5)]


def trials() -> list[TrialRecord]:
    return [
        TrialRecord(
            i, State.COMPLETE, {"accuracy": a, "params": p, "latency_ms": x}, {"width": i}, {"loss": "kd"}, {}, 0
        )
        for i, (a, p, x) in enumerate(POINTS)
    ]


def front(teacher: dict[str, float] | None = None, names: Any = THREE) -> Front:
    return Front.of("flowers", names, trials(), scale=HypervolumeBox((1.0, 1e4, 0.1), (0.0, 2e6, 5.0)), teacher=teacher)


def drawn(result: Front, monkeypatch: pytest.MonkeyPatch, path: Path) -> Any:
    """The axes that ``front_png`` drew."""
    from matplotlib.figure import Figure

    seen: list[Any] = []
    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), original(self, *a, **k))[1])
    plots.front_png(result, path)
    return seen[0].axes[0]


def test_the_picture_is_a_png_of_readme_size_with_ink_on_it(tmp_path: Path) -> None:
    plots.front_png(front(), tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.format == "PNG"
        assert 1000 <= picture.width <= 1600
        pixels = np.asarray(picture.convert("L"))
    assert 0.005 < (pixels < 200).mean() < 0.5


def test_dominated_trials_are_grey_and_members_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(front(), monkeypatch, tmp_path / "front.png")
    grey, members = axes.collections[:2]
    assert sorted(map(tuple, grey.get_offsets())) == [(1.5, 0.89), (4.0, 0.80)]
    assert sorted(map(tuple, members.get_offsets())) == [(0.5, 0.85), (1.0, 0.90), (3.0, 0.95)]
    assert axes.get_xscale() == "log"
    assert axes.get_title(loc="left") == "flowers: 3 students on the front"


def test_the_area_of_a_mark_is_proportional_to_the_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(front(), monkeypatch, tmp_path / "front.png")
    members = axes.collections[1]
    areas = dict(zip((tuple(p) for p in members.get_offsets()), members.get_sizes(), strict=True))
    assert areas[(3.0, 0.95)] == pytest.approx(10 * areas[(1.0, 0.90)])


def test_the_forms_of_a_trial_have_marks_labels_and_a_ring_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [("fp32", 0.9, 4e4, 1.0), ("int8", 0.9, 1e4, 2.0)]
    forms = tuple(
        TrialRecord(17, State.COMPLETE, {"accuracy": a, "params": p, "latency_ms": x}, {}, {}, {}, 0, variant=name)
        for name, a, p, x in values
    )
    result = Front("flowers", THREE, forms)
    axes = drawn(result, monkeypatch, tmp_path / "front.png")
    _, circles, squares, ring = axes.collections[:4]
    assert (circles.get_sizes()[0], tuple(circles.get_offsets()[0])) == (520.0, (1.0, 0.9))
    assert (squares.get_sizes()[0], tuple(squares.get_offsets()[0])) == (130.0, (2.0, 0.9))
    assert len(circles.get_paths()[0].vertices) != len(squares.get_paths()[0].vertices)
    knee = result.knee()
    assert knee is not None
    label = next(text for text in axes.texts if "knee" in text.get_text())
    assert label.get_text() == f"{knee.called}  knee"
    assert tuple(label.xy) == tuple(ring.get_offsets()[0]) == (knee.values["latency_ms"], knee.values["accuracy"])
    assert "int8 form" in [text.get_text() for text in axes.get_legend().get_texts()]
    assert axes.get_title(loc="left") == "flowers: 1 student in 2 forms on the front"


def test_the_teacher_is_a_star_where_its_latency_is_known_and_a_line_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(teacher: dict[str, float]) -> list[str]:
        axes = drawn(front(teacher), monkeypatch, tmp_path / "front.png")
        return [text.get_text() for text in axes.get_legend().get_texts()] + [
            text.get_text() for artist in axes.artists if hasattr(artist, "get_texts") for text in artist.get_texts()
        ]

    assert "teacher (0.97)" in labels({"accuracy": 0.97, "latency_ms": 8.0})
    assert "teacher (0.97)" in labels({"accuracy": 0.97})
    assert not any("teacher" in label for label in labels({}))


@pytest.mark.parametrize("names", [["accuracy", "params"], ["loss:minimize:trained", "params"], ["accuracy"]])
def test_any_objectives_can_be_drawn(names: list[str], tmp_path: Path) -> None:
    records = [
        TrialRecord(i, State.COMPLETE, {"accuracy": a, "params": p, "loss": 1 - a}, {}, {}, {}, 0)
        for i, (a, p, _) in enumerate(POINTS)
    ]
    result = Front.of("flowers", resolve([n.split(":")[0] for n in names]), records)
    plots.front_png(result, tmp_path / "front.svg")
    assert (tmp_path / "front.svg").read_text().startswith("<?xml")


def test_an_empty_front_is_a_picture_that_says_so(tmp_path: Path) -> None:
    plots.front_png(Front.of("flowers", THREE, []), tmp_path / "front.svg")
    assert (tmp_path / "front.svg").stat().st_size > 1000


def test_the_staircase_keeps_the_corners_of_two_objectives_alone() -> None:
    members = [
        *trials(),
        TrialRecord(9, State.COMPLETE, {"accuracy": 0.7, "params": 1.0, "latency_ms": 1.2}, {}, {}, {}, 0),
    ]
    accuracy, _, latency = THREE
    assert plots._staircase(members, latency, accuracy) == [(0.5, 0.85), (1.0, 0.90), (3.0, 0.95)]


@pytest.mark.parametrize(
    ("value", "said"), [(1250000, "1.25M"), (0.9634, "0.963"), (99, "99"), (2e9, "2G"), (1500, "1.5k")]
)
def test_numbers_on_axes_are_short(value: float, said: str) -> None:
    assert plots._short(value) == said


def alone(accuracy: float, **keys: Any) -> Front:
    """A front of one student, knee of itself."""
    only = TrialRecord(11, State.COMPLETE, {"accuracy": accuracy, "params": 5e3, "latency_ms": 0.16}, {}, {}, {}, 0)
    return Front.of("one", THREE, [only], scale=HypervolumeBox((1.0, 1e3, 0.1), (0.0, 2e6, 5.0)), **keys)


@pytest.mark.parametrize("teacher", [{}, {"accuracy": 0.99}, {"accuracy": 0.99, "latency_ms": 0.16}])
def test_a_single_student_stands_in_a_frame_with_its_label_inside(
    teacher: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    axes = drawn(alone(0.977, teacher=teacher), monkeypatch, tmp_path / "front.png")
    assert [str(one.message) for one in recwarn] == []
    low, high = axes.get_xlim()
    assert low < 0.15
    assert high > 0.18
    assert axes.get_ylim()[1] <= 1.01  # an accuracy above 1 does not exist
    assert max(tick for tick in axes.get_yticks() if tick <= axes.get_ylim()[1]) <= 1.0
    label = next(text for text in axes.texts if "knee" in text.get_text())
    assert label.get_window_extent().x0 > axes.get_window_extent().x0


def test_no_share_above_one_is_drawn_where_the_worst_trials_lie_below_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(0.99, 1e4, 2.0), (0.97, 5e3, 1.0), (0.2, 5e3, 1.5)]
    some = [
        TrialRecord(i, State.COMPLETE, {"accuracy": a, "params": p, "latency_ms": x}, {}, {}, {}, 0)
        for i, (a, p, x) in enumerate(rows)
    ]
    axes = drawn(Front.of("f", THREE, some), monkeypatch, tmp_path / "front.png")
    assert any("1 dominated outside" in text.get_text() for text in axes.texts)
    assert axes.get_ylim()[1] < 1.005


def test_an_empty_front_has_no_axes_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(Front.of("flowers", THREE, []), monkeypatch, tmp_path / "front.png")
    assert not axes.axison
    assert "no trial is COMPLETE yet" in axes.texts[0].get_text().replace("\n", " ")


def test_a_verification_of_one_student_is_drawn_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from matplotlib.figure import Figure

    only = VerifiedRow(
        "student", "tiny", 3, accuracy=Figure_(0.96, None, 0.94, 0.98), file_latency_ms=0.0266, searched=0.98
    )
    twin = VerifiedRow("twin", "tiny", 3, accuracy=Figure_(0.95), file_latency_ms=0.0266)
    found = Verified("digits", (("accuracy", "maximize"),), (only, twin), 1, "train", 9)
    seen: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: seen.append(self))
    verify_png(found, tmp_path / "v.png")
    low, high = seen[0].axes[0].get_xlim()
    assert low < 0.02 < 0.03 < high
    assert "one seed" in seen[0].axes[0].get_ylabel()
    assert [str(one.message) for one in recwarn] == []


def test_numbers_of_marks_that_nearly_touch_stand_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    places = {3: (0.900, 0.05), 8: (0.9011, 0.0501), 5: (0.96, 0.05), 7: (0.9005, 0.08)}
    rows = tuple(
        VerifiedRow("student", "tiny", n, accuracy=Figure_(mean, None, mean - 0.02, mean + 0.02), file_latency_ms=x)
        for n, (mean, x) in places.items()
    )
    seen: list[Any] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: seen.append(self))
    verify_png(Verified("digits", (("accuracy", "maximize"),), rows, 3, "train", 9), tmp_path / "v.png")
    assert sorted(text.get_text() for text in seen[0].axes[0].texts) == ["5", "7", "8, 3"]
