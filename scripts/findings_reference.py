"""Write docs/certificates/findings.md from the tables in certs: run with no arguments."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from certs.errors import CertsError  # noqa: E402 - after the path above
from certs.findings import CODES, NOTES, SERVED, Measure  # noqa: E402
from kit.errors import walk_tree  # noqa: E402

PAGE = HERE / "docs" / "certificates" / "findings.md"


def render_reference() -> str:
    """The page."""
    lines = [
        "# Every finding about certificates",
        "",
        "Written by `scripts/findings_reference.py` from the tables in `certs`; do not edit by hand.",
        "",
        "The codes are stable. *usual* is the weight that clients and appliances give it, *strict* the weight under the rules for public",
        "authorities (`--strict`). A finding that is marked is one for which an appliance shows a warning in the certificate's row.",
        "",
        "| code | usual | strict | shown by an appliance | what to do |",
        "| --- | --- | --- | --- | --- |",
    ]
    for code, row in sorted(CODES.items()):
        usual, strict = row.severity(Measure.USUAL).name.lower(), row.severity(Measure.WEBPKI).name.lower()
        lines.append(f"| `{code}` | {usual} | {strict} | {'yes' if row.shown else ''} | {row.hint} |")
    for title, table in (("Of what a server presents", SERVED), ("Notes of reading", NOTES)):
        lines += ["", f"## {title}", "", "| code | meaning |", "| --- | --- |"]
        lines += [f"| `{code}` | {meaning} |" for code, meaning in table.items()]
    lines += ["", "## Errors", "", "| code | meaning |", "| --- | --- |"]
    lines += [
        f"| `{kind.code}` | {(kind.__doc__ or '').splitlines()[0]} |" for kind in sorted(walk_tree(CertsError), key=lambda kind: kind.code)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render_reference())
