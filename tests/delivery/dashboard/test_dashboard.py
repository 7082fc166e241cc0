from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import toys

import autodistill as ad
from autodistill.commands.console.reading import read_study
from autodistill.core.errors import ResourceError
from autodistill.core.records import State, TrialRecord
from autodistill.delivery.dashboard.notes import annotate, attach, trial_note
from autodistill.delivery.dashboard.server import Running, dashboard
from autodistill.search.objectives.objectives import resolve
from autodistill.search.results.verified import Difference, Figure, VerifiedRow
from autodistill.search.storage.study_folder import folder_lock


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "toy"
    study = ad.Study.create(
        directory=path,
        name="toy",
        space=toys.SPACE,
        objectives=["accuracy", "params", "latency_ms"],
        constraints=["params <= 10000"],
        sampler="random",
        epochs=9,
        rungs={"eta": 3, "levels": list(toys.LEVELS)},
    )
    ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="12trials")
    return path


@contextlib.contextmanager
def served(folder: Path, *, write: bool = False) -> Iterator[Running]:
    with dashboard(read_study(folder), write=write) as running:
        thread = threading.Thread(target=running.server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield running
        finally:
            running.server.shutdown()
            thread.join(timeout=10)


class Client:
    """A browser in small: keeps the cookie, follows nothing."""

    def __init__(self, running: Running) -> None:
        self.port = int(running.server.server_address[1])
        self.token = running.url.partition("token=")[2]
        self.cookie = f"autodistill-dashboard-{self.port}={self.token}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
        sent = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie, "Origin": f"http://127.0.0.1:{self.port}"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer: HTTPResponse = connection.getresponse()
        out = answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")
        connection.close()
        return out

    def study(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("GET", "/api/studies/1")[2])
        return found


def test_the_first_visit_turns_the_token_into_a_cookie(folder: Path) -> None:
    with served(folder) as running:
        client = Client(running)
        status, headers, _ = client.ask("GET", f"/dashboard?token={client.token}", Cookie="")
        assert (status, headers["Location"]) == (303, "/dashboard")
        assert headers["Set-Cookie"] == f"{client.cookie}; Path=/; HttpOnly; SameSite=Strict"
        assert client.ask("GET", "/dashboard")[0] == 200
        away = client.ask("GET", f"//evil.example?token={client.token}", Cookie="")[1]["Location"]
        assert away == "/evil.example"


def test_requests_without_the_token_are_refused(folder: Path) -> None:
    with served(folder) as running:
        client = Client(running)
        assert client.ask("GET", "/dashboard", Host="evil.example")[0] == 421
        assert client.ask("GET", "/dashboard", Cookie="")[0] == 401
        assert client.ask("GET", "/dashboard?token=guess", Cookie="")[0] == 401
        assert client.ask("GET", "/dashboard", Cookie=f"autodistill-dashboard-{client.port}=guess")[0] == 401
        assert running.server.server_address[0] == "127.0.0.1"


def test_without_write_nothing_can_be_changed(folder: Path) -> None:
    with served(folder) as running:
        client = Client(running)
        changes = [("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename"), ("PUT", "/api/studies/1/note")]
        for method, path in [*changes, ("POST", "/enqueue"), ("POST", "/api/trials/1/tell")]:
            status, _, said = client.ask(method, path, "{}")
            assert (status, "read-only" in said) == (403, True), (method, path)


def test_with_write_comments_are_possible_and_deleting_is_not(folder: Path) -> None:
    with served(folder, write=True) as running:
        client = Client(running)
        version = client.study()["note"]["version"]
        note = json.dumps({"body": "seen", "version": version + 1})
        place, kind = "/api/studies/1/note", "application/json"
        assert client.ask("PUT", place, note, Content_Type=kind, Origin="http://evil.example")[0] == 403
        assert client.ask("PUT", place, note, Content_Type=kind, Origin="")[0] == 403
        assert client.ask("PUT", place, note, Content_Type=kind)[0] == 204
        assert client.ask("DELETE", "/api/studies/1")[0] == 403
        assert client.ask("POST", "/api/trials/1/tell", "{}")[0] == 403
    assert annotate(read_study(folder)) == 0  # somebody's own words are kept
    with served(folder) as running:
        assert Client(running).study()["note"]["body"] == "seen"


def test_with_write_no_attribute_of_a_trial_can_be_set_for_results_are_among_them(tmp_path: Path) -> None:
    for seed in range(20):  # the first that ends with one paused trial
        place = tmp_path / f"open-{seed}"
        study = ad.Study.create(
            directory=place, name="open", space=toys.SPACE, objectives=["accuracy", "params", "latency_ms"],
            sampler="random", epochs=9, rungs={"eta": 3, "levels": list(toys.LEVELS)}, seed=seed,
        )  # fmt: skip
        ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="14epochs")
        partial = [t.number for t in study.trials() if t.state is State.PARTIAL]
        if len(partial) == 1:
            break
    (number,) = partial
    before = study.optuna.trials[number].user_attrs
    forged = {f"rung:{len(toys.LEVELS)}": {"accuracy": 0.99, "epochs": 9.0}, "state": "COMPLETE", "mark": "seen"}
    with served(place, write=True) as running:
        client = Client(running)
        trial = next(t for t in client.study()["trials"] if t["number"] == number)
        for names in (forged, {"mark": "seen"}):
            body, path = json.dumps({"user_attrs": names}), f"/api/trials/{trial['trial_id']}/user-attrs"
            assert client.ask("POST", path, body, Content_Type="application/json")[0] == 403
        note = json.dumps({"body": "why so slow?", "version": trial["note"]["version"] + 1})
        path = f"/api/studies/1/{trial['trial_id']}/note"
        assert client.ask("PUT", path, note, Content_Type="application/json")[0] == 204
        noted = next(t for t in client.study()["trials"] if t["number"] == number)
    assert noted["note"]["body"] == "why so slow?"
    again = ad.Study.open(place)
    assert again.optuna.trials[number].user_attrs == before
    ad.search(again, evaluate=toys.evaluate, costs=toys.costs, budget="40epochs")
    assert all(t.values.get("accuracy", 0.0) != 0.99 for t in again.trials())


