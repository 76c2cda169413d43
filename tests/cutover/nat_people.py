"""Programs around the gateway, for its tests: a box that says its name, and a visitor who asks for it 20 times a second."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path

EVERY, PATIENCE = 0.05, 15.0  # seconds


async def serve(name: str, addresses: list[str], port: int) -> None:
    """Answers every line with its name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readline():
                writer.write(f"{name}\n".encode())
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for address in addresses:
            server = await asyncio.start_server(answer, address, port)
            group.create_task(server.serve_forever())


def ask(address: str, port: int) -> str:
    with socket.create_connection((address, port), 5) as wire:
        wire.sendall(b"who\n")
        return wire.makefile().readline().strip()


class Log:
    """One JSON line for each request, written when it is over."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def write(self, kind: str, at: float, who: str) -> None:
        self._file.write(json.dumps({"kind": kind, "at": at, "until": time.time(), "who": who}) + "\n")


async def visit(address: str, port: int, log: Log) -> None:
    """A new connection for each request, whether the ones before have been answered or not."""

    async def once() -> None:
        at, who = time.time(), ""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(address, port)
                writer.write(b"who\n")
                who = (await reader.readline()).decode().strip()
                writer.close()
        except (OSError, TimeoutError):
            pass
        log.write("new", at, who)

    tasks: set[asyncio.Task[None]] = set()
    while True:
        task = asyncio.create_task(once())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(EVERY)


async def stay(address: str, port: int, log: Log) -> None:
    """One connection for as long as it holds, then another."""
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            await asyncio.sleep(EVERY)
            continue
        who = "?"
        while who:
            at = time.time()
            try:
                async with asyncio.timeout(PATIENCE):
                    writer.write(b"who\n")
                    who = (await reader.readline()).decode().strip()
            except (OSError, TimeoutError):
                who = ""
            log.write("kept", at, who)
            await asyncio.sleep(EVERY)
        writer.close()


async def be_visitors(address: str, port: int, path: Path) -> None:
    log = Log(path)
    await asyncio.gather(visit(address, port, log), stay(address, port, log))


def main() -> None:
    match sys.argv[1:]:
        case ["serve", name, *addresses, port]:
            asyncio.run(serve(name, addresses, int(port)))
        case ["ask", address, port]:
            sys.stdout.write(ask(address, int(port)) + "\n")
        case ["visit", address, port, path]:
            asyncio.run(be_visitors(address, int(port), Path(path)))


if __name__ == "__main__":
    main()
