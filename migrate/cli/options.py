"""Options and arguments that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlanOrFolder = Annotated[Path, typer.Argument(help="The plan file (or its folder).")]
RunName = Annotated[str, typer.Option("--run", help="Name of the run; default: the newest of this plan.")]
EngineUrl = Annotated[str, typer.Option("--engine", help="postgresql://… where runs are not kept beside the plan.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def engine_option(engine: str) -> str:
    """What has to be typed too; an address is left out, since a password may be in it."""
    if not engine:
        return ""
    return f" --engine {engine if engine.startswith(('env:', 'file:', 'keyring:')) else '…'}"