def test_the_dashboard_shows_notes_figures_and_infeasible_trials(folder: Path) -> None:
    with served(folder) as running:
        found = Client(running).study()
    trials = found["trials"]
    complete = next(t for t in trials if t["state"] == "Complete")
    assert complete["note"]["body"].startswith(f"## Trial {complete['number']}: width=")
    assert "accuracy by rung" in complete["note"]["body"]
    assert {g["id"] for g in found["plotly_graph_objects"]} == {"front", "hypervolume", "rung_curves"}
    infeasible = [t for t in trials if any(a == {"key": "reason", "value": "INFEASIBLE"} for a in t["user_attrs"])]
    assert infeasible
    assert all(t["constraints"][0] > 0 for t in infeasible)
    shown = {a["key"] for t in trials for a in t["user_attrs"]}
    assert {"state", "reason", "message"} >= shown


def test_a_candidate_is_added_in_the_browser_and_comes_first(tmp_path: Path) -> None:
    place = tmp_path / "own"
    study = ad.Study.create(
        directory=place, name="own", space=toys.SPACE, objectives=["accuracy", "params", "latency_ms"],
        sampler="random", epochs=9, rungs={"eta": 3, "levels": list(toys.LEVELS)},
    )  # fmt: skip
    ad.search(study, evaluate=toys.evaluate, costs=toys.costs, budget="2trials")
    form = "text=student%3A%0A++width%3A+64%0Atrain%3A%0A++lr%3A+0.25%0A"
    with served(place, write=True) as running:
        client = Client(running)
        assert "Add a candidate to own" in client.ask("GET", "/enqueue")[2]
        wrong = client.ask("POST", "/enqueue", "text=student%3A%0A++widht%3A+64")
        assert (wrong[0], "widht" in wrong[2]) == (400, True)
        assert "<script>" not in client.ask("POST", "/enqueue", "text=%3Cscript%3E")[2]
        for length in ("abc", "-5", "1e3"):
            status, _, said = client.ask("POST", "/enqueue", form, Content_Length=length)
            assert (status, "The length of the request is no number" in said) == (400, True)
        assert client.ask("POST", "/enqueue", form)[0] == 200
    again = ad.Study.open(place)
    ad.search(again, evaluate=toys.evaluate, costs=toys.costs, budget="3trials")
    assert dict(again.trials()[2].student) == {"width": 64}


