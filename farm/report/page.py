"""The page: content, style, plots and their library in one HTML file that needs no network."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jinja2
import vl_convert
import yaml
from markupsafe import Markup

from farm.choice import pareto_front
from farm.report.content import Figure, ReportBlock, environment_lines
from farm.report.theme import config, variables
from farm.store import RunRecord

VEGA_LITE = "6.4"
"""The release of Vega-Lite that Altair 6 writes for and vl-convert carries."""

WORDS = (
    ("Baseline", "the way of running the model that all others are compared with"),
    ("Speedup", "the baseline's time of a call over the method's, taken in the same round; 2x is half the time"),
    (
        "95 % interval",
        "where the speedup would lie if the run were repeated for ever; an interval that holds 1x may be chance",
    ),
    ("Round", "one turn of a few calls of every method, in random order, then in reverse: what drifts cancels"),
    ("Replica", "the same comparison again with fresh processes"),
    ("Twin", "a second process of the baseline: what it differs by is noise"),
    ("Sentinel", "fixed work timed in every round: it shows when the machine itself changed"),
    ("Disturbed", "a guard saw stolen time, other programs, throttling or page faults: the round is left out"),
    ("Limit", "the least time that the machine's products and memory allow a call"),
    ("Pareto front", "methods that no other beats in speed, accuracy and size at once"),
)
"""What a newcomer has to know, in the order of need."""


SURENESS = {
    "solid": "Solid.",
    "open": "Good to choose by.",
    "rough": "A first look.",
    "doubtful": "Do not build on this yet.",
}


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the page is made of. `record` is None where measurements came without it; `warnings` are of files."""

    run: str
    blocks: tuple[ReportBlock, ...]
    record: RunRecord | None
    footer: tuple[str, ...]
    warnings: tuple[str, ...]


def to_html(page: Page) -> str:
    """The page as one HTML document. All that comes from results is escaped, and no script but its own can run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("farm.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    scripts = [plotting_library(), _template_text(environment, "page.js")]
    return environment.get_template("page.html").render(
        page=page,
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
        style=Markup(_template_text(environment, "page.css")),
        light=Markup(variables("light")),
        dark=Markup(variables("dark")),
        config=config(),
        words=WORDS,
        sureness=SURENESS,
        short_titles=short_titles([block.title for block in page.blocks]),
        figures_of=_figures_of,
        plots_of=_plots_of,
        **_about(page),
    )


@functools.cache
def plotting_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script; a few seconds' work."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return str(bundle).replace("</script", "<\\/script")


def short_titles(titles: Sequence[str]) -> list[str]:
    """What tells the titles of blocks apart: their parts without those that all of them share."""
    parts = [title.split("; ") for title in titles]
    shared = set(parts[0]).intersection(*parts) if parts else set()
    return [
        "; ".join(part for part in each if part not in shared) or title
        for each, title in zip(parts, titles, strict=True)
    ]


def _figures_of(block: ReportBlock) -> dict[str, Figure]:
    return {each.plot.name: each for each in block.figures}


def _plots_of(block: ReportBlock) -> dict[str, Any]:
    """What the page's script needs of a block: its plots, and the methods that its buttons choose."""
    subject = block.subject
    return {
        "plots": {each.plot.name: each.spec for each in block.figures if each.spec is not None},
        "order": subject.order,
        "focus": subject.focus,
        "front": pareto_front(subject.choice.entrants),
    }


def _policy(scripts: list[str]) -> str:
    """A content security policy under which these scripts run and nothing else does, and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _template_text(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _about(page: Page) -> Mapping[str, Any]:
    record = page.record
    if record is None:
        return {"command": None, "suite": None, "facts": [], "made": None, "suite_yaml": "", "model": None}
    made = datetime.fromtimestamp(record.created_unix_ns / 1e9, UTC)
    facts = [
        ("farm", record.farm_version),
        ("model", f"{record.model.get('name')} ({record.model.get('family') or 'family unknown'})"),
        ("model files, SHA-256", str(record.model.get("sha256"))),
        *environment_lines(record.environment),
    ]
    return {
        "command": record.command,
        "suite": record.suite.get("name"),
        "model": record.model.get("name"),
        "facts": facts,
        "made": f"{made.day} {made:%B %Y, %H:%M} UTC",
        "suite_yaml": yaml.safe_dump(json.loads(json.dumps(record.suite)), sort_keys=False, width=100),
    }
