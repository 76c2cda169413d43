"""Unpack gz, xz and zst into a sparse file, no further than allowed."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from images.formats import Compression
from images.import_errors import DamagedSourceError, HostileSourceError
from images.span import CHUNK, Span
from images.store import no_space
from kit.progress import Progress, Silent

HOLE = 64 * 1024
XZ_MEMORY = 1 << 30  # bytes; xz -9 needs 65 MiB
ZSTD_WINDOW = 1 << 31
ZSTD_BITE = 1024  # what a bite unpacks to is held in memory: 128 KiB for every 4 bytes at worst
_ZEROS = bytes(HOLE)


def unpack(span: Span, compression: Compression, target: Path, *, most: int, progress: Progress | None = None) -> Span:
    """What the span unpacks to, as a new file with holes where there is nothing. ``most``: bytes after which it is taken for a bomb.

    Raises:
        HostileSourceError: it unpacks to more.
        DamagedSourceError: it is damaged or ends too early.
        SpaceError: no room left.

    """
    shown, done, read = progress or Silent(), 0, 0

    def seen(count: int) -> None:
        nonlocal read
        read += count
        shown.update("unpacking", read, span.length)

    try:
        with target.open("xb", buffering=0) as sink:
            os.fchmod(sink.fileno(), 0o600)
            for piece in _pieces(span, compression, seen):
                done += len(piece)
                if done > most:
                    raise HostileSourceError(
                        f"The file unpacks to more than {most >> 20:,} MiB; it was not unpacked further.",
                        hint="If it is meant to be so large, allow more with --max-size.",
                    )
                _write_sparse(sink.fileno(), piece)
            sink.truncate(done)
    except OSError as error:
        raise no_space(target, error) from error
    return Span(target, 0, done)


def _pieces(span: Span, compression: Compression, seen: Callable[[int], None]) -> Iterator[bytes]:
    if compression is Compression.GZIP:
        return _gunzip(span, seen)
    return _unxz(span, seen) if compression is Compression.XZ else _unzstd(span, seen)


def _gunzip(span: Span, seen: Callable[[int], None]) -> Iterator[bytes]:
    unpacker, begun = zlib.decompressobj(31), False
    try:
        for piece in span.stream():
            seen(len(piece))
            data = piece
            while data:
                if unpacker.eof:
                    if not data.lstrip(b"\0"):  # padding behind the last part
                        break
                    unpacker = zlib.decompressobj(31)
                out = unpacker.decompress(data, CHUNK)
                begun = True
                yield out
                data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            while not unpacker.eof and (out := unpacker.decompress(b"", CHUNK)):
                yield out
    except zlib.error as error:
        raise _damaged() from error
    if not begun or not unpacker.eof:
        raise _damaged()


def _unxz(span: Span, seen: Callable[[int], None]) -> Iterator[bytes]:
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    try:
        for piece in span.stream():
            seen(len(piece))
            data = piece
            while data:
                if unpacker.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
                yield unpacker.decompress(data, CHUNK)
                while not unpacker.eof and not unpacker.needs_input:
                    yield unpacker.decompress(b"", CHUNK)
                data = unpacker.unused_data if unpacker.eof else b""
    except (lzma.LZMAError, MemoryError) as error:
        raise _damaged() from error
    if not unpacker.eof:
        raise _damaged()


def _unzstd(span: Span, seen: Callable[[int], None]) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    try:
        for piece in span.stream():
            seen(len(piece))
            at = 0
            while at < len(piece):
                if unpacker.eof:
                    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
                bite = piece[at : at + ZSTD_BITE]
                yield unpacker.decompress(bite)
                at += len(bite) - len(unpacker.unused_data)
    except zstandard.ZstdError as error:
        raise _damaged() from error
    if not unpacker.eof:
        raise _damaged()


def _damaged() -> DamagedSourceError:
    return DamagedSourceError("The compressed file is damaged or was cut off.", hint="Load it again; compare its size with the origin's.")


def _write_sparse(sink: int, piece: bytes) -> None:
    for start in range(0, len(piece), HOLE):
        part = memoryview(piece)[start : start + HOLE]
        if part == _ZEROS[: len(part)]:
            os.lseek(sink, len(part), os.SEEK_CUR)
            continue
        while part:
            part = part[os.write(sink, part) :]
