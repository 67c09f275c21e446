"""The report's page: what it says, that all it says is escaped, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from measured import RUN, run_record
from report_results import write_results

from farm.cli.commands import run_app
from farm.report.answer import Answer
from farm.report.content import PLOTS
from farm.report.reporting import doubt_lines, report_html
from farm.results import Results
from farm.store import Store

HOSTILE = "</script><img src=x onerror=alert(1)>"
METHODS = {"fused": 1.2, HOSTILE: 2.0, "broken": 1.5}
BROKEN = {"status": "failed", "reasons": [f"ran out of memory {HOSTILE}"], "error_tail": f"last words {HOSTILE}"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts and not data.isspace():
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        else:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("report") / "results"
    write_results(root, METHODS, threads=(1, 2), changes={"broken": BROKEN})
    return Results(root)


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return report_html(results)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def _plots(page: Page, block: int) -> dict[str, Any]:
    return json.loads(next(text for attributes, text in page.scripts if attributes.get("id") == f"plots-{block}"))


def test_the_page_begins_with_what_to_deploy_and_how_sure_that_is(page: Page) -> None:
    text = " ".join(page.text.split())
    assert f"Deploy {HOSTILE}" in text
    assert re.search(r"It is 2\.\d\d times as fast as base \(95 % interval [12]\.\d\d to 2\.\d\d\)", text)
    assert "A first look. One set of processes was measured" in text


def test_texts_from_data_become_neither_elements_nor_scripts(html: str, page: Page) -> None:
    assert HOSTILE not in html
    assert page.of("img") == []
    kinds = [attributes.get("type") for attributes, _ in page.scripts]
    assert sorted(str(kind) for kind in kinds) == ["application/json"] * 3 + ["module"] * 2
    assert HOSTILE in _plots(page, 0)["order"], "the plots still have the name as it is"


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_fetched(page: Page) -> None:
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for attributes, text in page.scripts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert (f"'sha256-{digest}'" in policy) == (attributes["type"] == "module")
    assert all("src" not in attributes for _, attributes in page.elements)
    assert {attributes["href"] for attributes in page.of("link")} == {"data:,"}


def test_every_block_has_every_plot_with_words_for_those_who_do_not_see_it(page: Page) -> None:
    assert len(page.of("article")) == 2
    drawn = [attributes for attributes in page.of("div") if "data-plot" in attributes]
    assert [attributes["data-plot"] for attributes in drawn].count("speedup") == 2
    assert {attributes["data-plot"] for attributes in drawn} == set(PLOTS)
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    assert set(_plots(page, 0)["plots"]) == set(PLOTS)


def test_conditions_are_told_apart_and_each_has_its_answer(page: Page) -> None:
    links = [attributes["data-block"] for attributes in page.of("a") if "data-block" in attributes]
    assert links == ["0", "1"]
    assert "1 thread; batch size 1" in page.text
    assert "2 threads; batch size 1" in page.text


def test_a_failure_is_shown_with_its_reason_and_its_last_words(page: Page) -> None:
    assert f"ran out of memory {HOSTILE}" in page.text
    assert f"last words {HOSTILE}" in page.text


def test_the_page_says_how_to_run_it_again_and_where_it_ran(page: Page) -> None:
    assert "farm run simulated.yaml" in page.text
    assert "2.13.0" in page.text
    assert "same_within: 0.03" in page.text


def test_a_table_row_says_which_method_it_is_about(page: Page) -> None:
    named = {attributes["data-method"] for attributes in page.of("tr") if "data-method" in attributes}
    assert {"fused", HOSTILE, "base"} <= named


def test_the_same_results_give_the_same_page(results: Results, html: str) -> None:
    assert report_html(results) == html


def test_measurements_without_a_record_still_give_a_page(results: Results, tmp_path: Path) -> None:
    copied = tmp_path / "measurements"
    copied.symlink_to(results.store.root / "measurements")
    page = Page(report_html(Results(tmp_path)))
    assert "how it was made is not known" in page.text
    assert len(page.of("article")) == 2


def test_a_run_that_has_published_nothing_says_so(tmp_path: Path) -> None:
    Store(tmp_path).write_run(run_record())
    assert f"Nothing has been published in run {RUN}" in Page(report_html(Results(tmp_path))).text


def test_what_nobody_measured_is_said_instead_of_drawn(tmp_path: Path) -> None:
    rates = ("round_fp32_gflops", "round_bf16_gflops", "round_int8_gops", "round_memory_gbs", "round_state")
    without = {"accuracy": None, "artifact_bytes": None} | dict.fromkeys(rates)
    write_results(tmp_path, {"fused": 1.2}, lengths=(64,), changes={"fused": without, "base": without})
    page = Page(report_html(Results(tmp_path)))
    assert "No sentinel ran" in page.text
    assert "Neither accuracy nor size was measured" in page.text
    assert not {"sentinels", "trade-off"} & set(_plots(page, 0)["plots"])


@pytest.fixture
def quiet(capsys: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    capsys.readouterr()
    yield capsys


def test_the_command_writes_a_page_or_a_picture_and_says_where(
    results: Results, tmp_path: Path, quiet: pytest.CaptureFixture[str]
) -> None:
    png, svg = tmp_path / "speedup.png", tmp_path / "latency.svg"
    assert run_app(["report", str(results.store.root), "--plot", "speedup", "-o", str(png)]) == 0
    assert run_app(["report", str(results.store.root), "--plot", "latency", "--block", "2", "-o", str(svg)]) == 0
    assert quiet.readouterr().out == f"{png}\n{svg}\n"
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    assert int.from_bytes(head[16:20], "big") > 1800, "sharp on a slide"
    assert run_app(["report", str(results.store.root), "--plot", "speedup", "-o", str(tmp_path / "speedup.svg")]) == 0
    assert "Speedup over base, with 95 % intervals" in (tmp_path / "speedup.svg").read_text()
    drawn = svg.read_text()
    assert "fused" in drawn
    assert "2 threads" in drawn
    assert "<img" not in drawn
    assert "var(--" not in drawn


def test_a_picture_of_one_length_says_which(results: Results, tmp_path: Path) -> None:
    for flags, length in (([], 64), (["--length", "128"], 128)):
        path = tmp_path / f"{length}.svg"
        assert run_app(["report", str(results.store.root), "--plot", "rounds", *flags, "-o", str(path)]) == 0
        assert f"Rounds, {length} tokens" in path.read_text()
    assert (tmp_path / "64.svg").read_text() != (tmp_path / "128.svg").read_text().replace("128 tokens", "64 tokens")


def test_a_picture_of_a_doubtful_answer_carries_the_doubt() -> None:
    doubtful = Answer("Deploy", "fused", "", "", (), "doubtful", ("Over half of the rounds were disturbed.",) * 3, ())
    lines = doubt_lines(doubtful)
    assert lines[0].startswith("Do not build on this yet. Over half of the rounds were disturbed.")
    assert len(lines) == 2, "broken as wide as the picture"
    sure = Answer("Deploy", "fused", "", "", (), "open", ("a note",), ())
    assert doubt_lines(sure) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--plot", "speedups"], "no plot 'speedups'. Did you mean 'speedup'? There are: speedup, latency"),
        (["--plot", "speedup", "--block", "3"], "no block 3 in run"),
        (["--plot", "speedup", "-o", "speedup.gif"], "-o speedup.gif: the file's name must end in .png or .svg"),
        (["--plot", "rounds", "--length", "96"], "no length of 96 tokens in this block; there are 64, 128"),
        (["--plot", "start", "--length", "64"], "--length is of distribution and rounds; start shows every length"),
        (["--theme", "dark"], "--theme is for pictures (--plot); the page follows its reader's light or dark"),
        (["--length", "64"], "--length is for pictures (--plot)"),
        (["-o", "report.png"], "the file's name must end in .html; pictures are made with --plot"),
        (["-o", "/nowhere/report.html"], "cannot write /nowhere/report.html: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    results: Results, flags: list[str], words: str, quiet: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["report", str(results.store.root), *flags]) == 2
    captured = quiet.readouterr()
    assert words in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
