from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from lxml import etree
from sample_report import make_report

from migrate.report.render import render_html

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/run_picture.py"))
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_stands_alone() -> None:
    """It loads nothing, and brings the colours that it uses."""
    picture = SCRIPT["render_picture"](render_html(make_report()))
    tree = etree.fromstring(picture)
    assert tree.tag == f"{SVG}svg"
    style = tree.findtext(f"{SVG}style")
    assert "url(" not in style
    assert "prefers-color-scheme: dark" in style
    for used in ("--accent", "--bad", "--card", "--ink"):
        assert f"{used}: #" in style
    assert len(tree.findall(f".//{SVG}rect")) > 10


def test_a_report_without_a_timeline_has_no_picture() -> None:
    with pytest.raises(SystemExit, match="no timeline"):
        SCRIPT["render_picture"]("<html></html>")


def test_the_picture_of_the_front_page_is_one() -> None:
    assert etree.parse(ROOT / "docs/run.svg").getroot().tag == f"{SVG}svg"
