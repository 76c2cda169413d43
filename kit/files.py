"""Writing files that must be whole and private."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from kit.errors import FailedError


class ThisMachineError(FailedError):
    """A file of the control machine cannot be written or read: a full disk, most often."""

    code = "this-machine"


def explain_refusal(error: OSError) -> ThisMachineError:
    """The operating system's refusal as an operator can act on it."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    hint = "Free space on this machine, then go on." if full else "Look at the disk, and at who may write there; then go on."
    where = f" ({error.filename})" if error.filename else ""
    return ThisMachineError(f"This machine refuses a file operation: {error.strerror or type(error).__name__}{where}.", hint=hint)


def write_private(path: Path, content: bytes) -> None:
    """Write ``content`` so that the file is whole or not there at all, and mode 0600 from its first byte on.

    A temporary file in the same folder, synced, then renamed over ``path``; the folder is synced too. A file that was there stays
    as it was when this fails.

    Raises:
        FailedError: the disk is full, or the folder cannot be written.

    """
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(6)}")
    try:
        _write_synced(temporary, content)
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise FailedError(
            f"{path} could not be written: {error.strerror}.", hint="Free space on this machine, or choose another folder."
        ) from error


def _write_synced(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
