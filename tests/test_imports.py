"""Data flows one way: who may import what, read from the source of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PURE = (
    "plan",
    "conditions",
    "honesty",
    "caveats",
    "disturbances",
    "packs",
    "numerals",
    "schedule",
    "hardware",
    "quarantine",
    "places",
    "stopping",
    "stats",
    "uncertainty",
    "variance",
    "bootstrap",
    "claims",
    "proportions",
    "quality",
    "rows",
    "records",
    "schemas",
    "errors",
    "captions",
    "ratios",
    "events",
    "costs",
    "figures",
    "roofline",
    "best",
    "columns",
    "compare",
    "differences",
    "limits",
    "mixes",
    "step_changes",
    "surroundings",
    "direct",
    "slots",
    "rates",
    "choice",
    "report.answer",
    "report.chart_parts",
    "report.charts_found",
    "report.charts_samples",
    "report.charts_trade",
    "report.charts_trust",
    "report.content",
    "report.labels",
    "report.numbers",
    "report.subject",
    "report.theme",
    "report.traces",
)
IMPURE = {
    "ray",
    "time",
    "datetime",
    "random",
    "os",
    "sys",
    "pathlib",
    "subprocess",
    "socket",
    "tempfile",
    "shutil",
    "io",
}
RAY = {
    "farm.driver",
    "farm.dashboard",
    "farm.reachable",
    "farm.cluster",
    "farm.node_wish",
    "farm.connecting",
    "farm.nodes",
    "farm.reservation",
    "farm.submit",
    "farm.metrics",
    "farm.cargo",
}
MEASURING = (
    "farm.actor",
    "farm.nursery",
    "farm.timing",
    "farm.warmup",
    "farm.guards",
    "farm.counters",
    "farm.gpus",
    "farm.gpu_guards",
    "farm.gpu_cohort",
    "farm.own_processes",
)
STATISTICS = {
    "scipy",
    "statsmodels",
    "farm.stats",
    "farm.uncertainty",
    "farm.variance",
    "farm.bootstrap",
    "farm.claims",
    "farm.proportions",
    "farm.speedups",
    "farm.pairing",
    "farm.costs",
    "farm.roofline",
    "farm.ratios",
    "farm.tables",
    "farm.differences",
    "farm.step_changes",
    "farm.mixes",
}
RUNTIMES = {"torch", "transformers", "onnxruntime", "onnx", "openvino", "tensorrt"}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for package in ("farm", "tasks") for path in sorted((ROOT / package).rglob("*.py"))}
FARM = [name for name in SOURCES if name.startswith("farm")]
TASKS = [name for name in SOURCES if name.startswith("tasks")]


def _tree(name: str) -> ast.Module:
    return ast.parse(SOURCES[name].read_text())


def _imported(node: ast.AST) -> Iterator[str]:
    """Full names that an import statement makes available: modules, and what is taken from them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports(name: str) -> set[str]:
    """Everything the module imports, wherever the statement stands."""
    return {imported for node in ast.walk(_tree(name)) for imported in _imported(node)}


def _imports_when_imported(nodes: list[ast.stmt]) -> set[str]:
    """What is imported together with the module: not inside functions, not for type checkers only."""
    found: set[str] = set()
    for node in nodes:
        found |= set(_imported(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= _imports_when_imported(node.orelse)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        else:
            for inner in ("body", "orelse", "finalbody", "handlers"):
                found |= _imports_when_imported(getattr(node, inner, []))
    return found


def _from(packages: set[str], imported: set[str]) -> set[str]:
    """Those imports that lead into one of the packages or modules."""
    return {name for name in imported if any(name == package or name.startswith(f"{package}.") for package in packages)}


def test_the_sources_are_found() -> None:
    assert {"farm.driver", "farm.cli.commands", "farm.records", "tasks.method"} <= set(SOURCES)
    assert _from({"ray"}, _imports("farm.cluster")) >= {"ray"}
    assert _from(RUNTIMES, _imports("tasks.pytorch"))


@pytest.mark.parametrize("name", ["farm.records", "farm.schemas", "farm.errors", "farm.rates"])
def test_records_schemas_and_errors_import_nothing_of_the_farm_but_the_names_of_rates(name: str) -> None:
    assert not _from({"farm", "tasks"}, _imports(name)) - {"farm.rates", "farm.rates.RATES"}


@pytest.mark.parametrize("name", [f"farm.{name}" for name in PURE])
def test_pure_modules_touch_no_clock_disk_chance_or_ray(name: str) -> None:
    assert not _from(IMPURE, _imports(name))
    calls = {ast.unparse(node.func) for node in ast.walk(_tree(name)) if isinstance(node, ast.Call)}
    assert not calls & {"print", "open", "input"}


@pytest.mark.parametrize("name", [name for name in [*FARM, *TASKS] if name not in RAY])
def test_only_the_driver_and_its_hands_import_ray(name: str) -> None:
    assert not _from({"ray"}, _imports(name))


@pytest.mark.parametrize("name", [name for name in MEASURING if name in SOURCES])
def test_what_runs_inside_a_cell_imports_no_statistics(name: str) -> None:
    assert not _from(STATISTICS, _imports(name))


@pytest.mark.parametrize("name", TASKS)
def test_tasks_know_nothing_of_the_farm_but_its_records_and_errors(name: str) -> None:
    assert not _from({"farm"}, _imports(name)) - _from({"farm.records", "farm.errors"}, _imports(name))


@pytest.mark.parametrize("name", [*FARM, *TASKS])
def test_runtimes_are_imported_inside_functions_only(name: str) -> None:
    assert not _from(RUNTIMES, _imports_when_imported(_tree(name).body))


@pytest.mark.parametrize("name", FARM)
def test_the_engine_imports_no_runtime_at_all(name: str) -> None:
    assert not _from(RUNTIMES, _imports(name))


@pytest.mark.parametrize("name", [name for name in [*FARM, *TASKS] if not name.startswith("farm.cli")])
def test_only_the_command_line_prints_and_exits(name: str) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(_tree(name)) if isinstance(node, ast.Call)}
    main = '__name__ == "__main__"' in SOURCES[name].read_text()  # a program of its own, run as a subprocess
    assert not calls & {"print", "sys.exit", "SystemExit", "exit", "sys.stdout.write"} or main


def test_a_cells_process_starts_without_any_runtime() -> None:
    heavy = ("torch", "transformers", "onnxruntime", "onnx", "pandas", "pydantic", "scipy", "ray")
    program = f"import farm.actor, sys; print([name for name in {heavy!r} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert ran.stdout.strip() == "[]"
