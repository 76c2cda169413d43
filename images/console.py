"""What a machine's serial console said last."""

from __future__ import annotations

import re
from pathlib import Path

CONSOLE_BYTES = 6000
CONSOLE_LINES = 12
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[c=>])|[\x00-\x08\x0b-\x1f\x7f]")


def console_tail(log: Path, *, lines: int = CONSOLE_LINES) -> tuple[str, ...]:
    """The last lines of a console log, without control characters; a log that cannot be read says so as its only line."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - CONSOLE_BYTES))
            said = source.read()
    except FileNotFoundError:
        return ()
    except PermissionError:
        return (f"({log} may not be read by this user)",)
    return clean_console(said, lines=lines)


def clean_console(said: bytes, *, lines: int) -> tuple[str, ...]:
    """The last lines of what a console said, without control characters."""
    text = said.decode(errors="replace")
    cleaned = (_ESCAPES.sub("", line).rstrip() for line in text.splitlines())
    return tuple([line for line in cleaned if line][-lines:])
