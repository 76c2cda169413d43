"""Backups of the site, and of the Vault's key.

A backup (``.nsb``) is a ZIP archive: ``manifest.json`` and ``payload``, which is compressed JSON of the tables below, sealed with
AES-GCM under a scrypt key where a password was given. It holds all settings and, where asked, the logged history; never recordings,
and of the file store only the first :data:`MOST_ITEMS` items that are smaller than :data:`LARGEST_ITEM` bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sqlite3
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import Refused
from .faults import Faults
from .release import Release
from .store import Store

LARGEST_ITEM = 200 * 1024
MOST_ITEMS = 50
CONFIGURATION = ("account", "setting", "api_account", "jump_client", "vault_account")
HISTORY = ("session",)
STAYS = ("vault_key",)  # settings that no backup holds and no restore touches
_KDF = {"n": 2**14, "r": 8, "p": 1}
_NOT_A_BACKUP = "The file is not a configuration backup, or it is not complete."
_WRONG_PASSWORD = "The backup could not be opened: the password is wrong."  # noqa: S105 - a sentence


@dataclass(frozen=True)
class Parts:
    """What goes into a backup."""

    history: bool
    password: str


def make_backup(store: Store, base: Release, site: Release, parts: Parts) -> bytes:
    """The backup as bytes of a ``.nsb`` file."""
    payload = zlib.compress(json.dumps(_dump(store, parts)).encode(), 6)
    manifest: dict[str, Any] = {
        "format": 1,
        "product": site.product,
        "site_version": site.version,
        "site_build": site.build,
        "base_version": base.version,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(Faults(store.box).now())),
        "guid": store.box.setting("guid"),
        "logged_history": parts.history,
        "kdf": None,
    }
    if parts.password:
        payload, manifest["kdf"] = _seal(payload, parts.password, _bound(manifest))
    manifest["payload_sha256"] = hashlib.sha256(payload).hexdigest()
    return _zip({"manifest.json": json.dumps(manifest, indent=1).encode(), "payload": payload})


def _bound(manifest: dict[str, Any]) -> bytes:
    """The facts that a sealed backup cannot be given anew."""
    return "\n".join(str(manifest[key]) for key in ("product", "site_version", "site_build", "guid", "created")).encode()


def _dump(store: Store, parts: Parts) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    connection = store.site.connection
    connection.execute("begin")  # one snapshot for all tables
    try:
        for table in (*CONFIGURATION, *(HISTORY if parts.history else ())):
            tables[table] = _rows(connection, f"select * from {table}")  # noqa: S608 - our own names
        tables["setting"] = [row for row in tables["setting"] if row["name"] not in STAYS]
        tables["file_item"] = _rows(
            connection,
            f"select name, content from file_item where length(content) < {LARGEST_ITEM} order by name limit {MOST_ITEMS}",  # noqa: S608 - numbers
        )
    finally:
        connection.execute("rollback")
    return tables


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    return [{key: _pack(row[key]) for key in row.keys()} for row in connection.execute(sql)]  # noqa: SIM118 - a sqlite row


def _pack(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _unpack(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _seal(plain: bytes, password: str, bound: bytes) -> tuple[bytes, dict[str, Any]]:
    salt, nonce = os.urandom(16), os.urandom(12)
    key = hashlib.scrypt(password.encode(), salt=salt, dklen=32, maxmem=2**26, **_KDF)
    return AESGCM(key).encrypt(nonce, plain, bound), {"name": "scrypt", **_KDF, "salt": salt.hex(), "nonce": nonce.hex()}


def _open(sealed: bytes, kdf: dict[str, Any], password: str, bound: bytes) -> bytes:
    if not password:
        raise Refused("The backup is protected: its password is needed.")
    if (kdf["n"], kdf["r"], kdf["p"]) != (_KDF["n"], _KDF["r"], _KDF["p"]):
        raise Refused(_NOT_A_BACKUP)
    key = hashlib.scrypt(password.encode(), salt=bytes.fromhex(kdf["salt"]), dklen=32, maxmem=2**26, **_KDF)
    try:
        return AESGCM(key).decrypt(bytes.fromhex(kdf["nonce"]), sealed, bound)
    except InvalidTag as error:
        raise Refused(_WRONG_PASSWORD) from error


def _zip(parts: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return sink.getvalue()


def _unzip(content: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest, payload = json.loads(archive.read("manifest.json")), archive.read("payload")
        if hashlib.sha256(payload).hexdigest() != manifest["payload_sha256"]:
            raise Refused("The backup is damaged: its content is not what it was when it was made.")
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, zlib.error, TypeError, NotImplementedError) as error:
        raise Refused(_NOT_A_BACKUP) from error
    return manifest, payload


def read_backup(content: bytes, password: str, site: Release) -> dict[str, Any]:
    """The tables of a backup.

    Raises:
        Refused: it is no backup, damaged, protected by another password, or made by another version.

    """
    manifest, payload = _unzip(content)
    try:
        made_by = (manifest["product"], manifest["site_version"], manifest["site_build"])
        if made_by != (site.product, site.version, site.build):
            raise Refused(
                "The backup was made by version {theirs} (build {their_build}); this site runs version {ours} (build {our_build}).",
                theirs=made_by[1],
                their_build=made_by[2],
                ours=site.version,
                our_build=site.build,
            )
        if manifest["kdf"] is not None:
            payload = _open(payload, manifest["kdf"], password, _bound(manifest))
        tables: dict[str, Any] = json.loads(zlib.decompress(payload))
    except (KeyError, ValueError, TypeError, zlib.error) as error:
        raise Refused(_NOT_A_BACKUP) from error
    return tables


def restore(store: Store, tables: dict[str, Any], tell: Callable[..., None]) -> None:
    """Put a backup in place of what the site has, in one transaction. File-store items that the backup does not hold stay."""
    faults = Faults(store.box)
    with store.site.transaction() as connection:
        for table in (*CONFIGURATION, *HISTORY):
            if table in tables:
                tell("Restoring {table}", table=table)
                _replace(connection, table, tables[table])
        for item in tables["file_item"]:
            connection.execute(
                "insert into file_item (name, content) values (?, ?) on conflict (name) do update set content = excluded.content",
                (item["name"], _unpack(item["content"])),
            )
        connection.execute("delete from recording where lsid not in (select lsid from session)")
        time.sleep(faults.seconds("restore-seconds"))
        if faults.is_on("restore-fails"):
            raise Refused("The restore failed; the site is as it was before.")
    with store.box.transaction() as connection:  # who is logged in may not exist any more
        connection.execute("delete from visit where console = 'login'")
        connection.execute("delete from api_token")
        connection.execute("delete from presence")
        connection.execute("delete from client_upgrade")


def _replace(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    columns = [row["name"] for row in connection.execute(f"pragma table_info({table})")]
    keep = f" where name not in ({', '.join('?' * len(STAYS))})" if table == "setting" else ""
    connection.execute(f"delete from {table}{keep}", STAYS if keep else ())  # noqa: S608 - our own names
    sql = f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"  # noqa: S608 - our own names
    connection.executemany(sql, [[_unpack(row[column]) for column in columns] for row in rows])


# The Vault: accounts are sealed under a key that has a backup of its own.


def make_vault_key(store: Store) -> None:
    """Give the site a new Vault key."""
    store.site.set(vault_key=os.urandom(32).hex())


def vault_fingerprint(store: Store) -> str:
    """What tells two Vault keys apart; empty where there is none."""
    key = store.site.setting("vault_key")
    return hashlib.sha256(bytes.fromhex(key)).hexdigest()[:16] if key else ""


def seal_for_vault(store: Store, secret: bytes) -> bytes:
    """Seal a credential under the Vault key."""
    nonce = os.urandom(12)
    return nonce + AESGCM(bytes.fromhex(store.site.setting("vault_key"))).encrypt(nonce, secret, None)


def is_vault_readable(store: Store, sealed: bytes) -> bool:
    """Whether the key that is here opens this account."""
    key = store.site.setting("vault_key")
    if not key:
        return False
    try:
        AESGCM(bytes.fromhex(key)).decrypt(sealed[:12], sealed[12:], None)
    except InvalidTag:
        return False
    return True


def make_key_backup(store: Store, password: str) -> bytes:
    """The Vault key, sealed under a password."""
    key = store.site.setting("vault_key")
    if not key:
        raise Refused("There is no Vault encryption key on this site.")
    if not password:
        raise Refused("A password is needed.")
    manifest: dict[str, Any] = {"format": 1, "content": "vault-key"}
    payload, manifest["kdf"] = _seal(bytes.fromhex(key), password, b"vault-key")
    manifest["payload_sha256"] = hashlib.sha256(payload).hexdigest()
    return _zip({"manifest.json": json.dumps(manifest).encode(), "payload": payload})


def restore_key(store: Store, content: bytes, password: str) -> None:
    """Put a Vault key in place.

    Raises:
        Refused: it is no key backup, or the password is wrong.

    """
    manifest, payload = _unzip(content)
    if manifest.get("content") != "vault-key":
        raise Refused("The file is not a backup of a Vault encryption key.")
    store.site.set(vault_key=_open(payload, manifest["kdf"], password, b"vault-key").hex())
