"""``boxshift certs …``: read anything, explain it, write it for a target, prove what is served.

Exit codes: 0 nothing worse than a note, 1 warnings, 3 an error was found (or what is served is not what was expected), 4 something could
not be read or did not answer, 9 a legacy cipher is missing; errors that are raised get theirs from the program that mounts these commands.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import io
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certs.errors import LegacyCipherError
from certs.inputs import FORMS
from certs.limits import MAX_ROUNDS
from certs.protocols import Protocol
from certs.targets import Target
from kit.plain import spell_out

if TYPE_CHECKING:
    from certs.commands import Answer

app = typer.Typer(no_args_is_help=True, help="Certificates: read anything, explain it, carry it over exactly, prove it is served.")

LEGACY = 9

Files = Annotated[list[Path], typer.Argument(help="Files or folders in any format; - for standard input.")]
Keys = Annotated[list[Path] | None, typer.Option("--key", help="File with the private key, where it is apart.")]
Phrases = Annotated[list[str] | None, typer.Option("--passphrase", help=f"Reference to a passphrase ({FORMS}); several are all tried.")]
Choose = Annotated[str, typer.Option(help="Which certificate is the leaf: its name, alias, or the start of its SHA-256.")]
RootsAt = Annotated[Path | None, typer.Option("--roots", help="Trust the roots in this file or folder instead of this machine's.")]
Intermediates = Annotated[list[Path] | None, typer.Option(help="Files or folders with intermediates to complete the chain from.")]
Aia = Annotated[bool, typer.Option("--aia", help="Fetch missing issuers from where the certificates say.")]
Private = Annotated[bool, typer.Option("--private", help="A private CA or a self-signed certificate is legal.")]
MaxRounds = Annotated[int, typer.Option(min=1, help="Most rounds of key derivation that a file may ask for.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
NewPhrase = Annotated[
    str | None, typer.Option(help=f"Reference to the passphrase to write under ({FORMS}); one is made where this is not said.")
]
BarePhrase = Annotated[
    str | None, typer.Option("--new-passphrase", help=f"Reference to a passphrase for the key ({FORMS}); bare where this is not said.")
]
PhraseOut = Annotated[Path | None, typer.Option(help="Write the generated passphrase to this private file instead of the terminal.")]


@app.callback()
def _begin() -> None:
    """Certificates: read anything, explain it, carry it over exactly, prove it is served."""
    # A crash must not leave keys in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode still gets its answer


@app.command()
def inspect(
    files: Files,
    key: Keys = None,
    hostname: Annotated[list[str] | None, typer.Option(help="Name that it must serve.")] = None,
    passphrase: Phrases = None,
    choose: Choose = "",
    roots: RootsAt = None,
    intermediates: Intermediates = None,
    clock_of: Annotated[str | None, typer.Option(help="HOST[:PORT] of the box: judge by its clock too.")] = None,
    at: Annotated[datetime | None, typer.Option(help="Judge for this moment (UTC) instead of now.")] = None,
    max_rounds: MaxRounds = MAX_ROUNDS,
    aia: Aia = False,
    private: Private = False,
    strict: Annotated[bool, typer.Option(help="Measure by the rules for public authorities.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in these files, in any format and order: the chain, the key, every finding."""
    from certs.commands import Given, Measures, run_inspect

    given = Given([*files, *(key or [])], passphrase or [], choose, roots, intermediates or [], aia, max_rounds)
    measures = Measures(hostname or [], clock_of, at, private, strict)
    _say(lambda: run_inspect(given, measures, as_json=as_json))


@app.command()
def match(files: Files, key: Keys = None, passphrase: Phrases = None, max_rounds: MaxRounds = MAX_ROUNDS, as_json: AsJson = False) -> None:
    """Which private key fits which certificate. Exit 3 when a key fits none."""
    from certs.commands import Given, run_match

    _say(lambda: run_match(Given([*files, *(key or [])], passphrase or [], max_rounds=max_rounds), as_json=as_json))


