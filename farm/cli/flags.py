"""The flags of daily use, put into a suite."""

from __future__ import annotations

from typing import Any

import yaml

from farm.errors import RequestError
from farm.suite import Suite, load_suite


def suite_from_flags(
    source: str | None,
    model: str | None,
    methods: str | None,
    lengths: str | None,
    threads: str | None,
    device: str | None,
    effort: str | None,
    settings: list[str] | None,
) -> Suite:
    """The suite with the flags put in; `--set` comes last and wins. Raises RequestError for what cannot be read."""
    overrides: dict[str, Any] = {}
    if model is not None:
        overrides["model"] = model
    if methods is not None:
        overrides["methods"] = _words(methods)
    if lengths is not None:
        overrides["lengths"] = [_number(word, "--lengths") for word in _words(lengths)]
    if threads is not None:
        overrides["threads"] = [w if w == "auto" else _number(w, "--threads") for w in _words(threads)]
    if device is not None:
        overrides["devices"] = _words(device)
    if effort is not None:
        overrides["effort"] = str(effort)
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise RequestError(f"--set {setting}: write it as key=value, such as --set budget_s=600")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise RequestError(f"--set {setting}: the value is not valid YAML") from None
    return load_suite(source, overrides)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _number(word: str, flag: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise RequestError(f"{flag}: '{word}' is not a whole number") from None
