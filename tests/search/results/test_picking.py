from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from autodistill.core.errors import UsageError
from autodistill.core.records import State, TrialRecord
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front, HypervolumeBox
from autodistill.search.results.picking import settled, verified_rows, whole
from autodistill.search.results.verified import VERIFY_FILE, Figure, FrontVerdict, Verified, VerifiedRow
from autodistill.search.storage.study_folder import dump_json

TWO = resolve(["accuracy", "params"])


def trial(number: int, accuracy: float, params: float, variant: str = "fp32") -> TrialRecord:
    values = {"accuracy": accuracy, "params": params}
    distillation = {"loss": "kd", "alpha": 0.1}
    return TrialRecord(number, State.COMPLETE, values, {"width": number}, distillation, {}, 0, variant=variant)


TRIALS = [trial(1, 0.95, 100), trial(2, 0.97, 200), trial(3, 0.99, 400), trial(4, 0.94, 110)]
"""1, 2 and 3 are on the front, 4 is not."""


def row(number: int, accuracy: float, verdict: FrontVerdict, width: int | None = None) -> VerifiedRow:
    student = {"width": number if width is None else width}
    distillation = {"loss": "kd", "alpha": 0.1}
    figure = Figure(accuracy)
    return VerifiedRow(
        "student", "s", trial=number, student=student, distillation=distillation, accuracy=figure, verdict=verdict
    )


ROWS = [row(1, 0.90, "stays"), row(2, 0.96, "stays"), row(3, 0.955, "falls"), row(4, 0.93, "joins")]


def front(folder: Path | None, rows: Sequence[VerifiedRow] = ()) -> Front:
    if folder is not None and rows:
        found = Verified("toy", (("accuracy", "maximize"), ("params", "minimize")), tuple(rows), 3)
        (folder / VERIFY_FILE).write_text(dump_json(found.to_json()))
    return Front.of("toy", TWO, TRIALS, scale=HypervolumeBox((1.0, 10.0), (0.0, 1000.0)), directory=folder)


def test_without_a_verification_the_search_decides_and_nothing_is_said(tmp_path: Path) -> None:
    for made in (front(None), front(tmp_path)):
        best, knee = made.pick("params <= 1e6"), made.knee()
        assert knee is not None
        assert (best.number, best.picked, knee.picked) == (3, "", "")


def test_what_stayed_on_the_verified_front_is_picked_before_what_fell_off(tmp_path: Path) -> None:
    best = front(tmp_path, ROWS).pick("params <= 1e6")
    assert best.number == 2
    assert best.picked == (
        "trial 2 was picked among 3 students on the verified front that satisfy 'params <= 1e6', by verified figures."
    )


def test_a_student_that_joined_the_verified_front_can_be_picked(tmp_path: Path) -> None:
    best = front(tmp_path, ROWS).pick("params <= 150")
    assert best.number == 4  # 0.93 verified, above 0.90 of trial 1
    assert "picked" not in best.to_json()


def test_bounds_on_accuracy_are_held_against_verified_accuracies(tmp_path: Path) -> None:
    made = front(tmp_path, ROWS)
    assert made.pick("accuracy >= 0.95").number == 2
    with pytest.raises(
        UsageError,
        match=r"By the figures of the search, trial 3 would; by verified figures, none does\.",
    ):
        made.pick("accuracy >= 0.98")


def test_a_student_off_the_verified_front_is_picked_with_a_note_if_none_on_it_fits(tmp_path: Path) -> None:
    fell = front(tmp_path, ROWS).pick("params >= 300")
    assert fell.number == 3
    assert fell.picked == (
        "no student on the verified front satisfies 'params >= 300'; trial 3 was picked, which fell off when verified."
    )
    unknown = front(tmp_path, ROWS[:1]).pick("params >= 300")
    assert unknown.number == 3
    assert unknown.picked.endswith("trial 3 was picked, which was not verified.")


def test_the_knee_is_nearest_to_the_ideal_on_axes_that_the_front_spans() -> None:
    # in the box of the hypervolume (accuracy 0 to 1) these accuracies are nearly equal, and the cheapest is nearest
    trials = [trial(1, 0.887, 10_000), trial(2, 0.910, 20_000), trial(3, 0.920, 100_000)]
    found = Front.of("toy", TWO, trials, scale=HypervolumeBox((1.0, 100.0), (0.0, 1e6))).knee()
    assert found is not None
    assert found.number == 2
    alone = Front.of("toy", TWO, trials[:1]).knee()
    assert alone is not None
    assert alone.number == 1


def test_the_knee_is_a_member_that_stayed(tmp_path: Path) -> None:
    before = front(None).knee()
    after = front(tmp_path, [row(1, 0.90, "falls"), row(2, 0.96, "falls"), row(3, 0.97, "stays"), ROWS[3]]).knee()
    assert before is not None
    assert after is not None
    assert (before.number, after.number) == (2, 3)
    assert after.picked == "trial 3 was picked among 1 student on the verified front, by verified figures."
    fallen = front(tmp_path, [row(n, 0.9, "falls") for n in (1, 2, 3)]).knee()
    assert fallen is not None
    assert fallen.picked == "no member is on the verified front; trial 1 was picked, which fell off when verified."


def numbers(members: Sequence[TrialRecord]) -> list[int]:
    return [one.number for one in members]