def test_files_are_offered_for_download(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "student.onnx"
    model.write_bytes(b"weights")
    study = read_study(folder)
    with folder_lock(folder):
        attach(study, 0, [model])
        attach(study, 0, [model])
    with served(folder) as running:
        client = Client(running)
        first = client.study()["trials"][0]
        assert [a["filename"] for a in first["artifacts"]] == ["student.onnx"]
        place = f"/artifacts/1/{first['trial_id']}/{first['artifacts'][0]['artifact_id']}"
        status, headers, body = client.ask("GET", place)
        assert (status, body) == (200, "weights")
        assert "Access-Control-Allow-Origin" not in headers


def test_files_of_a_new_export_replace_those_of_the_last(folder: Path, tmp_path: Path) -> None:
    names = ("old.onnx", "both.onnx", "new.onnx")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    study = read_study(folder)
    with folder_lock(folder):
        attach(study, 1, [tmp_path / name for name in names[:2]])
        attach(study, 1, [tmp_path / name for name in names[1:]])
    with served(folder) as running:
        trial = Client(running).study()["trials"][1]
    assert sorted(a["filename"] for a in trial["artifacts"]) == ["both.onnx", "new.onnx"]
    kept = {path.read_bytes() for path in (folder / "artifacts").iterdir()}
    assert (b"new.onnx" in kept, b"old.onnx" in kept) == (True, False)


def test_the_address_leads_to_the_study_and_pages_name_their_origin_to_themselves(folder: Path) -> None:
    with served(folder, write=True) as running:
        assert running.url.startswith(f"http://127.0.0.1:{running.server.server_address[1]}/dashboard/studies/1?token=")
        headers = Client(running).ask("GET", "/enqueue")[1]
        assert headers["Referrer-Policy"] == "same-origin"  # no-referrer would make browsers post with "Origin: null"


def test_a_running_search_is_not_disturbed(folder: Path) -> None:
    with folder_lock(folder), served(folder) as running:
        assert running.busy
        assert Client(running).study()["trials"]


def test_names_from_files_are_not_markup_in_notes() -> None:
    bad = TrialRecord(0, State.FAIL, {}, {"family": "<img src=x>|`a`"}, {}, {}, 0, reason="ERROR", message="[x](y)\nz")
    note = trial_note(bad, [bad], resolve(["accuracy"]), on_front=False)
    assert "\\<img src=x\\>\\|\\`a\\`" in note
    assert "\\[x\\](y) z" in note


def test_control_characters_of_stored_names_never_reach_a_note() -> None:
    hostile = "a\x1b]0;x\x07\u2028\u202eb"
    trial = TrialRecord(
        0,
        State.FAIL,
        {},
        {"family": hostile, hostile: "x\ny"},
        {"loss": hostile},
        {},
        0,
        reason=hostile,
        message=hostile,
    )
    note = trial_note(trial, [trial], resolve(["accuracy"]), on_front=False)
    assert [c for c in note if c != "\n" and not c.isprintable()] == []


def test_the_note_of_a_verified_trial_has_its_verified_figures() -> None:
    trial = TrialRecord(3, State.COMPLETE, {"accuracy": 0.94}, {"width": 8}, {"loss": "kd"}, {}, 0)
    row = VerifiedRow(
        "student", "width=8", trial=3, seeds=(5, 6, 7), accuracy=Figure(0.91, 0.01, 0.89, 0.93),
        gain=Difference(0.02, 0.01, 0.03, 3),
    )  # fmt: skip
    note = trial_note(trial, [trial], resolve(["accuracy"]), on_front=True, verified=row)
    assert "| verified accuracy on test | 0.9100 ± 0.0100, 3 seeds |" in note
    assert "| verified gain from distillation | +0.0200, 95 % interval +0.0100 to +0.0300 |" in note


def test_a_taken_port_is_said(folder: Path) -> None:
    with served(folder) as running:
        port = int(running.server.server_address[1])
        with (
            pytest.raises(ResourceError, match=f"cannot listen on 127.0.0.1:{port}"),
            dashboard(read_study(folder), port=port),
        ):
            pass


def test_a_thousand_trials_are_annotated_once(tmp_path: Path) -> None:
    study = ad.Study.create(
        directory=tmp_path / "many", name="many", space={"student": {"width": {"low": 1, "high": 10**6}}},
        objectives=["accuracy", "params"], sampler="random", epochs=1, rungs="off",
    )  # fmt: skip

    def evaluate(candidate: ad.Candidate) -> Iterator[ad.Report]:
        width = candidate.student["width"]
        yield ad.Report(0, {"params": float(width)})
        yield ad.Report(1, {"accuracy": (width % 997) / 997}, 1, 0.01)

    ad.search(study, evaluate=evaluate, budget="150trials")
    assert annotate(study) == 151
    assert annotate(study) == 0
