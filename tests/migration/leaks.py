"""Looks for secrets where none may be, in every form in which programs write a text down."""

from __future__ import annotations

import base64
import html
import json
import os
import shlex
import threading
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

SHORTEST = 8  # bytes; what is shorter may stand anywhere by chance


def forms_of(text: str) -> set[bytes]:
    """A secret text raw, quoted for URLs and shells, escaped for JSON, HTML, YAML and Python, and in base64 and hexadecimal."""
    raw = text.encode()
    found = {
        text,
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        html.escape(text),
        html.escape(text, quote=False),
        text.replace("'", "''"),  # YAML in single quotes
        json.dumps(text)[1:-1].replace("\\u00", "\\x"),  # YAML in double quotes
        repr(text)[1:-1],
        shlex.quote(text),
        urllib.parse.quote(text, safe=""),
        urllib.parse.quote(text),
        urllib.parse.quote_plus(text),
        raw.hex(),
        *(text.splitlines() if "\n" in text else ()),
    }
    answer = {form.encode() for form in found} | {text.encode("latin-1", errors="ignore"), text.encode("utf-16-le")} | in_base64(raw)
    return {form for form in answer if len(form) >= SHORTEST}


def in_base64(raw: bytes) -> set[bytes]:
    """As it appears inside longer base64 text, wherever it begins: the ends that depend on neighbours are left out."""
    found = set()
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * shift + raw)
            found.add(text[(0, 2, 3)[shift] : len(text) // 4 * 4 - 4])
    return found


def forms_of_key(pem: bytes) -> set[bytes]:
    """An unencrypted private key: as DER, as the lines of its PEM text, and by its secret numbers."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, RSAPrivateKey)
    found: set[bytes] = set()
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        found.add(key.private_bytes(Encoding.DER, form, NoEncryption()))
        found |= set(key.private_bytes(Encoding.PEM, form, NoEncryption()).splitlines()[2:-2])
    numbers = key.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        found |= {raw, raw.hex().encode(), str(number).encode()} | in_base64(raw)
    return found


@dataclass
class Needles:
    """What is looked for: each form with the name of its secret."""

    forms: dict[bytes, str] = field(default_factory=dict)

    def add(self, name: str, forms: Iterable[bytes]) -> None:
        self.forms |= dict.fromkeys(forms, name)

    def add_text(self, name: str, text: str) -> None:
        self.add(name, forms_of(text))

    def find(self, content: bytes, where: str) -> list[str]:
        """A line for every secret that is in there; never the secret itself."""
        return sorted({f"{name} in {where}" for form, name in self.forms.items() if form in content})

    def search(self, folder: Path, exempt: Iterable[Path]) -> list[str]:
        """Every file below ``folder``, names included, the exempt ones and what is below them left out."""
        left_out = tuple(exempt)
        found = []
        for path in sorted(folder.rglob("*")):
            if any(path == one or one in path.parents for one in left_out):
                continue
            found += self.find(os.fsencode(path.name), f"the name of {path.parent}")
            if path.is_file():
                found += self.find(path.read_bytes(), str(path))
        return found


class ProcessWatch:
    """What every process of this machine shows of itself during the watch: its arguments, and its environment where we may see it."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.names: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._over.wait(0.05):
            for folder in Path("/proc").iterdir():
                if folder.name.isdigit():
                    self._read(folder)

    def _read(self, folder: Path) -> None:
        for name in ("cmdline", "environ"):
            try:
                content = (folder / name).read_bytes()
            except OSError:
                continue
            self.seen.add(content)
            if name == "cmdline":
                self.names.add(content)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def watching_processes() -> Iterator[ProcessWatch]:
    watch = ProcessWatch()
    watch._thread.start()
    try:
        yield watch
    finally:
        watch.stop()


SPY = '''
"""Writes down every passphrase that is made in flight, where the test can read it and nobody searches."""
import os
import certs.write as _write

_plain = _write.generate_passphrase

def _told(*args, **kwargs):
    made = _plain(*args, **kwargs)
    with open(os.environ["SPY_FILE"], "a") as sink:
        sink.write(made.reveal() + "\\n")
    return made

_write.generate_passphrase = _told
'''


def lay_spy(folder: Path) -> dict[str, str]:
    """The environment in which a `boxshift` tells the passphrases it makes; they are in ``folder / "made"`` afterwards."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPY)
    return {"PYTHONPATH": str(folder), "SPY_FILE": str(folder / "made")}
