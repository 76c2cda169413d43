"""The page about the commands, from the command line itself. Called by scripts/commands-reference."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command

from migrate.cli.main import app

HEAD = """\
# Commands

<!-- Written by scripts/commands-reference from the command line itself; do not edit by hand. -->

`boxshift COMMAND --help` shows the same. Results go to standard output, everything else (progress, questions, errors) to standard error.
With `--json` a command ends with one JSON object on standard output. What the exit codes mean is on [their own page](exit-codes.md).

PLAN is the plan file. Commands that look at a run or decide on it take the plan's folder as well, and the current folder where it is
left out and may be. Nothing has to be set in the environment; `NO_COLOR=1` switches colours off, `BOXSHIFT_DEBUG=1` shows a traceback
where boxshift itself fails, `BOXSHIFT_HOME` moves the folder in which images and machines are kept.
"""


def render_reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *render_group(get_command(app), "boxshift")])


def render_group(group: Any, path: str) -> Iterator[str]:
    """Every command below it, in the order of ``--help``."""
    context = typer.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command.hidden:
            continue
        if hasattr(command, "list_commands"):
            yield from render_group(command, f"{path} {name}")
        else:
            yield render_command(command, f"{path} {name}")


def render_command(command: Any, path: str) -> str:
    """Its line of use, what it does, its arguments and options."""
    shown = [row for parameter in command.params if (row := render_parameter(parameter))]
    usage = " ".join([path, *(word for parameter in command.params if (word := argument_word(parameter))), "[OPTIONS]"])
    table = ["", "| | default | meaning |", "| --- | --- | --- |", *shown] if shown else []
    return "\n".join([f"## {path}\n", f"`{usage}`\n", " ".join((command.help or "").split()), *table]) + "\n"


def argument_word(parameter: Any) -> str:
    """``PLAN``, or ``[PLAN]`` where it may be left out; empty for an option."""
    if parameter.param_type_name != "argument":
        return ""
    name = str(parameter.metavar or parameter.name).upper()
    return name if parameter.required else f"[{name.strip('[]')}]"


def render_parameter(parameter: Any) -> str:
    """One line of the table; empty for what every command has."""
    if parameter.name == "help" or getattr(parameter, "hidden", False):
        return ""
    names = argument_word(parameter).strip("[]") or ", ".join([*parameter.opts, *parameter.secondary_opts])
    is_flag = getattr(parameter, "is_flag", False)
    value = parameter.default
    default = "**needed**" if parameter.required else f"`{value}`" if value not in (None, "", False) and not is_flag else ""
    meaning = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
    return f"| `{names}` | {default} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
