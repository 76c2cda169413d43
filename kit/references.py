"""References to secrets: what stands in a plan or on the command line instead of a secret, resolved at the last moment."""

from __future__ import annotations

import getpass
import os
import re
import stat
import sys
from pathlib import Path

from kit.errors import UsageError
from kit.secret import Secret

FORMS = "env:NAME, file:PATH, file:PATH#KEY, keyring:SERVICE/USER or prompt"
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
MOST_BYTES = 1024 * 1024  # of a secrets file


def resolve_secret(reference: str, *, base: Path, what: str, may_be_empty: bool = False) -> Secret:
    """The secret that ``reference`` names. Paths are relative to ``base``; ``what`` names it at a prompt ("the backup password").

    ``file:PATH#KEY`` is the text under KEY in a YAML file, ``file:PATH`` the first line of any other. ``may_be_empty``: an empty text
    is one that somebody chose, and not one that is missing; so it is with passphrases of files.

    Raises:
        UsageError: it is not there, or the file can be read by others.

    """
    kind, _, rest = reference.partition(":")
    if kind == "env" and rest:
        found = _from_environment(rest)
    elif kind == "file" and rest:
        found = _from_file(rest, base)
    elif kind == "keyring" and "/" in rest:
        found = _from_keyring(rest)
    elif reference == "prompt":
        found = _from_prompt(what)
    else:
        raise UsageError("A secret is not named in a form that is known.", hint=f"Use {FORMS}; never the secret itself.")
    if not found and not may_be_empty:
        raise _empty(kind, rest, what)
    return found


def _empty(kind: str, rest: str, what: str) -> UsageError:
    if kind == "env":
        return _unset(rest)
    if kind == "keyring":
        return _unknown(rest)
    return UsageError(f"No secret was given for {what}.") if kind == "prompt" else UsageError(f"The secret in {rest} is empty.")


def _from_environment(name: str) -> Secret:
    value = os.environ.get(name)
    if value is None:
        raise _unset(name)
    return Secret(value)


def _unset(name: str) -> UsageError:
    return UsageError(f"The environment variable {name}, which should hold a secret, is not set.", hint=f"export {name}=…")


def _from_file(rest: str, base: Path) -> Secret:
    name, mark, key = rest.rpartition("#")
    if mark and name and _KEY.fullmatch(key):
        path = base / name
        return _pick(path, key, _read_private(path))
    path = base / rest
    return Secret(_read_private(path).split("\n")[0].rstrip("\r"))


def _read_private(path: Path) -> str:
    """The file's text, where nobody else can read it."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsageError(f"The secrets file {path} can be read by others.", hint=f"chmod 600 {path}")
            return file.read(MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            # its text quotes the file, which holds secrets: from None
            raise UsageError(f"The secrets file {path} is not UTF-8 text.", hint="Save it as UTF-8.") from None
        raise UsageError(f"The secrets file {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _pick(path: Path, key: str, text: str) -> Secret:
    from kit.yaml_lines import Document, FaultyYaml, parse_yaml

    try:
        document = parse_yaml(text)
    except FaultyYaml as faulty:
        document = Document(faults=faulty.faults)
    for fault in document.faults:
        raise UsageError(
            f"The secrets file {path} is not valid YAML: line {fault.line}: {fault.text}.", hint="One line for each secret: name: 'value'"
        )
    value = document.tree.get(key) if isinstance(document.tree, dict) else None
    if not isinstance(value, str) or not value:
        raise UsageError(f"The secrets file {path} has no text under {key}.", hint=f"Add a line {key}: 'the secret' (quoted).")
    return Secret(value)


def _from_keyring(rest: str) -> Secret:
    import keyring
    from keyring.errors import KeyringError

    service, _, user = rest.partition("/")
    try:
        value = keyring.get_password(service, user)
    except KeyringError as error:
        raise UsageError(f"The keyring could not be asked for {service}/{user}: {type(error).__name__}.") from None
    if value is None:
        raise _unknown(rest)
    return Secret(value)


def _unknown(rest: str) -> UsageError:
    service, _, user = rest.partition("/")
    return UsageError(f"The keyring holds nothing for {service}/{user}.", hint=f"keyring set {service} {user}")


def _from_prompt(what: str) -> Secret:
    if not sys.stdin.isatty():
        raise UsageError(f"The secret for {what} should be asked for, but nobody is at the terminal.", hint=f"Use {FORMS}.")
    return Secret(getpass.getpass(f"{what}: "))
