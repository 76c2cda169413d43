"""What the writing commands do: each takes plain values and gives back what to print and how to exit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from certs.bundle import Bundle
from certs.cert import Cert
from certs.chain import assemble
from certs.commands import WARNED, Answer, Given, complaints
from certs.diagnose import diagnose
from certs.errors import NotWritableError
from certs.findings import Severity
from certs.inputs import read_passphrases
from certs.loading import load_contents
from certs.reports import render_findings, render_plan
from certs.request import make_request
from certs.roots import NO_ROOTS
from certs.targets import Cipher, Target
from certs.write import generate_passphrase, pem, verify_place, write_bundle, write_file, write_key
from kit.errors import UsageError
from kit.secret import Secret


@dataclass(frozen=True)
class Output:
    """What a writer is told: where, for what, under which passphrase, and what it may do to a file that is there."""

    path: Path
    target: Target
    passphrase: str | None = None
    passphrase_out: Path | None = None
    alias: str = ""
    keep_root: bool = False
    overwrite: bool = False
    dry_run: bool = False
    private: bool = False

    def verify_places(self, paths: Sequence[Path | None], given: Given) -> None:
        """Look before anything is written whether every file can be: no file for two things, none that is read."""
        wanted = [path for path in paths if path is not None]
        for number, path in enumerate(wanted):
            if str(path) == "-":
                raise UsageError("Nothing is written to standard output, where a key could be seen.", hint="Name a file.")
            if path in wanted[:number] or any(_is_same(path, other) for other in wanted[:number]):
                raise UsageError(f"{path} is named for two things; one would be lost.", hint="Name two files.")
            verify_place(path, overwrite=self.overwrite)
            read = [*given.files, *given.intermediates, *([given.roots] if given.roots else []), *self._words(given)]
            if path.exists() and any(_is_same(path, source) or _is_same(path.parent, source) for source in read):
                raise NotWritableError(f"{path} is among the files that are read; it would be lost.", hint="Choose another name.")

    def _words(self, given: Given) -> Iterator[Path]:
        """The files that references to passphrases name."""
        for kind, _, rest in (each.partition(":") for each in (*given.passphrases, self.passphrase or "")):
            if kind == "file":
                yield from (Path(rest), Path(rest.rpartition("#")[0] or rest))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def run_bundle(given: Given, output: Output) -> Answer:
    """Leaf, chain and key, completed and in order, for a target."""
    output.verify_places([output.path, output.passphrase_out], given)
    contents = given.readable()
    bundle = given.bundle(contents)
    judged = diagnose(replace(bundle, failures=()), allow_private=output.private or bundle.is_complete)
    found = [finding for finding in judged if finding.severity > Severity.INFO]
    notes = [*complaints(contents), *([render_findings(found)] if found else [])]
    if bundle.key is None and not bundle.spare_keys and output.target is not Target.JAVA:
        notes.append("Note: there is no private key in it.")
    return replace(_write(bundle, output, tuple(notes)), code=WARNED if any(finding.blocks for finding in found) else 0)


def run_convert(given: Given, output: Output) -> Answer:
    """The same in another container: nothing completed, nothing left out."""
    output.verify_places([output.path, output.passphrase_out], given)
    contents = given.readable()
    found = assemble(contents, roots=NO_ROOTS, choose=given.choose)
    rest = tuple(dict.fromkeys((*found.path[1:], *found.others)))
    return _write(replace(found, chain=rest, root=None, others=()), output, complaints(contents))


def _write(bundle: Bundle, output: Output, said: tuple[str, ...]) -> Answer:
    target = output.target
    plan = render_plan(bundle, target, keep_root=output.keep_root, out=str(output.path))
    if bundle.key is None and bundle.spare_keys:
        bundle.need_key()
    if output.dry_run:
        return Answer(plan, 0, said)
    needed = target.profile.cipher is not Cipher.NONE and (bundle.key is not None or target.profile.container == "pkcs12")
    secret = _one_phrase(output.passphrase) or (generate_passphrase() if needed else None)
    content = write_bundle(bundle, target, secret, keep_root=output.keep_root, alias=output.alias)
    made = secret if needed and output.passphrase is None else None
    if made is not None and output.passphrase_out is not None:
        _write_with_word(output, output.passphrase_out, content, made)
    else:
        write_file(output.path, content, overwrite=output.overwrite)
    lines = [plan, f"Written and read back: {output.path}"]
    if made is not None:
        lines.append(f"Passphrase: {f'in {output.passphrase_out}' if output.passphrase_out else made.reveal()}")
    return Answer("\n".join(lines), 0, said)


def _write_with_word(output: Output, place: Path, content: bytes, word: Secret) -> None:
    """Both or none: a file whose passphrase nobody has is worse than no file, and so is an old file whose passphrase was replaced."""
    fresh = place.with_name(f".{place.name[:50]}.new")
    write_file(fresh, word.reveal().encode() + b"\n", overwrite=True)
    try:
        write_file(output.path, content, overwrite=output.overwrite)
        fresh.replace(place)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _one_phrase(reference: str | None) -> Secret | None:
    found = read_passphrases([] if reference is None else [reference], what="the new passphrase")
    if found and not found[0]:
        raise NotWritableError("The new passphrase is empty; several programs refuse that.", hint="Give one, or let one be made.")
    return found[0] if found else None


def run_split(given: Given, output: Output) -> Answer:
    """One PEM file each: leaf, chain, full chain, root, key. ``output.path`` is the folder."""
    contents = given.readable()
    bundle = given.bundle(contents)
    parts = {"leaf.pem": _pems((bundle.leaf,)), "chain.pem": _pems(bundle.chain), "fullchain.pem": _pems(bundle.certs)}
    parts["root.pem"] = _pems((bundle.root,)) if bundle.root else b""
    parts["key.pem"] = write_key(bundle.key, _one_phrase(output.passphrase)) if bundle.key and not output.dry_run else b""
    paths = [output.path / name for name, content in parts.items() if content]
    if output.dry_run:
        paths += [output.path / "key.pem"] if bundle.key else []
        return Answer("\n".join(f"would write {path}" for path in paths), 0, complaints(contents))
    _make_folder(output.path)
    output.verify_places(paths, given)
    for path in paths:
        write_file(path, parts[path.name], overwrite=output.overwrite)
    return Answer("\n".join(map(str, paths)), 0, complaints(contents))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotWritableError(f"{path} cannot be made a folder: {error.strerror}.", hint="Choose another name.") from error


def _pems(certs: tuple[Cert, ...]) -> bytes:
    return b"".join(pem("CERTIFICATE", cert.der) for cert in certs)


def run_request(given: Given, output: Output, key_out: Path | None) -> Answer:
    """A signing request that repeats a certificate."""
    output.verify_places([output.path, key_out], given)
    contents = load_contents(given.files, given.passphrases, given.max_rounds)
    bundle = assemble(contents, choose=given.choose)
    said = complaints(contents)
    if bundle.key is None and key_out is None:
        hint = "Say --key-out FILE, or give the key with --key."
        raise UsageError("A new key is made for the request, and nothing says where it goes.", hint=hint)
    if bundle.key is not None and key_out is not None:
        said += (f"Note: the request is for the key that was given; {key_out} is not written.",)
    asked = make_request(bundle.leaf, bundle.key)
    told = f"Request for {bundle.leaf.names} with a {'given' if bundle.key else 'new'} {asked.key.kind} key: {output.path}"
    if output.dry_run:
        return Answer(told, 0, said + asked.left_out)
    if bundle.key is None and key_out is not None:
        write_file(key_out, write_key(asked.key, _one_phrase(output.passphrase)), overwrite=output.overwrite)
    write_file(output.path, asked.pem, overwrite=output.overwrite)
    return Answer(f"{told}\n{_next_steps(bundle, output.path, key_out)}", 0, said + asked.left_out)


def _next_steps(bundle: Bundle, request: Path, key: Path | None) -> str:
    """What is left to do, in order, with the names that are known."""
    ends = f" and ends on {bundle.not_after:%Y-%m-%d}" if bundle.not_after else ""
    host = next(iter(bundle.names.dns or bundle.names.addresses), "HOST")
    return "\n".join(
        [
            "What is left to do:",
            f"  1. Send {request} to the authority. The present certificate is from {bundle.leaf.issuer}{ends}.",
            f"  2. Keep {key or 'the key'}: nobody else needs it, and without it the new certificate is worth nothing.",
            f"  3. When the certificate comes: boxshift certs bundle NEW.crt {key or 'KEY'} -o NEW.p12 --for TARGET",
            f"  4. After its import: boxshift certs served {host} --expect NEW.p12 --passphrase prompt",
        ]
    )
