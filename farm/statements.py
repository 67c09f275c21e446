"""What a user's SQL statement is, and which tables it names, before anything of it runs."""

from __future__ import annotations

import re
from collections.abc import Collection

import duckdb

from farm.errors import RequestError

_INDIRECT = {"query", "query_table"}
"""Functions of DuckDB that read a table whose name is put together while they run."""

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI)
"""PIVOT is written like a SELECT and parsed as several statements in one."""

_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
"""White space and comments."""

_EXPLAIN = re.compile(rf"(?is)\A{_GAP}explain\b{_GAP}(?:analyze\b)?{_GAP}(?:\(\s*(?:analyze|format)\b[^)]*\))?")
_SHOW_TABLES = re.compile(rf"(?is){_GAP}show{_GAP}(?:all\b{_GAP})?tables{_GAP};?{_GAP}")
_FIRST_WORD = re.compile(rf"(?is)\A(?:{_GAP}\()*{_GAP}(\w*)")
_SEVERAL = {"pivot", "unpivot", "select", "from", "with"}
"""How a statement may begin that is parsed as several: `CREATE TABLE ... AS PIVOT` is one of those, too."""


def kind_of_select(connection: duckdb.DuckDBPyConnection, sql: str, views: Collection[str]) -> duckdb.StatementType:
    """The statement's type. Raises RequestError where it is anything else than one SELECT, or an EXPLAIN of one."""
    statements = connection.extract_statements(sql)
    several = len(statements) == 1 and statements[0].type == duckdb.StatementType.MULTI
    begins = _FIRST_WORD.findall(_EXPLAIN.sub("", sql))[0] if several else "select"
    if len(statements) != 1 or statements[0].type not in _READING or begins.lower() not in _SEVERAL:
        found = begins.upper() if several else ", ".join(each.type.name for each in statements) or "nothing"
        raise RequestError(f"a query is one SELECT over {', '.join(views)}; this is {found}. Results are never changed")
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains.
        kind_of_select(connection, _EXPLAIN.sub("", sql), views)
    return statements[0].type


def is_show_tables(sql: str) -> bool:
    """Whether it asks which tables there are."""
    return _SHOW_TABLES.fullmatch(sql) is not None


def named_views(connection: duckdb.DuckDBPyConnection, sql: str, views: Collection[str]) -> set[str]:
    """The views that a statement may read: of a SELECT those that it names as tables, else those in its words.

    `samples` is a view and a column of others, and reading every call takes many times as long. The names are those of
    the parsed statement, for DuckDB's `get_table_names` leaves out what stands in `* REPLACE (...)`.
    """
    words = set(re.findall(r"\w+", sql.lower()))
    if words & _INDIRECT:
        return set(views)
    (parsed,) = connection.execute("SELECT json_serialize_sql(?)", [_EXPLAIN.sub("", sql)]).fetchone() or ("",)
    if parsed.startswith('{"error":false'):
        words = set(re.findall(r'"table_name":"(\w+)"', parsed.lower()))
    return set(views) & words
