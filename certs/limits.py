"""How much a hostile file may cost. Honest files stay far below."""

from __future__ import annotations

MAX_BYTES = 16 * 1024 * 1024  # one file
MAX_BYTES_IN_ALL = 128 * 1024 * 1024  # all files of one command
MAX_FILES = 2000  # of a folder
MAX_CERTIFICATE = 1024 * 1024  # bytes; the largest that are made to hurt have 300,000
MAX_PIECES = 5000  # blocks, certificates in one file
MAX_BAGS = 2000  # in one PKCS#12 file
MAX_ROUNDS = 5_000_000  # of one key derivation: what Java accepts at most; honest files have 600,000 or fewer
MAX_ROUNDS_IN_ALL = 20_000_000  # of one reading
MAX_SCRYPT_BYTES = 128 * 1024 * 1024


def read_count(number: int) -> int:
    """A number out of a file. Beyond 64 bits it stands as 2**64: too much all the same, and Python can still write it down."""
    return max(-(2**64), min(number, 2**64))
