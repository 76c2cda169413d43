"""Runs inside the virtual machine of the contract suite: the appliance's own commands, without loading its software anew for each.

An emulated processor needs five seconds to import what `appliance seed` imports. This program has imported it before the machine is
saved; each command is then a fork of it, with the same words, standard input, output and exit status as `python3 -m appliance` has.
One question at a time: ``ask`` takes the words as one line of JSON and then the input; ``answer`` gives the status and then the output.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

SOFTWARE, FOLDER = "/opt/appliance", Path("/run/resident-commands")
PARTS = ("__main__", "seed", "faults", "accounts", "store")


def main() -> None:
    """Answer for ever."""
    sys.path.insert(0, SOFTWARE)
    command, *_ = [import_module(f"appliance.{part}") for part in PARTS]
    FOLDER.mkdir(mode=0o700)
    os.mkfifo(FOLDER / "answer", 0o600)
    os.mkfifo(FOLDER / "ask", 0o600)  # last: whoever sees it may ask
    while True:
        words, _, given = (FOLDER / "ask").read_bytes().partition(b"\n")
        said = os.memfd_create("said")
        child = os.fork()
        if child == 0:
            become(json.loads(words), given, said)
            os._exit(run(command.main))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.lseek(said, 0, os.SEEK_SET)
        with os.fdopen(said, "rb") as output:
            (FOLDER / "answer").write_bytes(f"{status}\n".encode() + output.read())


def become(words: list[str], given: bytes, said: int) -> None:
    """Take the words, the input and the output of the command."""
    stdin = os.memfd_create("given")
    os.write(stdin, given)
    os.lseek(stdin, 0, os.SEEK_SET)
    for source, target in ((stdin, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    sys.argv = ["appliance", *words]


def run(command: Callable[[], int]) -> int:
    """Its exit status, as the interpreter would have left with."""
    try:
        status = command()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - told as Python tells it
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()
