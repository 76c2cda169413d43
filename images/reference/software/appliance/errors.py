"""The one way a request is turned down."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - it reads as what it says on the page
    """What was asked cannot be done. ``sentence`` is English and also the key of its translation; ``facts`` fill its braces."""

    def __init__(self, sentence: str, **facts: object) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.facts = facts

    def __str__(self) -> str:
        return self.sentence.format(**self.facts)


class Busy(Refused):
    """Not now: a restore or an installation is running."""
