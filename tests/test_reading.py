"""Claims about `farm table` and `farm query` as commands: formats, files, columns."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from several_runs import run_name, store_of

from farm.cli.commands import run_app
from farm.columns import AT_LENGTHS, COLUMNS, chosen
from farm.documents import _latex, _latex_notes, to_latex
from farm.rendering import to_text
from farm.results import Results
from farm.tables import SpeedupTable

SELECT = "SELECT name, length, reasons, first_call_ms, replicas FROM cells ORDER BY length, name, role"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    store_of(folder, {"replicas": 2})
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_app([*arguments]) == 0
    return capsys.readouterr().out


def test_an_answer_comes_in_every_format(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ["query", SELECT, str(results), "--format"]
    rows = json.loads(printed(capsys, *ask, "json"))
    assert rows[0]["reasons"] == [] and rows[0]["replicas"] == 2
    assert next(csv.DictReader(io.StringIO(printed(capsys, *ask, "csv"))))["replicas"] == "2"
    assert len(printed(capsys, *ask, "table").splitlines()) == len(rows) + 2
    assert len(printed(capsys, *ask, "markdown").splitlines()) == len(rows) + 2


def test_a_file_says_its_format_by_its_name(results: Path, tmp_path: Path) -> None:
    for name in ("a.parquet", "a.csv", "a.json", "a.md"):
        assert run_app(["query", SELECT, str(results), "-o", str(tmp_path / name)]) == 0
    whole = pq.read_table(tmp_path / "a.parquet")
    assert whole.column("replicas").to_pylist() == pd.read_csv(tmp_path / "a.csv")["replicas"].tolist()
    assert len(json.loads((tmp_path / "a.json").read_text())) == whole.num_rows
    assert (tmp_path / "a.md").read_text().startswith("|")


def test_numbers_that_are_missing_leave_whole_numbers_whole(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT CASE WHEN length = 64 THEN length END AS n FROM cells ORDER BY n NULLS LAST"
    out = printed(capsys, "query", sql, str(results), "--format", "csv")
    assert "64\n" in out and "64.0" not in out


def test_a_terminal_gets_cells_of_a_width_that_can_be_read(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql = "SELECT range(100) AS nested, repeat('word ', 40) AS long, 1 / 3 AS third, '2.10' AS version, NULL AS nothing"
    out = printed(capsys, "query", sql, str(results))
    assert max(map(len, out.splitlines())) <= 2 * 60 + 40
    assert "..." in out and out.count("word") == 40
    assert "0.333333 " in out and "2.10" in out
    assert "99]" in printed(capsys, "query", sql, str(results), "--format", "csv")


def test_an_answer_never_replaces_a_result(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = next((results / "measurements").rglob("*.parquet"))
    before = part.read_bytes()
    assert run_app(["query", SELECT, str(results), "-o", str(part)]) == 2
    assert "among the results" in capsys.readouterr().err
    assert part.read_bytes() == before


@pytest.mark.parametrize("comment", ["-- What is there?\n", "--\n"])
def test_sql_may_begin_with_a_comment_and_come_from_standard_input(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, comment: str
) -> None:
    commented = f"{comment}{SELECT}"
    direct = printed(capsys, "query", commented, str(results), "--format", "csv")
    monkeypatch.setattr(sys, "stdin", io.StringIO(commented))
    assert printed(capsys, "query", "-", str(results), "--format", "csv") == direct
    assert direct.startswith("name,length")
    assert run_app(["query", "--formt", "csv"]) == 2, "an option that is none is no SQL"


def test_what_is_no_text_on_standard_input_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"))
    assert run_app(["query", "-", str(results)]) == 2
    assert "standard input is not a text" in capsys.readouterr().err


def test_a_run_record_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_of(tmp_path, {"replicas": 1, "lengths": (64,)})
    record = tmp_path / "runs" / f"{run_name(0)}.json"
    record.write_text("{")
    assert run_app(["query", "SELECT run FROM runs", str(tmp_path)]) == 0
    assert f"note: left out {record}" in capsys.readouterr().err
    assert run_app(["query", "SELECT DISTINCT run FROM replicas", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "", "not asked for"


def test_a_damaged_part_that_a_query_leaves_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, {"replicas": 2, "lengths": (64,)})
    part = Path(str(store.part_path(run_name(0), "cpu-b1-l64", 1)))
    content = part.read_bytes()
    part.write_bytes(content[:200] + bytes(64) + content[264:])
    assert run_app(["query", "SELECT * FROM samples LIMIT 1", str(tmp_path)]) == 0
    assert f"note: left out {part}" in capsys.readouterr().err


def test_the_schema_comes_in_every_format_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "query", "--schema", "--format", "json"))
    assert {"view", "name", "kind", "unit", "about"} == set(rows[0])
    assert any(row["name"] == "latency_p99_ms" and "milliseconds" in row["about"] for row in rows)


def test_a_table_shows_the_chosen_columns_and_no_others(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "table", str(results), "--columns", "speedup,accuracy,size")
    assert re.search(r"quantized +1\.\d\dx +1\.\d\dx\n", out), "speedups without latency or interval"
    assert "size" in out and "peak RSS" not in out and "verdict" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_columns_of_methods_alone_leave_the_lengths_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "table", str(results), "--columns", "verdict,memory")
    assert "tokens" not in out.split("A/A twin")[0]
    assert "900" in out


def test_the_share_of_predictions_that_are_the_baselines_is_a_column_for_who_asks(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "table", str(results), "--columns", "mean,agreement")
    assert "agrees %" in out and re.search(r"quantized .* 98\.5\n", out)
    assert "agrees %" not in printed(capsys, "table", str(results))


def test_all_columns_at_once_fit_a_hundred_characters(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "table", str(results), "--columns", ",".join([*AT_LENGTHS, *COLUMNS]))
    assert max(map(len, out.splitlines())) <= 100
    assert "verdict" in out


@pytest.mark.parametrize("width", [60, 100])
def test_no_column_is_lost_and_no_figure_broken_where_a_table_is_too_wide(results: Path, width: int) -> None:
    table = Results(str(results)).speedup_table()
    wanted = chosen(",".join(COLUMNS))
    out = to_text(table, width, wanted)
    assert max(map(len, out.splitlines())) <= max(width, *map(len, table.footer))
    words = set(out.split())
    for column in wanted.once:
        assert set((column.narrow or column.heading).split()) <= words, column.name
        for row in table.blocks[0].rows:
            assert set(column.text(row).split()) <= words, (column.name, row.name)


def test_a_column_that_is_not_there_is_named_with_those_that_are(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["table", str(results), "--columns", "speed"]) == 2
    said = capsys.readouterr().err
    assert "no column speed" in said and "speedup" in said
    assert "geometric mean" in printed(capsys, "table", "--columns", "help")


def test_csv_has_the_chosen_fields_beside_what_tells_rows_apart(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "table", str(results), "--columns", "speedup,size", "--format", "csv")
    head = out.splitlines()[0].split(",")
    assert {"name", "length", "speedup", "artifact_bytes"} <= set(head)
    assert "latency_p50_ns" not in head


def test_latex_is_a_table_with_its_special_characters_escaped(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "table", str(results), "--format", "latex")
    assert out.count("\\begin{tabular}") == out.count("\\end{tabular}") == 3, "lengths, methods, costs"
    assert out.count("\\leavevmode\n\n\\noindent\n\\resizebox") == 1, "below the heading, not beside it"
    assert out.count("\\ifdim\\width>\\linewidth") == 3, "no table is wider than the text"
    assert out.count("\\ifdim\\totalheight>.85\\textheight") == 3, "or higher than a page"
    assert "\\toprule" in out and "accuracy \\%" in out
    body = "\n".join(line for line in out.splitlines() if not line.startswith("% "))
    assert not re.findall(r"(?<!\\)[%#_$]", body)
    for tabular in body.split("\\begin{tabular}")[1:]:
        rows = [line for line in tabular.splitlines() if line.endswith("\\\\")]
        assert len({line.count(" & ") for line in rows}) == 1


def test_percentiles_are_columns_and_say_where_they_are_withheld(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "table", str(results), "--columns", "latency,p90,p99")
    assert re.search(r"p90 \d+(\.\d+)? ms", out)
    assert "p99 withheld" in out and "p99 below 662" in " ".join(out.split())
    head = printed(capsys, "table", str(results), "--columns", "p90", "--format", "csv").splitlines()[0]
    assert "latency_p90_ns" in head.split(",")


def test_latex_notes_keep_their_numbers_and_every_character() -> None:
    assert _latex("_foo \\ 5 %") == r"\_foo \textbackslash{} 5 \%"
    assert _latex("one\ntwo") == "one two"
    assert _latex_notes(["[1] crashed [/tmp/x]", "[odd] note", "plain"]).splitlines()[1:-1] == [
        r"\item[{[1]}] crashed [/tmp/x]",
        r"\item {}[odd] note",
        r"\item plain",
    ]
    broken = SpeedupTable("a\n\\input{x}", (), ())
    assert to_latex(broken).splitlines()[0] == "% a \\input{x}"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag != "br":
            self.open.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_element_that_needs_nothing_from_elsewhere(results: Path) -> None:
    page = Results(results)._repr_html_()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == [] and tags.seen[0] == "div"
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert "url(" not in page and "@import" not in page
    assert 'scope="row"' in page and "<caption>" in page


def test_html_sets_no_colour_of_text_so_that_dark_pages_stay_readable(results: Path) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", Results(results)._repr_html_(), re.DOTALL)
    assert set(re.findall(r"[ {;]color: *([^;}]+)", style)) == {"inherit"}
    assert all(float(alpha) < 0.5 for alpha in re.findall(r"rgba\([^)]*, *([.\d]+)\)", style))


def test_an_html_file_is_a_whole_document_and_what_is_printed_a_fragment(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(["table", str(results), "-o", str(tmp_path / "t.html")]) == 0
    page = (tmp_path / "t.html").read_text()
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert '<meta charset="utf-8">' in page and 'name="viewport"' in page
    assert printed(capsys, "table", str(results), "--format", "html").startswith("<div")


def test_a_table_goes_to_a_file(results: Path, tmp_path: Path) -> None:
    assert run_app(["table", str(results), "--run", run_name(0), "-o", str(tmp_path / "t.tex")]) == 0
    assert "\\begin{tabular}" in (tmp_path / "t.tex").read_text()
