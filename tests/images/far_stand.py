"""What tests of another computer's hypervisor stand on: it, a home on this one, and images whose machines are up in a moment."""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from other_computer import OtherComputer, open_other_computer

from images.home import Home, ensure_home, find_home
from images.hypervisor_storage import VolumeFacts
from images.machine import Machines
from images.pool_place import PoolPlace
from images.reference_image import ensure_reference_image
from images.store import Image, Imported, Store
from kit.process import need_program, run

SAYS = b"the tiny machine speaks\r\n"


@dataclass(frozen=True)
class Far:
    """The other computer, and the home on this one."""

    other: OtherComputer
    home: Home


@contextmanager
def open_far() -> Iterator[Far]:
    """Both, with two images in the home: ``tiny`` says a line and halts, ``greeter`` takes an address and greets."""
    root = Path(tempfile.mkdtemp(prefix="bx-near-", dir="/var/tmp"))
    try:
        with open_other_computer() as other:
            home = ensure_home(Home(root / "home"))
            add_tiny(home)
            add_greeter(home, root)
            yield Far(other, home)
    finally:
        shutil.rmtree(root)


def place_of(machines: Machines) -> PoolPlace:
    assert isinstance(machines.place, PoolPlace)
    return machines.place


def volumes_of(machines: Machines) -> tuple[VolumeFacts, ...]:
    return place_of(machines).pool.list_volumes()


def names_of(machines: Machines, prefix: str) -> list[str]:
    return [one.name for one in volumes_of(machines) if one.name.startswith(prefix)]


def add_tiny(home: Home) -> Image:
    """An image whose guest says one line on its serial port and halts."""
    with Store(home).importing() as folder:
        run([need_program("qemu-img", package="qemu-utils"), "create", "-q", "-f", "qcow2", folder / "disk.qcow2", "16M"], timeout=60)
        (folder / "kernel").write_bytes(speaking_kernel())
        (folder / "initrd").write_bytes(b"initrd")
        return Store(home).add(folder, Imported("tiny", "the test", ("quiet",), 32, 1))


def speaking_kernel() -> bytes:
    """A multiboot image: ``mov edx,0x3f8; mov esi,text; lodsb; test al,al; jz end; out dx,al; jmp; end: hlt; jmp end``."""
    load, flags, magic = 0x100000, 0x10000, 0x1BADB002
    head = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, load, load, load + 4096, load + 4096, load + 32)
    code = bytes.fromhex("baf8030000 be") + struct.pack("<I", load + 32 + 21) + bytes.fromhex("ac 84c0 7403 ee ebf8 f4 ebfd")
    return (head + code + SAYS + b"\0").ljust(4096, b"\0")


def add_greeter(home: Home, work: Path) -> Image:
    """The kernel of the reference appliance, a program of some hundred lines that is the whole system (greeter.c), and OpenSSL."""
    reference = ensure_reference_image(find_home())
    tree = work / "tree"
    for name in ("sbin", "bin", "etc", "tmp", "dev", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    source = Path(__file__).with_name("greeter.c")
    run([need_program("gcc", package="gcc"), "-static", "-O1", "-o", tree / "sbin" / "init", source], timeout=120)
    add_openssl(tree)
    disk = work / "greeter.img"
    run([need_program("mke2fs", package="e2fsprogs"), "-q", "-t", "ext4", "-d", tree, disk, "32M"], timeout=60)
    with Store(home).importing() as folder:
        convert = [need_program("qemu-img", package="qemu-utils"), "convert", "-f", "raw", "-O", "qcow2"]
        run([*convert, disk, folder / "disk.qcow2"], timeout=60)
        shutil.copy(reference.kernel, folder / "kernel")
        shutil.copy(reference.initrd, folder / "initrd")
        return Store(home).add(folder, Imported("greeter", "the test", reference.kernel_arguments, 128, 1))


def add_openssl(tree: Path) -> None:
    """The program with the libraries that it is linked to, and a certificate from the factory."""
    openssl = Path(need_program("openssl", package="openssl"))
    linked = run([need_program("ldd", package="libc-bin"), openssl], timeout=30).text
    for library in re.findall(r"/\S+", linked):
        target = tree / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    shutil.copy(openssl, tree / "bin" / "openssl")
    asked = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=factory"]
    run([openssl, *asked, "-keyout", tree / "etc" / "key", "-out", tree / "etc" / "certificate"], timeout=30)
