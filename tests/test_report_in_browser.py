"""The report in a real headless Chromium: it draws, filters, fits a phone, follows the colour scheme, and is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browsing import browser, drawn, find_chromium, look
from report_results import write_results

from farm.report.content import PLOTS
from farm.report.reporting import report_html
from farm.results import Results

HOSTILE = "</script><img src=x onerror=alert(1)>"
METHODS = {"onnxruntime-fused": 1.2, HOSTILE: 1.9, "a-method-with-a-very-long-name-indeed-static-int8-pruned": 2.4}

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium with its chromedriver on the path: apt-get install chromium-driver"
)

MARKS = """
const marks = {};
for (const plot of document.querySelectorAll("article:not([hidden]) [data-plot]"))
  marks[plot.dataset.plot] = plot.querySelectorAll(".mark-symbol path, .mark-line path, .mark-rect path").length;
return marks;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_results(folder / "results", METHODS, lengths=(64, 128, 256), threads=(1, 2))
    path = folder / "report.html"
    path.write_text(report_html(Results(folder / "results")))
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def opened(page: Path, chromium: Any) -> Any:
    """The page as it opens on a desk, its console empty but for its own words."""
    look(chromium)
    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get(page.as_uri())
    drawn(chromium)
    return chromium


def _marks(driver: Any) -> dict[str, int]:
    return dict(driver.execute_script(MARKS))


def _choose(driver: Any, button: str) -> None:
    driver.execute_script("document.querySelector('article:not([hidden]) form details').open = true")
    driver.find_element("css selector", f"article:not([hidden]) button[data-choose={button}]").click()


def test_every_plot_is_drawn_and_the_console_stays_empty(opened: Any) -> None:
    marks = _marks(opened)
    assert set(marks) == set(PLOTS)
    assert all(count > 0 for count in marks.values()), marks
    assert opened.get_log("browser") == []


def test_names_from_data_stay_text_in_the_plots_too(opened: Any) -> None:
    assert opened.execute_script("return document.querySelectorAll('img').length") == 0
    texts = opened.execute_script("return [...document.querySelectorAll('svg text')].map((each) => each.textContent)")
    assert HOSTILE in texts


def test_a_method_that_is_not_chosen_leaves_plots_and_tables(opened: Any) -> None:
    before = _marks(opened)
    shown = "return document.querySelectorAll('article:not([hidden]) tr[data-method]:not([hidden])').length"
    rows = opened.execute_script(shown)
    opened.execute_script("document.querySelector('article:not([hidden]) form details').open = true")
    opened.find_element("css selector", "article:not([hidden]) input[value=onnxruntime-fused]").click()
    drawn(opened)
    after = _marks(opened)
    for plot in ("speedup", "latency", "trade-off", "distribution", "rounds", "drift", "start"):
        assert after[plot] < before[plot], plot
    assert opened.execute_script(shown) < rows
    _choose(opened, "all")
    drawn(opened)
    assert _marks(opened) == before
    assert opened.execute_script(shown) == rows


def test_single_calls_and_rounds_are_those_of_the_chosen_length(opened: Any) -> None:
    axis = "return document.querySelector('#b0-distribution .role-axis-label').textContent"
    before = opened.execute_script(axis)
    opened.execute_script(
        "const choice = document.querySelector('select[name=length_tokens]'); choice.value = '256';"
        "choice.dispatchEvent(new Event('change', { bubbles: true }))"
    )
    drawn(opened)
    assert opened.execute_script(axis) != before


def test_another_set_of_conditions_is_shown_when_it_is_asked_for(opened: Any) -> None:
    opened.find_element("css selector", "a[data-block='1']").click()
    drawn(opened)
    visible = "return [...document.querySelectorAll('article:not([hidden])')].map((each) => each.dataset.number)"
    assert opened.execute_script(visible) == ["1"]
    opened.execute_script("location.hash = '#answer'")
    assert opened.execute_script(visible) == ["1"], "a link within the page does not lead back to the first"
    assert all(count > 0 for count in _marks(opened).values())
    assert opened.get_log("browser") == []


def test_on_a_phone_nothing_is_wider_than_the_screen(page: Path, opened: Any) -> None:
    look(opened, width=390, height=844)
    opened.get(page.as_uri())
    drawn(opened)
    width, screen = opened.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width <= screen
    wide = opened.execute_script(
        "const plots = [...document.querySelectorAll('svg')];"
        "return plots.filter((each) => each.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    cut = opened.execute_script(
        "return [...document.querySelectorAll('article:not([hidden]) .plot svg text')].filter((each) => {"
        "const box = each.getBoundingClientRect();"
        "return box.width && (box.right > innerWidth || box.left < 0) }).map((each) => each.textContent)"
    )
    assert cut == []
    bars, whole = opened.execute_script(
        "const plot = document.querySelector('#b0-speedup svg');"
        "return [plot.querySelector('.role-axis-domain line, .role-axis-grid line, .role-axis-domain')"
        ".getBoundingClientRect().width, plot.getBoundingClientRect().width]"
    )
    assert bars > 0.8 * whole, "names stand over their rows and take nothing from the width"


def test_a_tables_methods_stay_in_sight_while_it_scrolls(opened: Any) -> None:
    look(opened, width=390, height=844)
    left = opened.execute_script(
        "const box = document.querySelector('article:not([hidden]) .scroll'); box.scrollLeft = 200;"
        "return box.querySelector('tbody th').getBoundingClientRect().left - box.getBoundingClientRect().left"
    )
    assert abs(left) <= 1


def test_page_and_plots_follow_the_colour_scheme_and_print_light(opened: Any) -> None:
    colours = (
        "const text = document.querySelector('#b0-speedup svg text');"
        "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill]"
    )
    light = opened.execute_script(colours)
    look(opened, dark=True)
    dark = opened.execute_script(colours)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    look(opened, dark=True, media="print")
    assert opened.execute_script(colours) == light


def test_the_first_screen_holds_the_answer_and_its_interval(opened: Any) -> None:
    lead = "return document.querySelector('article:not([hidden]) .lead').getBoundingClientRect().bottom"
    for width, height in ((1280, 800), (390, 844)):
        look(opened, width, height)
        assert 0 < opened.execute_script(lead) < height


def test_every_control_is_reached_by_keyboard_and_named(opened: Any) -> None:
    unnamed = opened.execute_script(
        "return [...document.querySelectorAll('input, select, button')]"
        ".filter((each) => each.tabIndex < 0 || !(each.labels?.length || each.textContent.trim())).length"
    )
    assert unnamed == 0
    headings = opened.execute_script(
        "const shown = document.querySelectorAll('article:not([hidden]) :is(h1, h2, h3)');"
        "return [...shown].map((each) => Number(each.tagName[1]))"
    )
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
