"""Results in Python: DataFrames, SQL and the speedup table of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from farm import documents, query, speedups
from farm.columns import Chosen, chosen
from farm.errors import RequestError
from farm.folders import Place
from farm.store import RunRecord, Store
from farm.tables import SpeedupTable, speedup_table


class Results:
    """One run in a folder of results: the newest, unless another is named.

    Raises RequestError where there are no results or no such run. Everything is read when asked for, so an object
    made while a run goes on shows what has been published since.
    """

    def __init__(self, root: str | Place = "results", run: str | None = None) -> None:
        self.store = Store(root, read_only=True)
        self.run = run if run is not None else _newest(self.store)
        if self.run not in self.store.measured_runs():
            self.store.run(self.run)

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell over its replicas: latencies, percentiles where supported, costs, status."""
        return self._view("cells")

    @property
    def samples(self) -> pd.DataFrame:
        """One row per timed call."""
        return self._view("samples")

    @property
    def speedups(self) -> pd.DataFrame:
        """One row per cell: speedup over the baseline, its 95 % interval, verdict, accuracy, costs."""
        return self.speedups_table().to_pandas()

    @property
    def measurements(self) -> pd.DataFrame:
        """The rows as stored: one per process, samples as parallel lists."""
        return self.store.read_measurements(self.run).to_pandas()

    @property
    def record(self) -> RunRecord | None:
        """What was asked for in this run; None where the measurements came without it."""
        try:
            return self.store.run(self.run)
        except RequestError:
            return None

    def sql(self, select: str) -> pd.DataFrame:
        """One SELECT over the views of `farm.query.VIEWS`, all runs of the folder; RequestError where it is wrong."""
        return query.query(self.store, select).to_pandas()

    def speedup_table(self, rows: pa.Table | None = None) -> SpeedupTable:
        """The speedup table as data, for `farm.rendering`; of the run's speedups as they are, or of these rows."""
        record = self.record
        suite = record.suite if record else {}
        return speedup_table(
            self.speedups_table() if rows is None else rows,
            methods=_method_names(suite),
            same_within=speedups.same_within(self.store, self.run),
            effort=suite.get("effort"),
            command=record.command if record else "farm run",
            compare=suite.get("compare", ()),
            order=suite.get("order"),
        )

    def table(self, format: str = "text", columns: Chosen | None = None) -> str:
        """The speedup table as text, markdown, csv, latex or html, with all columns or the chosen ones.

        Raises RequestError for another format.
        """
        wanted = columns or chosen(None)
        if format == "csv":
            return documents.to_csv(self.speedups_table(), wanted)
        if format not in documents.FORMATS:
            raise RequestError(f"no table format {format!r}; there are {', '.join(documents.FORMATS)}, csv")
        return documents.FORMATS[format](self.speedup_table(), wanted)

    def warnings(self) -> list[str]:
        """Files that were left out because they are damaged, one line each."""
        left_out = [*self.store.damaged(self.run), *self.store.unreadable_runs()]
        return [f"left out {damaged.path}: {damaged.why}" for damaged in left_out]

    def speedups_table(self) -> pa.Table:
        """The same as an Arrow table that follows SPEEDUP_SCHEMA."""
        return speedups.current(self.store, self.run)

    def _view(self, view: str) -> pd.DataFrame:
        return self.sql(f"SELECT * FROM {view} WHERE run = '{self.run}'")

    def _repr_html_(self) -> str:
        return self.table("html")

    def __repr__(self) -> str:
        return f"Results({str(self.store.root)!r}, run={self.run!r})"


def _newest(store: Store) -> str:
    names = [record.run for record in store.runs()] or store.measured_runs()
    if not names:
        raise RequestError(f"no results in {store.root}: `farm run` makes them, or name another folder")
    return names[0]


def _method_names(suite: Mapping[str, Any]) -> list[str]:
    """The suite's names for its methods, in its order; an entry is a name, or a mapping with options."""
    entries = suite.get("methods") or []
    return [entry if isinstance(entry, str) else entry.get("name") or entry.get("method", "") for entry in entries]
