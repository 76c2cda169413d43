"""What the commands do, without the command line: each takes plain values and gives back what to print and how to exit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certs.bundle import Bundle, Contents
from certs.clock import read_clock_offset
from certs.diagnose import diagnose, worst
from certs.errors import AmbiguousError, CertsError, LegacyCipherError, NoCertificateError
from certs.findings import Finding, Severity
from certs.inputs import parse_place
from certs.limits import MAX_ROUNDS
from certs.loading import load_bundle, load_contents, verify_readable
from certs.reports import backend_value, bundle_value, finding_value, fitting, heap_value, render_findings, render_heap, render_tree
from kit.errors import UsageError

WARNED, FOUND, FAILED, LEGACY = 1, 3, 4, 9


@dataclass(frozen=True)
class Answer:
    """What a command says (``text`` for standard output, ``complaints`` for standard error) and how it exits."""

    text: str
    code: int = 0
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What nearly every command is given: files, references to their passphrases, and where the chain may be completed from."""

    files: Sequence[Path]
    passphrases: Sequence[str] = ()
    choose: str = ""
    roots: Path | None = None
    intermediates: Sequence[Path] = ()
    aia: bool = False
    max_rounds: int = MAX_ROUNDS

    def bundle(self, contents: Contents, at: datetime | None = None) -> Bundle:
        return load_bundle(contents, self.choose, self.roots, self.intermediates, aia=self.aia, at=at)

    def readable(self) -> Contents:
        """The contents; raises what a passphrase or a tool would mend."""
        return verify_readable(load_contents(self.files, self.passphrases, self.max_rounds))


@dataclass(frozen=True)
class Measures:
    """By what ``inspect`` judges."""

    hostnames: Sequence[str] = ()
    clock_of: str | None = None
    at: datetime | None = None
    private: bool = False
    strict: bool = False


def run_inspect(given: Given, measures: Measures, *, as_json: bool) -> Answer:
    """Everything that is known about some files."""
    if not all(measures.hostnames):
        raise UsageError("--hostname is empty, so nothing would be compared.", hint="Name the host, or leave --hostname out.")
    contents = load_contents(given.files, given.passphrases, given.max_rounds)
    moment = measures.at.replace(tzinfo=measures.at.tzinfo or UTC) if measures.at else None
    try:
        bundle = given.bundle(contents, moment)
    except CertsError as error:
        if not isinstance(error, AmbiguousError | NoCertificateError) and error not in contents.failures:
            raise  # it is about the roots or the intermediates, not about what is inspected
        return _answer_with_heap(contents, error, as_json=as_json)
    offset = read_clock_offset(*parse_place(measures.clock_of)) if measures.clock_of is not None else None
    findings = diagnose(
        bundle, hostname=measures.hostnames, at=moment, clock_offset=offset, allow_private=measures.private, strict=measures.strict
    )
    code = LEGACY if any(finding.code == LegacyCipherError.code for finding in findings) else code_of(findings)
    if as_json:
        return Answer(
            render_json({**bundle_value(bundle), "findings": [finding_value(finding) for finding in findings], "openssl": backend_value()}),
            code,
        )
    return Answer(f"{render_tree(bundle, moment)}\n{render_findings(findings) or 'Nothing is wrong with it.'}", code)


def _answer_with_heap(contents: Contents, error: CertsError, *, as_json: bool) -> Answer:
    """No single leaf could be told: everything that was found, and why."""
    legacy = any(isinstance(each, LegacyCipherError) for each in (error, *contents.failures))
    code = LEGACY if legacy else WARNED if isinstance(error, AmbiguousError) and not contents.failures else FOUND
    if as_json:
        failures = [each.to_record() for each in contents.failures]
        notes = [{"code": note.code, "sentence": note.sentence, "where": note.where} for note in contents.notes]
        return Answer(
            render_json(
                {**heap_value(contents), "notes": notes, "failures": failures, "error": error.to_record(), "openssl": backend_value()}
            ),
            code,
        )
    errors = [*contents.failures, *([] if error in contents.failures else [error])]
    return Answer(render_heap(contents), code, tuple(map(complaint, errors)))


def run_match(given: Given, *, as_json: bool) -> Answer:
    """Which key fits which certificate."""
    contents = load_contents(given.files, given.passphrases, given.max_rounds)
    lost = any(not fitting(contents, key) for key in contents.keys)
    code = FOUND if lost or not contents.keys or contents.failures else 0
    if as_json:
        return Answer(render_json({**heap_value(contents), "failures": [error.to_record() for error in contents.failures]}), code)
    return Answer(render_heap(contents) or "Nothing was found.", code, complaints(contents))


def complaint(error: CertsError) -> str:
    """An error as one line, with the place in the files where it is."""
    where = error.facts.get("where")
    return f"{f'{where}: ' if where else ''}{error.sentence}{f' {error.hint}' if error.hint else ''}"


def complaints(contents: Contents) -> tuple[str, ...]:
    """What could not be read, one line each."""
    return tuple(map(complaint, contents.failures))


def code_of(findings: tuple[Finding, ...]) -> int:
    """How a command exits that found these."""
    return {Severity.ERROR: FOUND, Severity.WARNING: WARNED}.get(worst(findings) or Severity.INFO, 0)


def render_json(value: dict[str, Any]) -> str:
    """JSON in which no character can steer a terminal: names in certificates are anybody's text."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text)