@app.command()
def bundle(
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    target: Annotated[Target, typer.Option("--for", help="What it is written for.")] = Target.MODERN,
    key: Keys = None,
    passphrase: Phrases = None,
    choose: Choose = "",
    roots: RootsAt = None,
    intermediates: Intermediates = None,
    new_passphrase: NewPhrase = None,
    passphrase_out: PhraseOut = None,
    alias: Annotated[str, typer.Option(help="Friendly name in a PKCS#12 file.")] = "",
    keep_root: Annotated[bool, typer.Option("--keep-root", help="Write the root too.")] = False,
    private: Private = False,
    aia: Aia = False,
    max_rounds: MaxRounds = MAX_ROUNDS,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Leaf, chain and key in the order TLS wants, completed, for a target."""
    from certs.commands import Given
    from certs.outputs import Output, run_bundle

    given = Given([*files, *(key or [])], passphrase or [], choose, roots, intermediates or [], aia, max_rounds)
    output = Output(out, target, new_passphrase, passphrase_out, alias, keep_root, overwrite, dry_run, private)
    _say(lambda: run_bundle(given, output))


@app.command()
def convert(
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    target: Annotated[Target, typer.Option("--for", help="What it is written for.")] = Target.PEM,
    key: Keys = None,
    passphrase: Phrases = None,
    choose: Choose = "",
    new_passphrase: NewPhrase = None,
    passphrase_out: PhraseOut = None,
    max_rounds: MaxRounds = MAX_ROUNDS,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """The same certificates and key in another container: nothing is completed, nothing is left out."""
    from certs.commands import Given
    from certs.outputs import Output, run_convert

    output = Output(out, target, new_passphrase, passphrase_out, overwrite=overwrite, dry_run=dry_run)
    _say(lambda: run_convert(Given([*files, *(key or [])], passphrase or [], choose, max_rounds=max_rounds), output))


@app.command()
def split(
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into; made where it is not there.")],
    key: Keys = None,
    passphrase: Phrases = None,
    choose: Choose = "",
    roots: RootsAt = None,
    new_passphrase: BarePhrase = None,
    max_rounds: MaxRounds = MAX_ROUNDS,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """One PEM file each: leaf, chain, full chain, root, key."""
    from certs.commands import Given
    from certs.outputs import Output, run_split

    output = Output(out, Target.PEM, new_passphrase, overwrite=overwrite, dry_run=dry_run)
    _say(lambda: run_split(Given([*files, *(key or [])], passphrase or [], choose, roots, max_rounds=max_rounds), output))


@app.command()
def expiry(
    files: Annotated[list[Path] | None, typer.Argument(help="Files or folders.")] = None,
    host: Annotated[list[str] | None, typer.Option(help="HOST[:PORT] whose served certificates are looked at.")] = None,
    within: Annotated[str, typer.Option(help="Report what ends within this time: 30d, 12h.")] = "30d",
    passphrase: Phrases = None,
    max_rounds: MaxRounds = MAX_ROUNDS,
    as_json: AsJson = False,
) -> None:
    """When certificates end. Exit 3 when one ends within the time, for monitoring; 4 when one cannot be read."""
    from certs.commands import Given
    from certs.looking import run_expiry

    _say(lambda: run_expiry(Given(files or [], passphrase or [], max_rounds=max_rounds), host or [], within, as_json=as_json))


@app.command()
def request(
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the signing request (PEM).")],
    key_out: Annotated[Path | None, typer.Option(help="File for the new private key.")] = None,
    key: Keys = None,
    passphrase: Phrases = None,
    choose: Choose = "",
    new_passphrase: BarePhrase = None,
    max_rounds: MaxRounds = MAX_ROUNDS,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """A signing request that repeats a certificate's names and kind of key: for the key that cannot be exported."""
    from certs.commands import Given
    from certs.outputs import Output, run_request

    output = Output(out, Target.PEM, new_passphrase, overwrite=overwrite, dry_run=dry_run)
    _say(lambda: run_request(Given([*files, *(key or [])], passphrase or [], choose, max_rounds=max_rounds), output, key_out))


@app.command()
def served(
    place: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="What to look at.")],
    address: Annotated[
        list[str] | None, typer.Option(help="Connect here instead of where the name resolves to; several are all looked at.")
    ] = None,
    expect: Annotated[list[Path] | None, typer.Option(help="Files of the bundle that must be served.")] = None,
    old: Annotated[list[Path] | None, typer.Option(help="File of the certificate that was served before.")] = None,
    passphrase: Phrases = None,
    roots: RootsAt = None,
    starttls: Annotated[Protocol, typer.Option(help="What to speak before TLS.")] = Protocol.TLS,
    wait: Annotated[str | None, typer.Option(help="Look again for this long until it matches: 60s, 5m.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for each handshake.")] = 10.0,
    private: Private = False,
    as_json: AsJson = False,
) -> None:
    """What each address really presents, with SNI and without, and whether it is what is expected."""
    from certs.looking import Look, run_served

    look = Look(place, address or [], expect or [], old or [], passphrase or [], roots, starttls, wait, timeout, private)
    _say(lambda: run_served(look, as_json=as_json, tell=_tell))


def _say(work: Callable[[], Answer]) -> None:
    """Print what a command answers, and exit as it says. A missing cipher has an exit code of its own, so that scripts can tell."""
    from certs.commands import complaint

    try:
        answer = work()
    except LegacyCipherError as error:
        _tell(complaint(error))
        raise typer.Exit(LEGACY) from error
    for line in answer.complaints:
        _tell(line)
    if answer.text:
        typer.echo(spell_out(answer.text, keep="\n"))
    raise typer.Exit(answer.code)


def _tell(line: str) -> None:
    """A line on standard error. Files, certificates and servers put their own texts in; none of them may steer the terminal."""
    typer.echo(spell_out(line, keep="\n"), err=True)
