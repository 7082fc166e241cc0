from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import report_studies
from places import ROOT
from report_page import Page
from report_studies import HOSTILE, QUOTES
from typer.testing import CliRunner

from autodistill.cli import app
from autodistill.core.errors import StoreError
from autodistill.core.records import State, TrialRecord
from autodistill.delivery.report import tables as report_tables
from autodistill.delivery.report.answers import answers_of, gain_verdict
from autodistill.delivery.report.bounds import round_bound
from autodistill.delivery.report.growth import growth_part
from autodistill.delivery.report.page import policy, script_json
from autodistill.delivery.report.write import _best_words, _metric_words, write_report
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.front import Front
from autodistill.search.results.verified import VERIFY_FILE, Difference, Figure, Verified, VerifiedRow
from autodistill.search.storage.study_folder import dump_json
from autodistill.search.study.study import Study


@pytest.fixture(scope="module")
def study() -> Study:
    return report_studies.make(trials=40)


@pytest.fixture(scope="module")
def page(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(study, path, price_per_hour=2.5)
    return Page(path)


@pytest.fixture(scope="module")
def verified_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("verified") / "study"
    made = report_studies.make(trials=40, directory=folder)
    (folder / VERIFY_FILE).write_text(dump_json(report_studies.verification(made.front()).to_json()))
    return made


def test_names_from_a_study_stay_text_everywhere(page: Page) -> None:
    assert HOSTILE in page.text("front")
    assert QUOTES in page.text("environment")
    assert f"broken {HOSTILE}" in page.text("stopped")
    assert [tag for tag, _ in page.tags].count("script") == 3  # data, plotly, ours
    assert "img" not in [tag for tag, _ in page.tags]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    hover = [text for trace in page.data["figures"]["front"]["data"] for text in trace.get("hovertext") or ()]
    assert any("&lt;script&gt;" in text for text in hover)
    assert not any("<script" in text or "<img" in text for text in hover)


def test_the_policy_allows_exactly_the_scripts_of_the_page_and_no_network(page: Page) -> None:
    content = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    rules = dict(part.strip().split(" ", 1) for part in content.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts[1:]}
    assert set(re.findall(r"'sha256-([^']+)'", rules["script-src"])) == hashes
    assert "unsafe" not in rules["script-src"]
    assert "http" not in content


def test_nothing_in_the_page_points_to_the_network(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "url(" not in page.source[: page.source.index("report-data")]


@pytest.mark.parametrize("text", [HOSTILE, QUOTES, "<!--", "a & b", "\u2028"])
def test_json_in_a_script_element_cannot_end_it(text: str) -> None:
    written = script_json({"name": text})
    assert not re.search(r"[<>&]", written)
    assert json.loads(written) == {"name": text}


def test_the_policy_of_a_known_script_is_its_sha256() -> None:
    # SHA-256 of "abc", FIPS 180-2
    digest = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy(["abc"])


def test_headings_tables_and_pictures_have_text_for_screen_readers(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    pictures = [a for _, a in page.tags if a.get("role") == "img"]
    assert pictures
    assert all(a.get("aria-label") for a in pictures if "data-figure" in a)
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert all((a["href"] or "")[1:] in ids for t, a in page.tags if t == "a")
    labelled = {a["for"] for t, a in page.tags if t == "label" and "for" in a}
    assert "bound" in labelled


def test_without_verification_the_report_says_loudly_that_figures_flatter(page: Page) -> None:
    short = page.text("short")
    assert "These figures are from the search and biased upwards." in short
    assert "autodistill verify" in short
    assert "test split has not been opened" in short
    assert "Not verified. One run" in short


def test_a_verified_report_answers_with_the_test_split(verified_study: Study, tmp_path: Path) -> None:
    written = write_report(verified_study, tmp_path / "r.html")
    front = verified_study.front()
    for row in written.facts["within"]:
        fitting = [
            t for t in front.trials if 0.9 * t.values["latency_ms"] <= row["bound"]
        ]  # the file is a tenth faster
        best = max(fitting, key=lambda t: t.values["accuracy"])
        assert (row["trial"], row["name"]) == (best.number, str(best.number))
    assert "Diamonds are verified means on the test split." in Page(tmp_path / "r.html").text("front")
    short = Page(tmp_path / "r.html").text("short")
    assert (
        f"It reaches accuracy {max(t.values['accuracy'] for t in front.trials) - 0.01:.4f} on the test split" in short
    )
    assert "95 % interval" in short
    assert "biased upwards" not in short
    assert "The teacher reaches 0.9650 on the same test images." in short
    apart = 100 * (written.facts["best"]["value"] - 0.9650)
    points = f"{abs(round(apart, 1)):g}"
    many = "" if points == "1" else "s"
    assert f"The most accurate student is {points} point{many} {'below' if apart < 0 else 'above'} it." in short
    assert "as an exported file" in short
    judged = "Verdicts take latency_ms of the exported file, which is what ships."
    assert judged in Page(tmp_path / "r.html").text("verified")
    gain = Page(tmp_path / "r.html").text("gain")
    assert "verified, 3 seeds, 95 % interval" in gain
    assert "+0.0150" in gain


def test_a_report_of_a_partly_verified_front_answers_with_all_of_it_and_says_so(tmp_path: Path) -> None:
    made = report_studies.make(trials=40, directory=tmp_path / "s", seed=3)
    front = made.front()
    found = report_studies.verification(front)
    first, second, *_, last = sorted(front.trials, key=lambda t: -t.values["accuracy"])
    outside = next(t for t in front.others if all(t.values[n] >= second.values[n] for n in ("params", "latency_ms")))
    assert outside.values["accuracy"] < second.values["accuracy"]
    some = [row for row in found.rows if row.trial in (first.number, last.number)]
    joins = replace(
        some[0], trial=outside.number, student=outside.student, distillation=outside.distillation,
        train=outside.train, accuracy=Figure(0.999), before=False, verdict="joins", rivals=(),
    )  # fmt: skip
    partly = replace(found, rows=(joins, *some), front_before=len(front))
    (tmp_path / "s" / VERIFY_FILE).write_text(dump_json(partly.to_json()))
    written = write_report(made, tmp_path / "r.html")
    assert (written.facts["verified"], written.facts["unverified"]) == (False, len(front) - 2)
    assert written.facts["best"]["trial"] == first.number == front.pick("params <= 1e9").number
    assert (written.facts["best"]["verified"], written.facts["best"]["value"]) == (
        True,
        first.values["accuracy"] - 0.01,
    )
    shown = {one["trial"]: one for one in Page(tmp_path / "r.html").data["candidates"]}
    # the one that fell off is no candidate, nor is the one that an unverified member beats in the search
    assert set(shown) == {t.number for t in front.trials if t is not last}
    assert shown[first.number]["rank"] == first.values["accuracy"]
    assert shown[first.number]["cost"] == pytest.approx(first.values["latency_ms"])  # not its file's beside torch's
    assert (shown[second.number]["verified"], shown[second.number]["value"]) == (False, second.values["accuracy"])
    within = {row["trial"]: row["bound"] for row in written.facts["within"]}
    assert front.pick(f"latency_ms <= {within[second.number]}").number == second.number
    short = Page(tmp_path / "r.html").text("short")
    assert f"2 of {len(front)} students on the front are verified." in short
    assert "(verified where marked, otherwise figures of the search)" in short
    said = CliRunner().invoke(app, ["front", str(tmp_path / "s")]).stderr
    assert f"verified: 2 of {len(front)} students on the front; see" in said
    assert f"skip students that fell off: autodistill verify {tmp_path / 's'}" in said
    assert "joined it" not in said
    told = CliRunner().invoke(app, ["report", str(tmp_path / "s"), "-o", str(tmp_path / "r.html")]).stderr
    assert "Figures of unverified students come from the search" in told


def test_a_student_taught_by_an_embedding_alone_is_distilled() -> None:
    def made(number: int, accuracy: float, **distillation: str) -> TrialRecord:
        values = {"accuracy": accuracy, "params": 10.0 + number}
        return TrialRecord(number, State.COMPLETE, values, {"width": 4}, distillation, {}, 0)

    plain, taught = made(0, 0.90, loss="none"), made(1, 0.92, loss="none", embedding="embed_cosine")
    both = [plain, taught, made(2, 0.93, loss="kd", embedding="none")]
    front = Front.of("s", resolve(["accuracy", "params"]), both)
    found = {answer.trial: answer for answer in answers_of(front, both, None).candidates}
    assert found[0].distillation == "without distillation"
    assert (found[1].distillation, found[1].gain_short) == (
        "none embedding=embed_cosine",
        "+0.0200 (recipes may differ)",
    )
    assert found[1].gain.startswith("In the search it is +0.0200 ")
    assert found[2].gain_short == "+0.0300 (recipes may differ)"  # not against the one that the embedding taught
    assert "worse than the best distilled trial of the same student (2)" in found[0].gain
    assert "best distilled trial of the same student (1)" in answers_of(front, both[:2], None).candidates[0].gain
    row = VerifiedRow("student", "s", 1, {"width": 4}, taught.distillation, accuracy=Figure(0.91), verdict="stays")
    (verified,) = answers_of(Front.of("s", front.objectives, [taught]), both, Verified("s", (), (row,), 3)).candidates
    assert (verified.gain, verified.gain_short) == ("Not known: its undistilled twin was not verified.", "not known")


def test_a_gain_whose_interval_holds_zero_may_be_chance_and_another_is_real(verified_study: Study) -> None:
    front = verified_study.front()
    answers = answers_of(front, verified_study.trials(), report_studies.verification(front))
    assert answers.best is not None
    assert answers.best.gain.endswith("more than chance.")
    others = [a for a in answers.candidates if a.trial != answers.best.trial and "kd" in a.distillation]
    assert others
    assert all("may be chance" in a.gain for a in others)


def _undistilled(accuracy: float, images: int, gain: Difference | None = None) -> tuple[str, str]:
    """What search and verification say of an undistilled student (0.90 in the search) beside a distilled one."""

    def made(number: int, loss: str, value: float) -> TrialRecord:
        values = {"accuracy": value, "params": 10.0 + number}
        return TrialRecord(number, State.COMPLETE, values, {"width": 4}, {"loss": loss}, {}, 0)

    trials = [made(0, "none", 0.90), made(1, "kd", accuracy)]
    front = Front.of("s", resolve(["accuracy", "params"]), trials)
    figure = Figure(0.89)
    plain = VerifiedRow(
        "student", "s", 0, {"width": 4}, {"loss": "none"}, accuracy=figure, searched=0.90, verdict="stays"
    )
    taught = VerifiedRow("student", "s", 1, {"width": 4}, {"loss": "kd"}, accuracy=figure, verdict="falls", gain=gain)
    found = Verified("s", (), (plain, taught), 3, validation_images=images)
    of_search = answers_of(front, trials, None, images).candidates
    of_verify = answers_of(front, trials, found, images).candidates
    return of_search[0].gain, of_verify[0].gain


def test_one_validation_image_does_not_show_that_labels_alone_serve_better() -> None:
    for said in _undistilled(0.90 - 1 / 216, 216):
        assert "It was 0.0046 better than the best distilled trial of the same student (1)" in said
        assert "within the noise of 216 validation images (±0.0566), so this may be chance" in said
        assert "alone were better" not in said
        assert "distillation was better" not in said


def test_what_is_beyond_the_noise_of_the_validation_images_is_said() -> None:
    for said in _undistilled(0.80, 2000):  # 1.96 * sqrt(2 * 0.09 / 2000) = 0.0186
        assert "beyond the noise of 2,000 validation images (±0.0186): labels alone were better." in said
    assert "distillation was better" in _undistilled(0.99, 2000)[1]


def test_harm_by_distillation_that_was_verified_is_said() -> None:
    _, said = _undistilled(0.90, 216, Difference(-0.05, -0.08, -0.02, 3))
    assert "labels alone were better. Verified: with the distillation of trial 1 it loses 0.0500" in said
    _, unsure = _undistilled(0.90, 216, Difference(-0.05, -0.12, 0.02, 3))
    assert "alone were better" not in unsure
    assert "distillation was better" not in unsure


def test_a_bound_that_every_student_keeps_is_not_praised(tmp_path: Path) -> None:
    def made(number: int, accuracy: float, latency: float) -> TrialRecord:
        values = {"accuracy": accuracy, "latency_ms": latency}
        return TrialRecord(number, State.COMPLETE, values, {"width": number}, {"loss": "kd"}, {}, 0)

    objectives = resolve(["accuracy", "latency_ms"])
    quick = [made(0, 0.8, 0.1), made(1, 0.85, 0.3), made(2, 0.9, 0.4)]
    answers = answers_of(Front.of("s", objectives, quick), quick, None)
    words = _metric_words(objectives[1], answers)
    assert words["start"] == "0.3"  # keeps 2 out; 5 ms would keep nobody
    assert _best_words(answers, answers.within(5.0), {**words, "start": "5"}) == "Best in accuracy"
    slow = [*quick[:2], made(2, 0.82, 9.0)]
    answers = answers_of(Front.of("s", objectives, [*slow, made(3, 0.95, 7.0)]), slow, None)
    assert _metric_words(objectives[1], answers)["start"] == "5"
    dear = answers_of(Front.of("s", objectives, [made(0, 0.9, 0.1), made(1, 0.91, 4.0), made(2, 0.95, 7.0)]), [], None)
    assert _best_words(dear, dear.within(5.0), _metric_words(objectives[1], dear)) == "Best in accuracy"


def test_every_bound_has_a_student_of_its_own_and_leads_to_all_that_are_worth_it() -> None:
    costs = {1: (0.0102, 0.63), 2: (0.0137, 0.89), 3: (0.0184, 0.99), 4: (0.019, 0.98), 5: (0.0137, 0.80)}
    some = [
        TrialRecord(n, State.COMPLETE, {"accuracy": a, "latency_ms": c, "params": 9.0 - n}, {}, {}, {}, 0)
        for n, (c, a) in costs.items()
    ]
    found = answers_of(Front("s", resolve(["accuracy", "latency_ms", "params"]), tuple(some)), some, None)
    assert [(bound, answer.trial) for bound, answer in found.bounds] == [(0.011, 1), (0.014, 2), (0.02, 3)]
    assert all(found.within(bound) == answer for bound, answer in found.bounds)


@pytest.mark.parametrize(
    ("cost", "below", "bound"),
    [(3.0, 9.0, 5.0), (5.0, 5.1, 5.0), (19642, 21000, 20000), (0.3, 0.4, 0.3), (1.0001, 1.0002, 1.0001), (0.0, 1, 0.0)],
)
def test_a_bound_is_as_round_as_the_next_student_lets_it_be(cost: float, below: float, bound: float) -> None:
    assert round_bound(cost, below) == bound


def test_a_damaged_verification_is_refused(tmp_path: Path) -> None:
    made = report_studies.make(trials=6, directory=tmp_path / "s")
    body = report_studies.verification(made.front()).to_json()
    body["test_images"] = 5
    (tmp_path / "s" / VERIFY_FILE).write_text(dump_json(body))
    with pytest.raises(StoreError, match="changed or cut"):
        write_report(made, tmp_path / "r.html")


@pytest.mark.parametrize(
    "objectives",
    [
        ("accuracy",),
        ("loss", "params"),
        ("accuracy", "params", "latency_ms", "macs"),
    ],
)
def test_studies_of_one_two_and_four_objectives_have_a_report(objectives: tuple[str, ...], tmp_path: Path) -> None:
    made = report_studies.make(objectives, trials=12)
    write_report(made, tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    front = page.data["figures"]["front"]
    marks = next(trace for trace in front["data"] if trace["meta"]["role"] == "front")
    assert sorted(row[0] for row in marks["customdata"]) == sorted(t.number for t in made.front().trials)
    offered = [axis["name"] for axis in front["layout"]["meta"]["axes"]]
    assert list(objectives) == offered[: len(objectives)]
    best = min(made.front().trials, key=lambda t: made.objectives[0].loss(t.values[objectives[0]]))
    assert f"trial {best.number}," in page.text("short")


def test_a_study_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    written = write_report(report_studies.make(trials=0), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert written.facts["best"] is None
    assert "No trial is COMPLETE yet (no trial), so there is no front" in page.text("short")
    assert "at least 4 COMPLETE trials; there are 0" in page.text("importance")
    assert "no trial is COMPLETE yet" in page.text("growth")


def test_a_study_with_one_complete_trial_has_a_front_of_one(tmp_path: Path) -> None:
    write_report(report_studies.make(trials=1), tmp_path / "r.html")
    page = Page(tmp_path / "r.html")
    assert "1 student that no other trial beats in every objective, among 1 COMPLETE trial." in page.text("front")
    assert "This needs at least two COMPLETE trials." in page.text("settings")


def test_an_unfinished_study_shows_its_partial_trials(tmp_path: Path) -> None:
    made = report_studies.make(trials=0)

    known = ("params", "latency_ms")
    made.set_known_costs([], lambda s: {name: report_studies.costs(s)[name] for name in known})
    with made.running("1trials"):
        candidate = made.ask()
        assert candidate is not None
        for report in list(report_studies.evaluate(candidate))[:2]:
            made.report(candidate, report)
        made.close(candidate)
    assert {t.state for t in made.trials()} == {State.PARTIAL}
    write_report(made, tmp_path / "r.html")
    assert "interrupted; continues when the study is resumed" in Page(tmp_path / "r.html").text("stopped")


def test_a_study_of_ones_own_evaluation_leaves_out_what_does_not_apply(page: Page) -> None:
    assert "No student's network is kept in this study" in page.text("students")
    assert "not recorded" not in page.text("environment")


def test_money_is_device_hours_times_the_price(study: Study, page: Page) -> None:
    seconds = sum(t.seconds for t in study.trials())
    facts = report_tables.cost_facts(study, None, 2.5)
    assert facts["device_hours"] == pytest.approx(seconds / 3600)
    assert facts["money"] == pytest.approx(2.5 * seconds / 3600)
    assert f"{2.5 * seconds / 3600:,.2f}" in page.text("cost")


def test_stopped_trials_are_counted_by_reason_with_examples(study: Study) -> None:
    found = report_tables.stopped_table(study.trials())
    assert found is not None
    counts = {row[0]: int(row[2]) for row in found.rows}
    trials = study.trials()
    assert counts["RUNG_RULE"] == sum(t.reason == "RUNG_RULE" for t in trials)
    assert counts["ERROR"] == sum(t.reason == "ERROR" for t in trials) > 0
    assert sum(counts.values()) == sum(t.state is not State.COMPLETE for t in trials)


def test_epochs_saved_are_those_between_the_stop_and_the_top() -> None:
    def trial(number: int, epochs: float, reason: str) -> TrialRecord:
        state = State.PRUNED if reason else State.COMPLETE
        return TrialRecord(number, state, {}, {}, {}, {}, 0, epochs=epochs, reason=reason)

    trials = [trial(0, 20, ""), trial(1, 2, "RUNG_RULE"), trial(2, 8, "RUNG_RULE"), trial(3, 0, "INFEASIBLE")]
    # saved 18 + 12 = 30 of 30 + 30 trained
    words = report_tables.saved_by_stopping(trials, 20)
    assert "stopped 2 of 3 trained trials and saved 30 epochs, 50%" in words


def test_gain_in_the_search_is_against_the_best_undistilled_run() -> None:
    def trial(number: int, loss: str, accuracy: float) -> TrialRecord:
        values = {"accuracy": accuracy, "params": 10.0 + number}
        return TrialRecord(number, State.COMPLETE, values, {"width": 4}, {"loss": loss}, {}, 0)

    trials = [trial(0, "none", 0.80), trial(1, "none", 0.82), trial(2, "kd", 0.85)]
    front = Front.of("s", resolve(["accuracy", "params"]), trials)
    found = report_tables.gain_table(front, trials, None)
    assert found is not None
    assert [(row[0], row[3], row[4], row[5]) for row in found.rows] == [("2", "0.8500", "0.8200", "+0.0300")]


def test_the_command_writes_the_file_and_names_the_next_step(verified_study: Study, tmp_path: Path) -> None:
    folder = str(verified_study.directory)
    done = CliRunner().invoke(
        app, ["report", folder, "-o", str(tmp_path / "r.html"), "--price-per-hour", "2.5", "--json"]
    )
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["bytes"] == (tmp_path / "r.html").stat().st_size
    assert facts["verified"] is True
    assert facts["best"]["gain"].startswith("Distillation gained +0.0150")
    wrong = CliRunner().invoke(app, ["report", folder, "-o", str(tmp_path / "r.pdf")])
    assert wrong.exit_code == 2
    missing = CliRunner().invoke(app, ["report", folder, "-o", str(tmp_path / "no" / "r.html")])
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


def test_the_front_mentions_the_verification(verified_study: Study, tmp_path: Path) -> None:
    folder = str(verified_study.directory)
    said = CliRunner().invoke(app, ["front", folder]).stderr
    assert "on the verified front; see " in said
    assert f"{folder}/verify.csv, or: autodistill report {folder}" in said.replace("'", "")
    assert "verified" not in CliRunner().invoke(app, ["front", folder, "--json"]).stderr
    report_studies.make(trials=3, directory=tmp_path / "s")
    assert "verified" not in CliRunner().invoke(app, ["front", str(tmp_path / "s")]).stderr


def test_the_front_marks_the_verified_place_of_each_member(verified_study: Study) -> None:
    folder, members = str(verified_study.directory), verified_study.front().trials
    last = min(members, key=lambda t: t.values["accuracy"])  # the one that the verification lets fall
    header, *lines = CliRunner().invoke(app, ["front", folder]).stdout.splitlines()
    assert "verified" in header
    assert {line.split()[0]: "FELL OFF" in line for line in lines[: len(members)] if line.split()[0].isdigit()}[
        str(last.number)
    ]
    found = json.loads(CliRunner().invoke(app, ["front", folder, "--json"]).stdout)
    verdicts = {one["number"]: one["verified"]["verdict"] for one in found["trials"]}
    assert verdicts == {t.number: "falls" if t is last else "stays" for t in members}
    assert last.number not in found["verified_front"]
    one = CliRunner().invoke(app, ["front", folder, "--pick", "params <= 1e9", "--json"])
    assert "on the verified front that satisfy 'params <= 1e9', by verified figures." in one.stderr
    assert json.loads(one.stdout)["verified"]["verdict"] == "stays"


def test_report_names_no_folder_of_its_owner(verified_study: Study, tmp_path: Path) -> None:
    write_report(verified_study, tmp_path / "r.html")
    assert str(verified_study.directory) not in (tmp_path / "r.html").read_text()


def test_the_command_in_the_page_has_the_path_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report_studies.make(trials=4, directory=tmp_path / "runs" / "a b")
    monkeypatch.chdir(tmp_path)
    for given in ("runs/a b", str(tmp_path / "runs" / "a b")):
        said = CliRunner().invoke(app, ["report", given, "-o", "r.html"])
        assert "autodistill verify 'runs/a b'" in Page(tmp_path / "r.html").text("short")
        assert f"next:\n  autodistill verify '{given}'" in said.stderr


def test_short_estimates_are_in_minutes_and_flags_are_not_broken(tmp_path: Path) -> None:
    write_report(report_studies.make(trials=1), tmp_path / "r.html")
    cost = Page(tmp_path / "r.html").text("cost")
    assert re.search(
        r"took [\d.e-]+ minutes of wall-clock time and [\d.]+ minutes? of device time for 18 epochs in 1 trial", cost
    )
    assert "<code>--price-per-hour</code> turns" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_a_report_of_a_thousand_trials_stays_small(tmp_path: Path) -> None:
    from autodistill.delivery.report.page import _plotly

    made = report_studies.make(trials=1000)
    written = write_report(made, tmp_path / "r.html")
    assert written.bytes - len(_plotly()) < 2_000_000


def test_the_answer_within_the_first_bound_needs_no_script(tmp_path: Path) -> None:
    made = report_studies.make(trials=12, seed=2)
    write_report(made, tmp_path / "r.html")
    best = made.front().pick("latency_ms <= 5")
    words = Page(tmp_path / "r.html").text("short").partition("at most ms")[2]
    assert words.strip().startswith(f"Trial {best.number}, ")
    assert "It is the best of all, as above." in words
    above = Page(tmp_path / "r.html").text("short").partition("at most ms")[0]
    assert above.index("Gain from distillation") < above.index("How certain this is")


def test_every_reason_that_a_search_gives_has_a_meaning() -> None:
    source = ROOT / "autodistill"
    text = "\n".join(path.read_text() for path in [*(source / "search").rglob("*.py"), source / "core" / "errors.py"])
    given = set(
        re.findall(r'"(PAUSED|TIME|BUDGET|INTERRUPTED|RUNG_RULE|DUPLICATE|NAN|NON_FINITE|ATTEMPTS|ENDED_EARLY)"', text)
    )
    assert len(given) == 10
    assert given <= set(report_tables.REASONS)


def test_harm_that_distillation_did_is_not_called_a_gain() -> None:
    assert gain_verdict(Difference(-0.02, -0.03, -0.01, 3)) == "harm more than chance"
    assert gain_verdict(Difference(-0.02, -0.05, 0.01, 3)) == "harm may be chance"
    assert gain_verdict(Difference(0.02, 0.01, 0.03, 3)) == "gain more than chance"
    assert gain_verdict(Difference(0.02, 0.01, 0.03, 1)) == "gain may be chance: one seed is not enough"


def test_sentences_about_one_seed_follow_its_interval(verified_study: Study) -> None:
    front = verified_study.front()
    found = report_studies.verification(front)
    gain = Difference(0.015, 0.008, 0.022, 1)
    once = tuple(replace(row, seeds=(11,), rivals=(), gain=row.gain and gain) for row in found.rows)
    for answer in answers_of(front, verified_study.trials(), replace(found, rows=once, seeds=1)).candidates:
        assert "does not exclude zero" not in answer.gain
        assert "No cheaper verified student" not in answer.sure
        if "fell off" not in answer.sure:
            assert answer.sure.endswith("is as good is unknown: one seed is not enough.")
        if "kd" in answer.distillation:
            assert "this may be chance. One seed is not enough; the interval covers the choice of test" in answer.gain
    several = answers_of(front, verified_study.trials(), found).candidates
    assert any("No cheaper verified student is within noise of it." in answer.sure for answer in several)


def test_growth_is_counted_in_trials_that_reached_the_top_rung(study: Study) -> None:
    front = study.front()
    found = growth_part(study, front)
    within = len(front.trials) + len(front.others)
    assert f"{within} of them trained to the end" in found["growth_words"]
    place = found["growth"].columns.index("trained to the end")
    counts = [int(row[place]) for row in found["growth"].rows]
    assert counts == sorted(set(counts))
    assert counts[-1] <= within
