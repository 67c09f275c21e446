"""The command that asks whether this machine measures honestly."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from farm.cli.commands import app
from farm.cli.exit_codes import DONE, SOME_FAILED
from farm.cli.interruption import if_interrupted
from farm.cli.output import make_console
from farm.cli.screen import make_screen


class CheckEffort(StrEnum):
    """How much a self-check measures."""

    quick = "quick"
    standard = "standard"


class CheckDevice(StrEnum):
    """What a self-check keeps busy."""

    cpu = "cpu"
    cuda = "cuda"


@app.command()
def selfcheck(
    effort: Annotated[CheckEffort, typer.Option("--effort", help="Two minutes, or about four.")] = CheckEffort.quick,
    device: Annotated[CheckDevice, typer.Option("--device", help="What to measure on.")] = CheckDevice.cpu,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the results there.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the verdict at the end.")] = False,
) -> int:
    """Does this machine measure honestly? Exit code 1 if it does not."""
    from farm.cli.check_text import TEXT_WIDTH, to_rich
    from farm.selfcheck import AMOUNTS, check

    kept = f"what was measured is in {keep}" if keep else "nothing is kept"
    left = f"no verdict; {kept}. The same command starts over"
    with if_interrupted(left), closing(make_screen(make_console(), quiet)) as screen:
        checked = check(AMOUNTS[effort.value], device=device.value, keep=keep, listener=screen)
    make_console().print(to_rich(checked), width=TEXT_WIDTH)
    return DONE if checked.honest else SOME_FAILED
