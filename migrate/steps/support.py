"""What support asks for when an update went wrong: one file with everything that is known, and no secret in it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pydantic import TypeAdapter

from kit.errors import BoxshiftError, FailedError
from kit.files import write_private
from migrate.appliances.contract import Appliance
from migrate.facts import ApplianceFacts
from migrate.steps.context import UpgradeContext

LOG_MOST = 4 * 2**20  # bytes of the log's end that are kept


def write_support_bundle(ctx: UpgradeContext, error: BoxshiftError) -> Path:
    """``support-bundle-NODE.zip`` in the run's folder: the box as it is now, as it was, what was done, and when.

    What cannot be read of the box any more is said in the file instead; nothing is pressed on it.
    """
    parts = {
        "error.json": _render({"node": ctx.node.name, "at": ctx.read_time(), **error.to_record()}),
        "status-now.json": _render(_read_now(ctx.open_box)),
        "status-before.json": _render(_dump(ctx.find_result(ctx.own("read-box"), ApplianceFacts))),
        "done.json": _render({name: _strip(value) for name, value in ctx.results.items()}),
        "run.log": _read_log(ctx.folder / "run.log"),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    target = ctx.folder / f"support-bundle-{ctx.node.name}.zip"
    write_private(target, packed.getvalue())
    return target


def _read_now(open_box: Callable[[], Appliance]) -> object:
    """One reading. Where the whole is too much, versions and health are tried alone; what could not be read is told in its place."""
    try:
        with closing(open_box()) as box:
            return _dump(box.read_facts())
    except FailedError as error:
        said: dict[str, object] = {"could_not_be_read": error.sentence}
    looks: dict[str, Callable[[Appliance], object]] = {"versions": lambda box: box.read_versions(), "health": lambda box: box.read_health()}
    for what, look in looks.items():
        try:
            with closing(open_box()) as box:
                said[what] = _dump(look(box))
        except FailedError as error:
            said[what] = f"could not be read: {error.sentence}"
    return said


def _dump(value: object) -> object:
    return TypeAdapter(type(value)).dump_python(value, mode="json") if value is not None else None


def _strip(value: object) -> object:
    """What a node left, its sentence and evidence; the timing of calls helps nobody there."""
    return {key: part for key, part in value.items() if key != "inside"} if isinstance(value, dict) else value


def _render(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str).encode() + b"\n"


def _read_log(path: Path) -> bytes:
    try:
        return path.read_bytes()[-LOG_MOST:]
    except OSError as error:
        return f"The log cannot be read: {error.strerror}.\n".encode()
