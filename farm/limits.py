"""Limits that a deployment has to keep, and how a user writes them: 150MB, 20ms, 5 %, 64:0.7,256:0.3. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from farm.errors import RequestError
from farm.footprint import footprint_of
from farm.ratios import Row, accuracy_row, is_candidate
from farm.stats import PERCENTILE_SAMPLES

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a method may cost; None where anything may. `percentiles_ns` are by percentile, at every length, and
    `artifact_bytes` of the artifacts of all lengths together."""

    accuracy_drop_points: float | None = None
    artifact_bytes: int | None = None
    peak_rss_bytes: int | None = None
    percentiles_ns: Mapping[int, int] = field(default_factory=dict)


def broken_limits(rows: Sequence[Row], limits: Limits) -> list[str]:
    """Which limits a method breaks, by its rows (one a length); what is not known of it is not kept either."""
    said = []
    if limits.accuracy_drop_points is not None and is_candidate(rows[0]):
        said += _accuracy(rows, limits.accuracy_drop_points)
    if limits.artifact_bytes is not None:
        said += _size(rows, limits.artifact_bytes)
    if limits.peak_rss_bytes is not None:
        said += _memory(rows, limits.peak_rss_bytes)
    for percentile, limit_ns in sorted(limits.percentiles_ns.items()):
        said += _latency(rows, percentile, limit_ns)
    return said


def _accuracy(rows: Sequence[Row], limit: float) -> list[str]:
    row = accuracy_row(rows)
    drop = row.get("accuracy_drop_points") if row else None
    if drop is None:
        return [f"its accuracy is not known; the limit is a drop of {limit:g} points"]
    return [f"loses {drop:.2f} points of accuracy, more than {limit:g}"] if drop > limit else []


def _size(rows: Sequence[Row], limit: int) -> list[str]:
    """Of the artifacts of all lengths together: that is what a deployment has to hold."""
    footprint = footprint_of(rows)
    size = footprint.artifact_bytes
    if size is None or any(row.get("artifact_bytes") is None for row in rows):
        return [f"its size is not known; the limit is {limit / 1e6:.0f} MB"]
    told = f"its size{footprint.over_lengths}, {size / 1e6:.0f} MB, is above {limit / 1e6:.0f} MB"
    return [told] if size > limit else []


def _memory(rows: Sequence[Row], limit: int) -> list[str]:
    known = [row["peak_rss_bytes"] for row in rows if row.get("peak_rss_bytes") is not None]
    if len(known) < len(rows):
        return [f"its peak memory is not known; the limit is {limit / 1e6:.0f} MB"]
    return [f"its peak memory, {max(known) / 1e6:.0f} MB, is above {limit / 1e6:.0f} MB"] if max(known) > limit else []


def _latency(rows: Sequence[Row], percentile: int, limit_ns: int) -> list[str]:
    column = f"latency_p{percentile}_ns"
    unknown = [str(row["length"]) for row in rows if row.get(column) is None]
    if unknown:
        return [
            f"its p{percentile} is not known at length {', '.join(unknown)}: it takes "
            f"{PERCENTILE_SAMPLES[percentile]} samples, and `farm run --effort standard` (or rigorous) takes more"
        ]
    worst = max(rows, key=lambda row: float(row[column]))
    if worst[column] <= limit_ns:
        return []
    return [f"p{percentile} at length {worst['length']}, {worst[column] / 1e6:.3g} ms, is above {limit_ns / 1e6:g} ms"]


def parse_bytes(text: str, flag: str) -> int:
    """`150MB` as bytes. Raises RequestError."""
    return _quantity(text, flag, _BYTES, "150MB or 1.5GiB")


def parse_ns(text: str, flag: str) -> int:
    """`20ms` as nanoseconds. Raises RequestError."""
    return _quantity(text, flag, _NS, "20ms or 1.5s")


def parse_share(text: str, flag: str) -> float:
    """`0.05` or `5%` as a fraction; of 1 and more only in percent, for `5` may mean 5 %. Raises RequestError."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if rest.strip() or not 0 <= share < (math.inf if percent else 1):
        raise RequestError(f"{flag} {text}: write a share, such as 0.05 or 5%; of 1 and more in percent, such as 150%")
    return share


def parse_mix(text: str) -> dict[int, float]:
    """`64:0.7,256:0.3` as the share of calls at each length; shares are scaled to sum to 1. Raises RequestError."""
    shares: dict[int, float] = {}
    for part in text.split(","):
        word, colon, share = part.partition(":")
        try:
            length, value = int(word), float(share) if colon else 1.0
        except ValueError:
            raise RequestError(f"--lengths {text}: write LENGTH:SHARE, such as 64:0.7,256:0.3") from None
        if length in shares:
            raise RequestError(f"--lengths {text}: {length} is named twice; name each length once")
        shares[length] = value
    if not all(0 <= share < math.inf for share in shares.values()) or sum(shares.values()) <= 0:
        raise RequestError(f"--lengths {text}: shares are numbers that are not negative, and some are above 0")
    total = sum(shares.values())
    return {length: share / total for length, share in sorted(shares.items()) if share}


def _quantity(text: str, flag: str, units: Mapping[str, int], example: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    if not found or found[2].lower() not in units:
        raise RequestError(f"{flag} {text}: write a number with its unit, such as {example}")
    size = round(float(found[1]) * units[found[2].lower()])
    if not size:
        raise RequestError(f"{flag} {text}: nothing keeps a limit of 0; write one such as {example}")
    return size


def parse_points(points: float, flag: str) -> float:
    """Percentage points of accuracy, from 0 to 100. Raises RequestError for what is no such number."""
    if not 0 <= points <= 100:
        raise RequestError(f"{flag} {points:g}: write percentage points from 0 to 100, such as 0.5")
    return points