def test_the_whole_front_is_the_verified_one(tmp_path: Path) -> None:
    chosen = whole(front(tmp_path, ROWS))
    assert numbers(chosen.members) == [1, 2, 4]
    left = {reason: numbers(members) for reason, members in chosen.left_out.items()}
    assert left == {"fell off when verified": [3]}
    assert chosen.said == ("this is the verified front; trial 4 joined it; left out: trial 3 (fell off when verified).")


def test_the_whole_front_has_what_was_not_verified_while_the_verified_front_is_not_known(tmp_path: Path) -> None:
    chosen = whole(front(tmp_path, ROWS[1:3]))
    assert numbers(chosen.members) == [1, 2]
    assert numbers(chosen.unverified) == [1]
    assert numbers(chosen.left_out["fell off when verified"]) == [3]
    assert chosen.said == (
        "this is the front of the search, 2 of 3 students on it verified; not verified: trial 1; "
        "left out: trial 3 (fell off when verified)."
    )


def test_no_student_joins_while_an_unverified_member_is_better_in_the_search(tmp_path: Path) -> None:
    alone = front(tmp_path, [row(4, 0.93, "joins")])  # trial 1 is more accurate and smaller
    assert numbers(whole(alone).members) == [1, 2, 3]
    assert (alone.pick("params <= 150").number, alone.pick("params <= 1e6").number) == (1, 3)
    assert verified_rows(alone)[4].verdict == "outside"
    assert verified_rows(front(tmp_path, [row(1, 0.90, "stays"), row(4, 0.93, "joins")]))[4].verdict == "joins"


def test_verified_results_are_compared_with_members_that_were_not_verified() -> None:
    rows = [
        row(4, 0.93, "joins"),
        row(2, 0.96, "stays"),
        VerifiedRow("twin", "s", trial=4),
        VerifiedRow("teacher", "t"),
    ]
    assert [one.verdict for one in settled(front(None), rows)] == ["outside", "stays", "", ""]
    unfinished = VerifiedRow("student", "s", trial=1)  # without a verdict nothing is known of it
    assert settled(front(None), [rows[0], unfinished])[0].verdict == "outside"
    assert settled(front(None), [rows[0], row(1, 0.90, "stays")])[0].verdict == "joins"


def test_one_verified_member_does_not_hide_better_ones_that_were_not(tmp_path: Path) -> None:
    partly = front(tmp_path, [row(1, 0.90, "stays"), row(3, 0.955, "falls")])
    best, knee = partly.pick("params <= 1e6"), partly.knee()
    assert knee is not None
    assert (best.number, knee.number) == (2, 1)  # 3 fell off; of 1 and 2 each is at an end, and the first is taken
    assert best.picked == (
        "2 of 3 students on the front were verified, so the figures of the search decided: "
        "trial 2 was picked, which was not verified."
    )
    assert knee.picked.endswith("trial 1 was picked, which stayed on the front when verified.")
    kept = front(tmp_path, [row(2, 0.80, "stays")]).pick("params <= 250")
    assert kept.number == 2  # 0.97 in the search: a mean of fresh seeds is not held against a figure that flatters
    only_fell = front(tmp_path, [row(3, 0.955, "falls")]).pick("params >= 300")
    assert only_fell.picked.endswith("trial 3 was picked, which fell off when verified.")


def test_the_whole_front_is_that_of_the_search_where_nothing_is_verified_or_changed(tmp_path: Path) -> None:
    stayed = [row(number, 0.9, "stays") for number in (1, 2, 3)]
    for made in (front(None), front(tmp_path), front(tmp_path, stayed)):
        assert ([one.number for one in whole(made).members], whole(made).said) == ([1, 2, 3], "")
    (tmp_path / VERIFY_FILE).write_text("{")
    damaged = whole(front(tmp_path))
    assert [one.number for one in damaged.members] == [1, 2, 3]
    assert "the front is that of the search" in damaged.said


def test_an_int8_form_goes_with_its_trial(tmp_path: Path) -> None:
    front(tmp_path, [row(1, 0.90, "stays"), row(3, 0.5, "falls")])
    forms = [trial(1, 0.93, 50, variant="int8"), trial(3, 0.98, 90, variant="int8")]
    made = Front.of("toy", TWO, [*TRIALS, *forms], directory=tmp_path)
    chosen = whole(made)
    assert {(one.number, one.variant) for one in chosen.members} == {(1, "int8"), (1, "fp32")}
    assert "3 (int8), 3 (fell off when verified)" in chosen.said


def test_a_row_of_other_settings_stands_for_no_trial(tmp_path: Path) -> None:
    best = front(tmp_path, [row(1, 0.90, "stays"), row(3, 0.1, "falls", width=99)]).pick("params >= 300")
    assert best.picked.endswith("trial 3 was picked, which was not verified.")


def test_a_row_stands_for_no_int8_form(tmp_path: Path) -> None:
    front(tmp_path, [row(1, 0.90, "stays")])
    made = Front.of("toy", TWO, [trial(1, 0.95, 90, variant="int8")], directory=tmp_path)
    assert made.pick("params <= 1e6").picked == ""


def test_a_damaged_verification_stops_no_pick_and_is_said(tmp_path: Path) -> None:
    (tmp_path / VERIFY_FILE).write_text("{")
    best = front(tmp_path).pick("params <= 1e6")
    assert best.number == 3
    assert "picked by the figures of the search" in best.picked
    assert "Run 'autodistill verify' again." in best.picked
