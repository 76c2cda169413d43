"""``boxshift``: the command line. Each noun has a module; heavy imports happen inside the commands that need them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from migrate.cli import boxes, clients, decisions, demo, failover, packages, plans, runs
from migrate.cli.say import EXIT_BUG, EXIT_INTERRUPTED

app = typer.Typer(
    name="boxshift",
    help="Move an appliance from one box to another without fear.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
plans.register(app)
runs.register(app)
clients.register(app)
decisions.register(app)
boxes.register(app)
demo.register(app)
app.add_typer(packages.app)
app.add_typer(failover.app)


def main() -> None:
    """Run a command; every expected failure ends in a sentence, a hint and a documented exit code."""
    from kit.errors import BoxshiftError
    from kit.files import explain_refusal
    from migrate.cli.say import fail

    signal.signal(signal.SIGTERM, _end_in_order)
    logging.raiseExceptions = False  # a log on a full disk is no reason to fill the screen with its tracebacks
    try:
        app()
    except BoxshiftError as error:
        fail(error, as_json="--json" in sys.argv)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != EXIT_INTERRUPTED:  # typer makes one of Ctrl-C, and says nothing
            raise
        sys.stderr.write("\nboxshift: interrupted. Nothing is lost: the same command goes on from here.\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        fail(explain_refusal(error), as_json="--json" in sys.argv)
    except Exception as error:
        if "--debug" in sys.argv or os.environ.get("BOXSHIFT_DEBUG"):
            raise
        sys.stderr.write(f"boxshift: a fault of boxshift itself: {type(error).__name__}. Please report it; BOXSHIFT_DEBUG=1 shows where.\n")
        sys.exit(EXIT_BUG)


def _end_in_order(_number: int, _frame: FrameType | None) -> NoReturn:
    """Asked to end, a command leaves as from Ctrl-C: what it started is stopped, what it put up is taken away."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
