"""Claims about how a query's answer is written: nothing lost, nothing misread, whatever the columns hold."""

from __future__ import annotations

import io
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from several_runs import store_of

from farm.answers import FORMATS, to_csv, to_json, to_markdown, to_parquet, to_table
from farm.cli.commands import run_app


def answer_of(select: str) -> pa.Table:
    with duckdb.connect(":memory:") as connection:
        return connection.sql(select).to_arrow_table()


def test_columns_of_one_name_are_all_written() -> None:
    answer = pa.table([[1], [2], [3]], names=["n", "n", "n_1"])
    assert json.loads(to_json(answer)) == [{"n": 1, "n_1": 2, "n_1_1": 3}]
    assert pq.read_table(io.BytesIO(to_parquet(answer))).num_columns == 3
    assert to_csv(answer) == "n,n,n_1\n1,2,3\n"


def test_decimals_are_numbers() -> None:
    answer = answer_of("SELECT sum(x) AS whole, 1.25::DECIMAL(10, 2) AS part FROM range(3) t(x)")
    assert json.loads(to_json(answer)) == [{"whole": 3, "part": 1.25}]


@pytest.mark.parametrize("format", list(FORMATS))
@pytest.mark.parametrize(
    ("select", "text"),
    [
        ("SELECT INTERVAL '1 month 2 days 3 seconds' AS x", "P1M2DT3S"),
        ("SELECT 'infinity'::TIMESTAMP AS x", "infinity"),
        ("SELECT '-infinity'::TIMESTAMPTZ AS x", "-infinity"),
        ("SELECT 'infinity'::DATE AS x", "infinity"),
        ("SELECT union_value(num := 7) AS x", "7"),
        ("SELECT NULL::TIMESTAMP AS x UNION ALL SELECT 'infinity'::TIMESTAMP", "infinity"),
    ],
)
def test_whatever_sql_can_answer_is_written(format: str, select: str, text: str) -> None:
    written = FORMATS[format](answer_of(select))
    if isinstance(written, bytes):
        assert pq.read_table(io.BytesIO(written)).num_columns == 1
    else:
        assert text in written


def test_a_cell_of_markdown_stays_in_its_row() -> None:
    answer = pa.table({"a|b\nc": ["one\ntwo | three"]})
    head, _, row = to_markdown(answer).splitlines()
    assert head.strip("| ") == "a\\|b<br>c"
    assert row.strip("| ") == "one<br>two \\| three"


def test_numbers_that_are_missing_are_empty_and_whole_ones_stay_whole() -> None:
    answer = pa.table({"n": [1, None], "x": [0.123456789, float("nan")], "of": [[1, 2], None]})
    assert to_csv(answer) == 'n,x,of\n1,0.123456789,"[1, 2]"\n,,\n'
    assert to_table(answer).splitlines()[2].split() == ["1", "0.123457", "[1,", "2]"]
    assert json.loads(to_json(answer))[1] == {"n": None, "x": None, "of": None}


def test_a_file_whose_name_asks_for_no_known_format_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_of(tmp_path / "results", {"replicas": 1, "lengths": (64,)})
    for name in ("x.html", "x"):
        asked = ["query", "SELECT 1 AS one", str(tmp_path / "results"), "-o", str(tmp_path / name)]
        assert run_app(asked) == 2
        assert not (tmp_path / name).exists()
        assert run_app([*asked, "--format", "csv"]) == 0
    assert ".txt, .csv, .json, .parquet, .md; rename it" in capsys.readouterr().err.replace("\n", " ")
    assert run_app(["table", str(tmp_path / "results"), "-o", str(tmp_path / "table.html")]) == 0
    assert run_app(["table", str(tmp_path / "results"), "-o", str(tmp_path / "table.json")]) == 2
