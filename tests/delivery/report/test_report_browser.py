"""The report in a real browser, with the network off. Needs a Chromium on this machine: ``pytest -m browser``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_studies
from report_studies import HOSTILE

from autodistill.delivery.report.write import write_report
from autodistill.search.results.verified import VERIFY_FILE
from autodistill.search.storage.study_folder import dump_json

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("browser") / "study"
    study = report_studies.make(trials=40, directory=folder)
    (folder / VERIFY_FILE).write_text(dump_json(report_studies.verification(study.front()).to_json()))
    write_report(study, folder / "report.html", price_per_hour=2.5)
    return folder / "report.html", study.front()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Opened:
    """A page of the report with what it said and asked for."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        self.context = browser.new_context(offline=True, color_scheme=scheme, viewport={"width": 1200, "height": 900})
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready=true]")


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, browser: Any, written: tuple[Path, Any]) -> Iterator[Opened]:
    found = Opened(browser, written[0], request.param)
    yield found
    found.context.close()


def test_the_report_opens_without_an_error_and_without_the_network(opened: Opened, written: tuple[Path, Any]) -> None:
    assert opened.said == []
    assert set(opened.asked) == {written[0].as_uri()}
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.evaluate("document.querySelectorAll('.plot .main-svg').length") >= 2 * 6


def test_every_student_of_the_front_is_drawn_and_says_its_settings(opened: Opened, written: tuple[Path, Any]) -> None:
    page = opened.page
    page.locator("#front-plot").scroll_into_view_if_needed()
    places = page.evaluate(
        """() => {
          const box = document.getElementById('front-plot'), at = box.getBoundingClientRect(), size = box._fullLayout;
          const trace = box.data.find((t) => t.meta.role === 'front');
          return trace.x.map((x, i) => [trace.customdata[i][0],
            at.left + size.margin.l + size.xaxis.d2p(x) + size._size.l - size.margin.l,
            at.top + size._size.t + size.yaxis.d2p(trace.y[i])]);
        }"""
    )
    assert sorted(number for number, _, _ in places) == sorted(t.number for t in written[1].trials)
    for number, x, y in places:
        page.mouse.move(5, 5)
        page.wait_for_timeout(60)
        page.mouse.move(x, y, steps=2)
        page.wait_for_timeout(150)
        shown = page.locator("#front-plot .hoverlayer").text_content()
        assert f"trial {number}" in shown, (number, shown)
        assert "lr=" in shown or "verified" in shown


def test_arrow_keys_step_through_the_front(opened: Opened, written: tuple[Path, Any]) -> None:
    page = opened.page
    page.locator("#front-plot").focus()
    order = sorted(written[1].trials, key=lambda t: t.values["latency_ms"])
    for trial in order:
        page.keyboard.press("ArrowRight")
        assert f"trial {trial.number} " in page.locator("#front-said").text_content()
    assert any(HOSTILE in str(t.student) for t in order)


def test_axes_can_be_chosen_and_made_logarithmic(opened: Opened) -> None:
    page = opened.page
    page.select_option("#axis-x", "params")
    page.select_option("#axis-y", "latency_ms")
    found = page.evaluate(
        """() => {
          const box = document.getElementById('front-plot'), trace = box.data.find((t) => t.meta.role === 'front');
          const axes = box.layout.meta.axes.map((a) => a.name);
          return [trace.x, trace.customdata.map((row) => row[axes.indexOf('params') + 1]), box.layout.xaxis.type,
                  box.layout.yaxis.type, box.data.map((t) => t.meta.role)]; }"""
    )
    assert found[0] == found[1]
    assert found[2:4] == ["log", "log"]
    assert "verified" not in found[4]  # they are means of accuracy, which is on no axis now
    page.uncheck("#log-x")
    assert page.evaluate("document.getElementById('front-plot').layout.xaxis.type") == "linear"
    assert opened.said == []


def test_a_bound_is_answered_in_words(opened: Opened, written: tuple[Path, Any]) -> None:
    page = opened.page
    for limit in (0.5, 5.0, 1e-6):
        page.fill("#bound", str(limit))
        fitting = [t for t in written[1].trials if 0.9 * t.values["latency_ms"] <= limit]
        said = page.locator("#bound-answer").text_content()
        if not fitting:
            assert said == "No student satisfies this bound."
        else:
            assert said.startswith(f"Trial {max(fitting, key=lambda t: t.values['accuracy']).number},")


def test_text_and_ground_differ_enough_in_both_schemes(opened: Opened) -> None:
    def channel(value: float) -> float:
        value /= 255
        return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4

    def luminance(color: str) -> float:
        red, green, blue = (float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3])
        return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue)

    ground = luminance(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for place in ("body", ".lead", "nav a", "#front-plot .xtitle"):
        rule = "fill" if place.startswith("#") else "color"
        ink = luminance(opened.page.evaluate(f"getComputedStyle(document.querySelector('{place}')).{rule}"))
        ratio = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
        assert ratio >= 4.5, place  # WCAG 2.1, 1.4.3


def test_it_prints_on_white_whatever_the_scheme(opened: Opened, tmp_path: Path) -> None:
    opened.page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = opened.page.evaluate("[...document.querySelectorAll('.plot .main-svg')].map((s) => s.width.baseVal.value)")
    assert max(widths) <= 700  # A4 between its margins
    ink = opened.page.evaluate("getComputedStyle(document.querySelector('#front-plot .xtitle')).fill")
    assert ink == "rgb(0, 0, 0)"
    assert opened.said == []
