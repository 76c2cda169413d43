"""Hostile bytes for every reader: seeds, mutations, and what may come out (a result or a CertsError, in time, within memory).

``scripts/fuzz`` runs this for as long as it is told; ``test_certs_fuzz.py`` runs a little of it in every test run.
"""

from __future__ import annotations

import random
import resource
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from certs.bundle import Contents
from certs.cert import Cert
from certs.chain import assemble
from certs.diagnose import judge_paths
from certs.errors import CertsError
from certs.findings import Case, Measure
from certs.key import read_encrypted_key, read_plain_key
from certs.pbe import Effort
from certs.pem import find_blocks, repair
from certs.pkcs12 import read_pkcs12
from certs.protocols import Protocol
from certs.raw import Node, cut, walk
from certs.read import read_contents, spell
from certs.reports import bundle_value, cert_value, render_findings, render_heap, render_tree
from certs.roots import NO_ROOTS
from certs.starttls import ask_for_tls
from certs.write import pem
from kit.secret import Secret

CORPUS = Path(__file__).parent.parent / "data" / "fuzz"
WORD = Secret("fuzz")
# Seeds have few rounds; a mutated count above this is refused, as it would be at 5,000,000 outside.
ROUNDS = 3000
# For one input, then it counts as a hang: of processor time; and by the clock, for one that waits. A run may have the lowest priority.
SECONDS = 20
WAITS = 600
NOW = datetime(2026, 11, 22, tzinfo=UTC)


class UnforeseenError(Exception):
    """The last net caught something: users get an answer, and we want to know."""


def fuzz_any(data: bytes) -> None:
    """Whatever a person names on the command line, and everything that is printed about it."""
    contents = read_contents(data, WORD, max_rounds=ROUNDS)
    _ = (render_heap(contents), [error.to_record() for error in contents.failures], contents.notes)
    unforeseen = [error.sentence for error in contents.failures if error.facts.get("unforeseen")]
    if unforeseen:
        raise UnforeseenError(unforeseen[0])
    if contents.certs:
        judge(contents)


def fuzz_certificate(data: bytes) -> None:
    """One certificate: every property, every rule in every measure."""
    cert = Cert(data)
    _ = (cert_value(cert), cert.faults, cert.check_signed_by(cert), cert.is_self_signed)
    judge(Contents(certs=(cert,)))


def judge(contents: Contents) -> None:
    """Every rule on everything."""
    bundle = assemble(contents, roots=NO_ROOTS, at=NOW)
    for measure in Measure:
        case = Case(bundle, ("box.example.com", "192.0.2.1"), NOW, measure=measure, crls=bundle.crls)
        best, findings = judge_paths(case)
        unforeseen = [finding.sentence for finding in findings if finding.code == "not_judged"]
        if unforeseen:
            raise UnforeseenError(unforeseen[0])
        _ = (render_tree(best.bundle, NOW), render_findings(findings), bundle_value(best.bundle))


def fuzz_chain(data: bytes) -> None:
    """A heap of certificates and revocation lists as PEM: order, paths, constraints, revocation."""
    contents = Contents()
    for block in find_blocks(data):
        if block.label == "X509 CRL":
            contents += Contents(crls=(block.der,))
        else:
            contents += Contents(certs=(Cert(block.der),))
    judge(contents)


def fuzz_pem(data: bytes) -> None:
    """Text: blocks and repair."""
    text, _ = repair(data)
    for block in [*find_blocks(data), *find_blocks(text)]:
        _ = (block.where, block.render(), block.is_encrypted, block.cipher)


def fuzz_pkcs12(data: bytes) -> None:
    read_pkcs12(data, spell(WORD), Effort(most=ROUNDS, left=4 * ROUNDS))


def fuzz_key(data: bytes) -> None:
    """A private key, encrypted or not."""
    try:
        read_encrypted_key(data, spell(WORD), Effort(most=ROUNDS, left=4 * ROUNDS))
    except CertsError:
        read_plain_key(data)


