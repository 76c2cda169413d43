"""The words of the pages: every sentence that can be shown has its Spanish, with the same facts in it."""

from __future__ import annotations

import json
import string

from sentences import SOFTWARE, find_sentences

from images.reference.packages import RELEASES

SPANISH = json.loads((RELEASES / "words" / "es.json").read_text())


def _facts(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_sentence_of_the_software_has_a_spanish_one() -> None:
    assert sorted(find_sentences() - set(SPANISH)) == []


def test_every_translation_is_of_a_sentence_that_the_software_holds() -> None:
    source = "\n".join(path.read_text() for path in SOFTWARE.glob("*.py"))
    assert [text for text in SPANISH if json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"') not in source] == []


def test_translations_carry_the_same_facts() -> None:
    assert {text: SPANISH[text] for text in SPANISH if _facts(text) != _facts(SPANISH[text])} == {}


def test_no_two_words_of_one_menu_become_the_same_in_spanish() -> None:
    menu = ["Users", "Security", "Status", "Updates", "Support", "Networking", "Account", "Management", "Jump", "Reports"]
    assert len({SPANISH[word] for word in menu}) == len(menu)
