"""A claim on a domain in its machine's folder, beside the ledger: with it a domain is known as ours even where the ledger was lost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from images.domain import Mark
from kit.files import write_private

FILE = "claim.json"


def write_claim(folder: Path, mark: Mark) -> None:
    """Write the mark that the domain of this folder carries."""
    write_private(folder / FILE, json.dumps(asdict(mark)).encode())


def find_claim(folder: Path) -> Mark | None:
    """The mark that was written; None where there is none, or a damaged one."""
    try:
        return Mark(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