def fuzz_pkcs7(data: bytes) -> None:
    contents = read_contents(data)
    _ = [cert_value(cert) for cert in contents.certs]


def fuzz_starttls(data: bytes) -> None:
    """What a service says before TLS."""
    for protocol in Protocol:
        here, there = socket.socketpair()
        with here, there:
            there.sendall(data[:60000])
            there.shutdown(socket.SHUT_WR)
            try:
                ask_for_tls(here, protocol, "box.example.com", 5.0)
            except CertsError:
                continue


READERS: dict[str, Callable[[bytes], None]] = {
    "any": fuzz_any,
    "certificate": fuzz_certificate,
    "chain": fuzz_chain,
    "pem": fuzz_pem,
    "pkcs12": fuzz_pkcs12,
    "key": fuzz_key,
    "pkcs7": fuzz_pkcs7,
    "starttls": fuzz_starttls,
}


def seeds(reader: str) -> list[bytes]:
    """The corpus of one reader; ``any`` has all of them."""
    folders = [path for path in sorted(CORPUS.iterdir()) if path.name in READERS] if reader == "any" else [CORPUS / reader]
    return [path.read_bytes() for folder in folders for path in sorted(folder.iterdir())]


# Mutations


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def overwrite(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at] = dice.choice((0, 1, 2, 3, 4, 5, 6, 0x30, 0x31, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xA0, 0xA3, 0xFF, dice.randrange(256)))


