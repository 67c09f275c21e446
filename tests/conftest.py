"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest

from farm.records import ModelInfo
from tasks.models import resolve_model
from tasks.progress import SilentProgress


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, instead of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FARM_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_model() -> ModelInfo:
    """The real demo model in the user's own cache: built once per machine, in a minute or two."""
    return resolve_model("demo", SilentProgress())
