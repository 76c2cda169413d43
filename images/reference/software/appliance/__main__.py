"""``python -m appliance serve|seed|fault|unlock --root FOLDER``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from .box import Box, Skin, read_box

ROOT = Path("/var/lib/appliance")


def main() -> int:
    """Run one command; answers its exit status."""
    parser = argparse.ArgumentParser(prog="appliance", description="The reference appliance.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the box until it is switched off")
    serve.add_argument("--skin", choices=[skin.value for skin in Skin], default=Skin.LOCAL.value)
    serve.add_argument("--factory", type=Path, required=True, help="folder with the factory's packages and keys")
    serve.add_argument("--admin", default="", help="administration address (local skin)")
    serve.add_argument("--service", action="append", default=[], help="further address that a new box starts with")
    serve.add_argument("--port", type=int, default=443)
    commands.add_parser("seed", help="fill the site; reads JSON on standard input")
    fault = commands.add_parser("fault", help="switch a fault for tests; without a name: list them")
    fault.add_argument("name", nargs="?")
    fault.add_argument("value", nargs="?", default="on")
    unlock = commands.add_parser("unlock", help="unlock an account of both consoles")
    unlock.add_argument("name")
    for one in (serve, *commands.choices.values()):
        if "--root" not in one._option_string_actions:  # noqa: SLF001 - argparse has no public way to ask
            one.add_argument("--root", type=Path, default=ROOT)
    asked = parser.parse_args()
    if asked.command == "serve":
        return _serve(asked)
    box = read_box(asked.root.resolve())
    os.chdir(box.root)
    return {"seed": _seed, "fault": _fault, "unlock": _unlock}[asked.command](box, asked)


def _serve(asked: argparse.Namespace) -> int:
    from .supervisor import serve

    serve(Box(asked.root.resolve(), Skin(asked.skin), asked.port, asked.factory.resolve(), asked.admin, tuple(asked.service)))
    return 0


def _seed(box: Box, _: argparse.Namespace) -> int:
    from .errors import Refused
    from .seed import seed

    try:
        print(json.dumps(seed(box, json.load(sys.stdin))))  # noqa: T201 - its command line
    except (Refused, ValueError, KeyError) as error:
        print(f"appliance seed: {error!r}", file=sys.stderr)  # noqa: T201 - its command line
        return 1
    return 0


def _fault(box: Box, asked: argparse.Namespace) -> int:
    from .faults import FAULTS, Faults
    from .store import Store

    if asked.name is None:
        print("\n".join(f"{name}: {meaning}" for name, meaning in FAULTS.items()))  # noqa: T201 - its command line
        return 0
    try:
        Faults(Store(box).box).switch(asked.name, asked.value)
    except ValueError as error:
        print(f"appliance fault: {error}", file=sys.stderr)  # noqa: T201 - its command line
        return 2
    return 0


def _unlock(box: Box, asked: argparse.Namespace) -> int:
    from .accounts import Accounts
    from .store import Store

    for console in ("appliance", "login"):
        Accounts(console, Store(box)).unlock(asked.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
