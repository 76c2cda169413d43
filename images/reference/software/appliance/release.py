"""What is installed: the base release and the site release, each with its version, its features, its words and its page frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Kind(Enum):
    """BASE: the operating system of the box and ``/appliance``. SITE: the product's own software and ``/login``."""

    BASE = "base"
    SITE = "site"


LANGUAGES = {"en": "English", "es": "Español"}


def parse_version(text: str) -> tuple[int, ...]:
    """``"21.1.1"`` as numbers that compare rightly.

    Raises:
        ValueError: it is not numbers with dots.

    """
    return tuple(int(part) for part in text.split("."))


@dataclass(frozen=True)
class Release:
    """An installed release as its folder describes it. ``words`` is language -> English text -> text."""

    kind: Kind
    version: str
    build: str
    product: str
    api_version: str
    features: frozenset[str]
    words: dict[str, dict[str, str]]
    frame: str

    def has(self, feature: str) -> bool:
        """Whether this version behaves so; the names are in the catalogue that the packages are made from."""
        return feature in self.features

    def say(self, language: str, text: str, facts: dict[str, object] | None = None) -> str:
        """``text`` in a language (English, also where there is no translation), its braces filled with ``facts``."""
        found = self.words.get(language, {}).get(text, text)
        return found.format(**facts) if facts else found


def read_release(folder: Path) -> Release:
    """Read a release from the folder that an installation made."""
    facts = json.loads((folder / "release.json").read_text())
    words = {code: json.loads((folder / "words" / f"{code}.json").read_text()) for code in LANGUAGES}
    return Release(
        kind=Kind(facts["kind"]),
        version=facts["version"],
        build=facts["build"],
        product=facts["product"],
        api_version=facts.get("api_version", ""),
        features=frozenset(facts["features"]),
        words=words,
        frame=(folder / "page.html").read_text(),
    )
