"""The pages: those that are generated are up to date, every link leads somewhere, and every command that is named exists."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from source_tree import ROOT, tracked_files
from typer.main import get_command

from migrate.cli.main import app

pytestmark = pytest.mark.process  # git lists the files

GENERATED = {
    "docs/reference/commands.md": "scripts/commands_reference.py",
    "docs/reference/failure-states.md": "scripts/failures_reference.py",
}
BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
IN_BLOCK = re.compile(r"^ *(?:[$] |sudo -u \w+ )?boxshift ([a-z-][^\n|#;&<>]*)", re.MULTILINE)
IN_TEXT = re.compile(r"`(?:[^`]*/)?boxshift ([a-z-][^`|;]*)`")


def pages() -> list[str]:
    return [name for name in tracked_files() if name.endswith(".md") and name.startswith(("docs/", "README", "CONTRIBUTING", "CHANGELOG"))]


@pytest.mark.parametrize("page", sorted(GENERATED))
def test_a_generated_page_is_what_its_script_writes(page: str) -> None:
    """Where this fails: scripts/commands-reference, scripts/failures-reference."""
    assert runpy.run_path(str(ROOT / GENERATED[page]))["render_reference"]() == (ROOT / page).read_text()


def links_of(page: str) -> list[str]:
    text = BLOCK.sub("", (ROOT / page).read_text())
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]


def target_of(page: str, link: str) -> Path:
    return (ROOT / page).parent / link.partition("#")[0] if not link.startswith("#") else ROOT / page


def test_every_link_between_pages_leads_somewhere() -> None:
    assert len(pages()) > 20
    assert [f"{page}: {link}" for page in pages() for link in links_of(page) if not target_of(page, link).exists()] == []


def heading_words(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def test_every_link_to_a_heading_finds_it() -> None:
    lost = []
    for page in pages():
        for link in links_of(page):
            heading = link.partition("#")[2]
            found = re.findall(r"^#+ (.*)$", target_of(page, link).read_text(), re.MULTILINE) if heading else []
            if heading and heading not in {heading_words(one) for one in found}:
                lost.append(f"{page}: {link}")
    assert lost == []


def test_every_page_can_be_reached_from_the_map() -> None:
    seen, todo = set(), ["docs/index.md"]
    while todo:
        page = todo.pop()
        if page in seen or not page.endswith(".md"):
            continue
        seen.add(page)
        todo += [str(target_of(page, link).resolve().relative_to(ROOT)) for link in links_of(page)]
    assert {page for page in pages() if page.startswith("docs/")} - seen == set()


def commands_of(page: str) -> list[str]:
    """What stands after `boxshift` in code, on its own line or inside a sentence."""
    text = (ROOT / page).read_text()
    return [*IN_BLOCK.findall("\n".join(BLOCK.findall(text))), *IN_TEXT.findall(BLOCK.sub("", text))]


@cache
def find_command(words: tuple[str, ...]) -> Any:
    """The command that the words begin with; None where there is none."""
    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "list_commands"):
            return command
        command = command.get_command(typer.Context(command), word)
        if command is None:
            return None
    return command


def faults_of(line: str) -> list[str]:
    words = line.split()
    names = tuple(word for word in words if re.fullmatch(r"[a-z][a-z-]*", word))[:2] if not words[0].startswith("-") else ()
    command = find_command(names)
    if command is None:
        return [f"no such command: {line}"]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", *({"--install-completion", "--show-completion"} if not names else ())}
    return [f"no such option: {word} in {line}" for word in words if word.startswith("--") and word.partition("=")[0] not in known]


def test_every_command_that_a_page_names_exists_with_its_options() -> None:
    lines = [(page, line) for page in pages() for line in commands_of(page)]
    assert len(lines) > 60
    assert [f"{page}: {fault}" for page, line in lines for fault in faults_of(line)] == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [("run PLAN --yes", False), ("certs served HOST --json", False), ("fly PLAN", True), ("status --rocket", True), ("lab fly", True)],
)
def test_the_search_for_commands_knows_what_it_looks_for(line: str, fault: bool) -> None:
    assert bool(faults_of(line)) == fault
