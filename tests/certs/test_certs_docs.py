"""The pages about certificates: examples run as they stand, tables are complete, figures are from real runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from certs_making import HOSTILE

from certs.findings import CODES, NOTES, SERVED
from certs.served import Verdict
from certs.targets import Target
from certs.write import write_bundle

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "certificates"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_api_page_run_as_they_stand(world, tmp_path, monkeypatch):
    (tmp_path / "export.p12").write_bytes(write_bundle(world.bundle(), Target.MODERN, HOSTILE, rounds=2048))
    (tmp_path / "word.txt").write_text(HOSTILE.reveal() + "\n")
    (tmp_path / "root.pem").write_bytes(world.root.pem)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"print": lambda *_: None}
    found = blocks("api.md", "python")
    assert len(found) == 4
    for text in found:
        exec(compile(text, "api.md", "exec"), names)
    assert names["bundle"].certs == world.bundle().certs
    assert names["blocking"] == []
    assert (tmp_path / "new.p12").stat().st_mode & 0o777 == 0o600


def test_the_api_fits_on_a_page():
    assert len((PAGES / "api.md").read_text().splitlines()) < 130


def test_the_table_of_findings_is_what_its_script_writes():
    """Where this fails: run scripts/findings_reference.py."""
    assert runpy.run_path(str(ROOT / "scripts" / "findings_reference.py"))["render_reference"]() == (PAGES / "findings.md").read_text()


@pytest.mark.parametrize("target", list(Target))
def test_every_target_is_explained(target):
    assert f"| `{target.value}` |" in (PAGES / "how-to.md").read_text()


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.NOTHING])
def test_every_verdict_is_explained(verdict):
    assert f"| {verdict.value} |" in (PAGES / "how-to.md").read_text()


def test_every_code_that_is_used_is_in_a_table_and_every_row_is_used():
    text = "".join(path.read_text() for path in (ROOT / "certs").rglob("*.py") if path.name != "findings.py")
    used = set(re.findall(r'find\(\s*"(\w+)"', text)) | {"expired", "issuer_expired", "root_expired"}
    used |= {code for code in CODES if f'"{code}" if ' in text or f'else "{code}"' in text}
    assert used == set(CODES)
    assert set(re.findall(r'(?:Note|\bnote)\(\s*"(\w+)"', text)) == set(NOTES)
    assert set(re.findall(r'\bFinding\(\s*"(\w+)"', text)) == set(SERVED)