def cut_out(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    del data[at : at + dice.choice((1, 1, 2, 4, 16, 64, 10000))]


def repeat(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at:at] = data[at : at + dice.choice((1, 2, 8, 64, 512))] * dice.choice((1, 1, 2, 16))


def insert(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.choice(
        (
            b"\0",
            b"\x30\x80",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x05\0",
            b"\x02\x01\x00",
            b"-----BEGIN ",
            b"-----",
            b"\\n",
            b"=" * 5,
            dice.randbytes(8),
        )
    )


def splice(data: bytearray, dice: random.Random, others: list[bytes]) -> None:
    other = dice.choice(others)
    start, at = dice.randrange(len(other) + 1), dice.randrange(len(data) + 1)
    data[at:] = other[start:]


def stretch_integer(data: bytearray, dice: random.Random) -> None:
    """Make some DER integer large: counts, versions, lengths."""
    places = [at for at in range(len(data) - 2) if data[at] == 2 and 0 < data[at + 1] < 9]
    if places:
        at = dice.choice(places)
        data[at + 2 : at + 2 + data[at + 1]] = dice.choice((b"\x7f", b"\0", b"\xff")) + dice.randbytes(data[at + 1] - 1)


def reshape(data: bytearray, dice: random.Random) -> None:
    """Change one element of a DER structure and keep every length around it right, so that the change is reached."""
    try:
        tree = [to_tree(node) for node in walk(bytes(data))]
    except CertsError:
        return
    places = list(branches(tree))
    where = dice.choice(places) if places else tree
    if not where:
        return
    at = dice.randrange(len(where))
    move = dice.randrange(5)
    if move == 0:
        del where[at]
    elif move == 1:
        where.insert(at, dice.choice(where))
    elif move == 2:
        where[at] = to_tree(cut(from_tree(dice.choice(dice.choice(places) or where))))  # a copy: an element may hold this place
    elif move == 3:
        where[at] = (bytes([dice.choice((2, 3, 4, 5, 6, 12, 0x30, 0x31, 0xA0, 0x80))]), where[at][1])
    elif isinstance(where[at][1], bytes):
        inside = bytearray(where[at][1])
        if inside:
            dice.choice((flip, overwrite, cut_out, repeat, insert))(inside, dice)
        where[at] = (where[at][0], bytes(inside))
    data[:] = b"".join(from_tree(each) for each in tree)


def to_tree(node: Node, depth: int = 30) -> tuple[bytes, object]:
    """Tag and either a list of elements or bytes."""
    tag = node.whole[:1]
    if node.built and depth:
        try:
            return tag, [to_tree(child, depth - 1) for child in node.children()]
        except CertsError:
            return tag, node.content
    return tag, node.content


def branches(tree: list) -> Iterator[list]:
    """Every list of elements in a tree."""
    yield tree
    for _, content in tree:
        if isinstance(content, list):
            yield from branches(content)


def from_tree(element: tuple[bytes, object]) -> bytes:
    tag, content = element
    body = b"".join(from_tree(each) for each in content) if isinstance(content, list) else bytes(content)
    if len(body) < 0x80:
        return tag + bytes([len(body)]) + body
    size = (len(body).bit_length() + 7) // 8
    return tag + bytes([0x80 | size]) + len(body).to_bytes(size, "big") + body


def reshape_pem(data: bytearray, dice: random.Random) -> None:
    """The same inside one PEM block."""
    blocks = [block for block in find_blocks(bytes(data)) if block.der]
    if blocks:
        chosen = dice.choice(blocks)
        inside = bytearray(chosen.der)
        reshape(inside, dice)
        data[:] = b"".join(pem(block.label, bytes(inside) if block is chosen else block.der) for block in blocks)


PLAIN = (flip, overwrite, cut_out, repeat, insert, stretch_integer)


def reshape_any(data: bytearray, dice: random.Random) -> None:
    """Reshape DER, or DER within PEM; what is neither any more stays as it is."""
    try:
        (reshape_pem if b"-----BEGIN" in data else reshape)(data, dice)
    except CertsError:
        return


def mutate(seed: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """One to six changes."""
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        if not data:
            break
        if dice.random() < 0.5:
            reshape_any(data, dice)
            continue
        change = dice.choice((*PLAIN, splice))
        if change is splice:
            splice(data, dice, others)
        else:
            change(data, dice)
    return bytes(data[:200_000])


# Running


class HangError(Exception):
    """An input took too long."""


@dataclass
class Figures:
    """What came out of one reader: how often it was run, the outcomes, the slowest input in seconds, and what must not be."""

    reader: str
    runs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[bytes, str]] = field(default_factory=list)
    peak: int = 0  # MiB that the process had at most

    def render(self) -> str:
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common())
        return (
            f"{self.reader}: {self.runs:,} inputs in {self.seconds / 60:.1f} min, slowest {self.slowest:.2f} s, "
            f"peak memory {self.peak} MiB, bad {len(self.bad)}; {outcomes}"
        )


def run_one(reader: str, data: bytes, figures: Figures) -> None:
    """One input; anything but a result or a CertsError is bad."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITS)
    try:
        READERS[reader](data)
        outcome = "read"
    except CertsError as error:
        outcome = error.code
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = f"BAD {type(error).__name__}"
        figures.bad.append((data, f"{type(error).__name__}: {error}"))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    figures.runs += 1
    figures.outcomes[outcome] += 1
    figures.slowest = max(figures.slowest, time.process_time() - began)


def run_reader(reader: str, seconds: float, *, seed: int = 0, limit: int = 10**12) -> Figures:
    """Mutated seeds for ``seconds`` of this process's own time, at most ``limit`` inputs."""

    def late(which: int, _: object) -> None:
        raise HangError(f"more than {SECONDS} s" if which == signal.SIGPROF else f"waits for more than {WAITS} s")

    before = {which: signal.signal(which, late) for which in (signal.SIGALRM, signal.SIGPROF)}
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)  # a test runner may have an alarm of its own
    dice, corpus = random.Random(seed), seeds(reader)
    figures, began = Figures(reader), time.process_time()
    try:
        while figures.seconds < seconds and figures.runs < limit and len(figures.bad) < 200:
            run_one(reader, mutate(dice.choice(corpus), corpus, dice), figures)
            figures.seconds = time.process_time() - began
    finally:
        for which, earlier in before.items():
            signal.signal(which, earlier)
        signal.setitimer(signal.ITIMER_REAL, left)
    figures.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return figures
