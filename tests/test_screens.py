"""What a run's screens print is what happened, word for word: names and errors of other libraries have brackets."""

from __future__ import annotations

import pytest
from made_up import plan_of, speedup_row

from farm.cli import output
from farm.cli.screen import LiveScreen, PlainScreen, QuietScreen
from farm.events import Notice, ReplicaDone, Step

BRACKETS = "[enforce fail at alloc.cpp:118] no [/opt/x/y.cpp:3] memory :smile: [bold]"

SCREENS = (QuietScreen, PlainScreen, LiveScreen)


@pytest.mark.parametrize("kind", SCREENS)
def test_a_notice_is_printed_as_it_is(kind: type[QuietScreen], capsys: pytest.CaptureFixture[str]) -> None:
    screen = kind(output.make_console())
    screen.on(Notice("a node was lost", BRACKETS))
    screen.close()
    assert BRACKETS in capsys.readouterr().out


@pytest.mark.parametrize("kind", SCREENS[1:])
def test_why_a_cell_failed_is_printed_as_it_is(kind: type[QuietScreen], capsys: pytest.CaptureFixture[str]) -> None:
    cohort = plan_of().cohorts[0]
    row = speedup_row("ort[fp16]", status="failed", reasons=[BRACKETS])
    screen = kind(output.make_console())
    screen.on(ReplicaDone(cohort, 0, 1, 1, 1, (row,)))
    screen.close()
    assert f"ort[fp16]  failed: {BRACKETS}" in capsys.readouterr().out


def test_a_step_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    PlainScreen(output.make_console()).on(Step("prepare", 1, 4, "ort[fp16] at 64"))
    assert "prepare 25%: ort[fp16] at 64" in capsys.readouterr().out


def test_errors_and_notes_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    output.error_console().print(f"farm: {BRACKETS}")
    assert capsys.readouterr().err == f"farm: {BRACKETS}\n"
