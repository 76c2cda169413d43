"""``python -m certs …``: the certificate commands alone."""

from __future__ import annotations

import os
import sys

from certs.cli import app
from kit.errors import BoxshiftError, UsageError
from kit.plain import spell_out


def main() -> int:
    """Run the commands; an error becomes its sentence and its hint."""
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: no second complaint at the end
        return 1
    except BoxshiftError as error:
        sys.stderr.write(spell_out(f"{error.sentence}{f' {error.hint}' if error.hint else ''}\n", keep="\n"))
        return 2 if isinstance(error, UsageError) else 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
