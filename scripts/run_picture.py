"""The timeline of a report as a picture that stands alone. Called by scripts/run-picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path

MARGIN = 24  # around the picture, in its own units


def render_picture(page: str) -> str:
    """The picture of a report's page with the styles that it uses, on a card of its own."""
    picture = re.search(r'<svg viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', page, re.DOTALL)
    if picture is None:
        raise SystemExit("There is no timeline in this report: nothing of the run has begun.")
    width, height = int(picture[1]), int(picture[2])
    box = f"{-MARGIN} {-MARGIN} {width + 2 * MARGIN} {height + 2 * MARGIN}"
    card = f'<rect class="card" x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" rx="12"/>'
    attributes, _, body = picture[3].partition(">")
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}"{attributes}>'
    return "\n".join([head, f"<style>\n{render_style(page)}\n</style>", card, *lines, "</svg>", ""])


def render_style(page: str) -> str:
    """The colours of the page, light and dark, and what it says about pictures."""
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    rules = re.findall(r"^svg [^\n]*\}$", page, re.MULTILINE)
    colours = [f":root {{{_variables(light)}}}", f"@media (prefers-color-scheme: dark) {{ :root {{{_variables(dark)}}} }}"]
    return "\n".join([*colours, ".card { fill: var(--card); }", *rules])


def _variables(block: str) -> str:
    return " ".join(re.findall(r"--[a-z-]+: [^;]+;", block))


if __name__ == "__main__":
    sys.stdout.write(render_picture(Path(sys.argv[1]).read_text(encoding="utf-8")))
