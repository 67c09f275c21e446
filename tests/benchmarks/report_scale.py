"""How large is the report of a large run, how long does it take to write, and how soon is it open in a browser?"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from provenance import print_figures, where_and_when

sys.path.append(str(Path(__file__).parents[1]))

from browsing import browser, drawn, find_chromium
from report_results import write_results

from farm.report.page import plotting_library
from farm.report.reporting import report_html
from farm.results import Results
from farm.speedups import rebuild
from farm.store import Store

MOST_BYTES = 10_000_000
MOST_SECONDS = 2.0
"""What a report of 1,000 cells promises."""


def main(
    cells: Annotated[int, typer.Option(help="How many cells, about.")] = 1000,
    methods: Annotated[int, typer.Option(help="Methods compared with one another.")] = 25,
    replicas: Annotated[int, typer.Option(help="Replicas of each cell.")] = 2,
    openings: Annotated[int, typer.Option(help="How often the page is opened.")] = 5,
    keep: Annotated[Path | None, typer.Option(help="Write the page there, too.")] = None,
) -> None:
    """Write the report of a simulated run and open it in headless Chromium, if there is one."""
    lengths = (64, 128, 256, 512)
    threads = range(1, 1 + max(1, round(cells / len(lengths) / (methods + 1))))
    speedups = {f"runtime{at % 4}-method-{at:02d}": 1 + at / 8 for at in range(methods)}
    with tempfile.TemporaryDirectory() as folder:
        root = write_results(
            Path(folder) / "results", speedups, lengths=lengths, threads=threads, replicas=replicas, rounds=20
        )
        results = Results(root)
        rebuild(Store(root), results.run)
        plotting_library()
        began = time.perf_counter()
        html = report_html(results)
        wrote_s = time.perf_counter() - began
        page = Path(folder) / "report.html"
        page.write_text(html)
        if keep:
            keep.write_text(html)
        figures = [
            ("size", f"{page.stat().st_size / 1e6:.2f} MB", f"{MOST_BYTES / 1e6:.0f} MB"),
            ("written in", f"{wrote_s:.1f} s", ""),
            *_opened(page, openings),
        ]
    count = len(threads) * len(lengths) * (methods + 1)
    title = f"{count} cells, {replicas} replicas, {len(threads)} blocks; median and ends of {openings} openings"
    print_figures(title, ("", "found", "at most"), figures)
    print(where_and_when())


def _opened(page: Path, openings: int) -> list[tuple[str, str, str]]:
    if find_chromium() is None:
        return [("opened in", "not measured: there is no Chromium here", "")]
    seconds: dict[str, list[float]] = {"loaded after": [], "first plot after": [], "all nine plots after": []}
    for _ in range(openings):
        with browser() as driver:
            driver.get(page.as_uri())
            drawn(driver)
            milliseconds = driver.execute_script(
                "const [page] = performance.getEntriesByType('navigation');"
                "const at = (name) => performance.getEntriesByName(name)[0].startTime;"
                "return [page.loadEventEnd, at('first plot'), at('all plots')]"
            )
        for values, found in zip(seconds.values(), milliseconds, strict=True):
            values.append(found / 1000)
    return [
        (
            name,
            f"{statistics.median(values):.2f} s [{min(values):.2f}, {max(values):.2f}]",
            "" if name.startswith("all") else f"{MOST_SECONDS:.0f} s",
        )
        for name, values in seconds.items()
    ]


if __name__ == "__main__":
    typer.run(main)
