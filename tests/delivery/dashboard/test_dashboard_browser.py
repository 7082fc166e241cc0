"""The dashboard's own process, driven in a real browser on loopback: ``pytest -m browser``."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import report_studies

import autodistill as ad
from autodistill.delivery.dashboard.notes import attach
from autodistill.search.storage.study_folder import folder_lock

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")]


@dataclass
class Served:
    """A dashboard process, and the browser's page with what it said and asked for."""

    url: str
    page: Any
    said: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    refused: list[tuple[int, str]] = field(default_factory=list)

    @property
    def base(self) -> str:
        """Scheme, host and port."""
        return self.url.split("/dashboard")[0]

    @property
    def port(self) -> int:
        """Of the server."""
        return int(self.base.rpartition(":")[2])

    def listen(self) -> None:
        """Note what the page says and asks for."""
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(re.sub(r"^(\w+://[^/]+).*", r"\1", request.url)))
        self.page.on("response", lambda r: self.refused.append((r.status, r.url)) if r.status >= 400 else None)

    def open(self, place: str) -> None:
        """Go to a page of the study."""
        self.page.goto(f"{self.base}/dashboard/studies/1{place}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of forty trials with hostile names and an exported file."""
    root = tmp_path_factory.mktemp("dashboard")
    study = report_studies.make(trials=40, directory=root / "study")
    (root / "model.onnx").write_bytes(b"weights of the student")
    with folder_lock(root / "study"):
        attach(study, study.front().trials[0].number, [root / "model.onnx"])
    return root / "study"


class Process:
    """A server as a process of its own, ended by the end of the block."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.url = ""
        for line in self.process.stdout:
            if found := re.search(r"http://(127\.0\.0\.1|localhost):\d+\S*", line):
                self.url = found[0]
                break
        assert self.url, f"it ended with {self.process.wait(timeout=30)} and gave no address"
        self.reader = threading.Thread(target=self.process.stdout.read)  # so that it never waits for its reader
        self.reader.start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.reader.join(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


def visit(browser: Any, url: str) -> Iterator[Served]:
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(60_000)
    served = Served(url, context.new_page())
    served.listen()
    served.page.goto(url)
    yield served
    context.close()


@pytest.fixture(scope="module")
def served(browser: Any, folder: Path) -> Iterator[Served]:
    with Process(sys.executable, "-m", "autodistill", "dashboard", str(folder), "--no-browser") as server:
        yield from visit(browser, server.url)


@pytest.fixture
def writable(browser: Any, folder: Path) -> Iterator[Served]:
    with Process(sys.executable, "-m", "autodistill", "dashboard", str(folder), "--no-browser", "--write") as server:
        yield from visit(browser, server.url)


def test_the_address_opens_the_study_and_the_token_leaves_it(served: Served) -> None:
    served.page.goto(served.url)
    served.page.get_by_text("flowers", exact=False).first.wait_for()
    assert served.page.url == f"{served.base}/dashboard/studies/1"
    assert served.page.evaluate("document.cookie") == ""  # scripts cannot read it


def test_the_pareto_plot_has_the_front_under_the_names_of_the_objectives(served: Served, folder: Path) -> None:
    served.open("")
    served.page.get_by_text("Pareto Front").wait_for()
    served.page.wait_for_selector("#graph-pareto-front .point, .js-plotly-plot .point")
    plots = served.page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot')].map((p) => p.data.map((t) => [...(t.x ?? [])]))"
    )
    front = ad.Study.open(folder).front()
    accuracies = {round(t.values["accuracy"], 6) for t in front.trials}
    shown = {round(float(x), 6) for traces in plots for xs in traces for x in xs if isinstance(x, (int, float))}
    assert accuracies <= shown
    words = served.page.locator("body").inner_text()
    assert all(name in words for name in ("accuracy", "params", "latency_ms"))


def test_a_trial_has_its_note_and_its_file(served: Served, folder: Path) -> None:
    trial = ad.Study.open(folder).front().trials[0]
    served.open(f"/trials?numbers={trial.number}")
    served.page.get_by_text("on the front", exact=False).first.wait_for()
    words = served.page.locator("body").inner_text()
    assert f"Trial {trial.number}: " in words
    assert "accuracy by rung" in words
    assert f"{trial.values['params']:,.0f}" in words
    assert "Best Trial" in words
    served.page.get_by_text("model.onnx").first.wait_for()
    link = served.page.locator("a[download], a[href*='/artifacts/']").first
    with served.page.expect_download() as download:
        link.click()
    assert Path(download.value.path()).read_bytes() == b"weights of the student"


def test_the_note_of_the_study_and_the_saved_figures_are_seen(served: Served, folder: Path) -> None:
    front = ad.Study.open(folder).front()
    served.open("/note")
    served.page.get_by_text("students on the front", exact=False).first.wait_for()
    assert f"{len(front)} students on the front" in served.page.locator("body").inner_text()
    served.open("")
    served.page.get_by_text("hypervolume", exact=False).first.wait_for()
    found = served.page.evaluate("fetch('/api/studies/1').then((r) => r.json())")
    assert {g["id"] for g in found["plotly_graph_objects"]} >= {"front", "hypervolume", "rung_curves"}


def test_names_from_a_study_run_nothing_and_nothing_leaves_this_machine(served: Served) -> None:
    served.open("/trials?numbers=0")
    served.page.get_by_text("Trial 0: ", exact=False).first.wait_for()
    assert served.page.evaluate("window.hacked") is None
    assert served.asked <= {served.base, "blob://", "data:"}
    assert served.said == []
    assert served.refused == []


def test_it_is_read_only(served: Served) -> None:
    served.open("")
    for method, path in (("DELETE", "/api/studies/1"), ("PUT", "/api/studies/1/note"), ("POST", "/enqueue")):
        status = served.page.evaluate(
            "([path, method]) => fetch(path, {method, body: '{}'}).then((r) => r.status)", [path, method]
        )
        assert status == 403, (method, path)
    served.page.reload()
    served.page.get_by_text("Pareto Front").wait_for()
    assert [status for status, _ in served.refused] == [403, 403, 403]
    served.said.clear()
    served.refused.clear()


def test_requests_without_the_token_are_refused(served: Served, browser: Any) -> None:
    stranger = browser.new_context().new_page()
    assert stranger.goto(served.base + "/dashboard").status == 401
    assert "A token is missing or wrong" in stranger.inner_text("body")
    stranger.context.close()
    connection = HTTPConnection("127.0.0.1", served.port, timeout=20)
    token = served.url.partition("token=")[2]
    connection.request("GET", f"/dashboard?token={token}", headers={"Host": f"evil.example:{served.port}"})
    assert connection.getresponse().status == 421
    connection.close()


def test_a_name_that_leads_here_by_dns_is_refused_by_the_real_browser(served: Served) -> None:
    with playwright_of(served).launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    ) as rebound:
        page = rebound.new_page()
        answer = page.goto(served.url.replace("127.0.0.1", "evil.example"))
        assert answer.status == 421
        assert "not the address of the dashboard" in page.inner_text("body")


def playwright_of(served: Served) -> Any:
    return served.page.context.browser.browser_type


def test_with_write_a_comment_is_kept_and_a_candidate_is_added(writable: Served, folder: Path) -> None:
    page = writable.page
    writable.open("/trials?numbers=1")
    page.get_by_text("Trial 1: ", exact=False).first.wait_for()
    page.get_by_test_id("EditIcon").first.click()
    page.locator("textarea").first.fill("Looks too good: try it again.")
    with page.expect_response(re.compile(r"/api/studies/1/2/note$")) as answer:
        page.get_by_role("button", name="Save").click()
    assert answer.value.status == 204
    writable.open("/trials?numbers=1")
    page.get_by_text("Looks too good: try it again.").wait_for()
    page.goto(writable.base + "/enqueue")
    page.get_by_role("button", name="Add").click()
    assert page.get_by_role("status").inner_text().startswith("Added.")
    page.get_by_label("Candidate (YAML)").fill("student:\n  widht: 4\n")
    page.get_by_role("button", name="Add").click()
    assert "widht" in page.get_by_role("status").inner_text()
    waiting = [t for t in ad.Study.open(folder).optuna.get_trials(deepcopy=False) if t.state.name == "WAITING"]
    assert len(waiting) == 1
    writable.open("")
    page.get_by_text("Pareto Front").wait_for()
    assert page.evaluate("fetch('/api/studies/1', {method: 'DELETE'}).then((r) => r.status)") == 403
    assert page.evaluate("window.hacked") is None


def test_the_plain_optuna_dashboard_opens_the_same_study(browser: Any, folder: Path, served: Served) -> None:
    del served  # it has written the notes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ("--host", "127.0.0.1", "--port", str(port), f"sqlite:///{folder / 'study.db'}")
    with Process(str(Path(sys.executable).with_name("optuna-dashboard")), *command) as server:
        for _ in range(60):
            try:
                urllib.request.urlopen(server.url, timeout=10).close()
                break
            except OSError:
                server.process.poll()
        for plain in visit(browser, f"http://127.0.0.1:{port}/dashboard/studies/1"):
            plain.page.get_by_text("Pareto Front").wait_for()
            trial = ad.Study.open(folder).front().trials[0]
            plain.open(f"/trials?numbers={trial.number}")
            plain.page.get_by_text("accuracy by rung", exact=False).first.wait_for()
            assert "on the front" in plain.page.locator("body").inner_text()
            assert plain.page.evaluate("window.hacked") is None


def test_a_thousand_trials_are_usable(browser: Any, tmp_path: Path) -> None:
    study = report_studies.make(trials=1000, directory=tmp_path / "many")
    member = study.front().trials[0]
    command = (sys.executable, "-m", "autodistill", "dashboard", str(tmp_path / "many"), "--no-browser")
    with Process(*command) as server:
        for many in visit(browser, server.url):
            many.page.get_by_text("Pareto Front").wait_for()
            many.page.wait_for_selector(".js-plotly-plot .point")
            many.open(f"/trials?numbers={member.number}")
            many.page.get_by_text("accuracy by rung", exact=False).first.wait_for()
            assert f"Trial {member.number}: " in many.page.locator("body").inner_text()
            assert many.said == []
