"""Looking for what would go wrong on this computer, before it does: findings as data, each with what to do. Changes nothing."""

from __future__ import annotations

import enum
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.acceleration import KVM, Acceleration, find_acceleration
from images.build import TOOLS
from images.daemon import SESSION_URI, SYSTEM_URI, VARIABLE, PrivateDaemon, find_pid
from images.domain import Accelerator, Forward
from images.home import Home, find_closed_folder
from images.hypervisor import Hypervisor
from images.ports import is_taken
from kit.errors import BoxshiftError, FailedError
from kit.process import find_program, run

GIB = 1 << 30
DISK_WANTED, DISK_NEEDED = 8 * GIB, 3 * GIB
MEMORY_WANTED, MEMORY_NEEDED = 3 * GIB, 1 * GIB
SLOW = 3.0
QEMU_USER = "libvirt-qemu"
# Programs that machines need beside those of a build, and their Debian packages.
MACHINE_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86", "libvirtd": "libvirt-daemon-system", "unshare": "util-linux", "ssh": "openssh-client",
}  # fmt: skip
# Debian packages that `scripts/setup` installs for this room. The kernel, nginx and so on are inside the image only.
PACKAGES = (
    "mmdebstrap", "debian-archive-keyring", "e2fsprogs", "qemu-utils", "qemu-system-x86", "libvirt-daemon-system", "libvirt-clients",
    "uidmap", "util-linux", "openssh-client",
)  # fmt: skip


class Verdict(enum.Enum):
    """What a check came to."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``do`` is empty where there is nothing to do."""

    code: str
    verdict: Verdict
    sentence: str
    do: str = ""


Check = Callable[[Home], Iterator[Finding]]


def check_computer(home: Home, forwards: Sequence[Forward] = ()) -> Iterator[Finding]:
    """All findings of this computer. ``forwards``: addresses that shall be free. A check that fails itself is "could not tell"."""
    checks: tuple[tuple[str, Check], ...] = (
        ("tools", check_tools), ("acceleration", check_acceleration), ("kvm-rights", check_kvm_rights), ("libvirt", check_libvirt),
        ("disk", check_disk), ("memory", check_memory), ("home", check_home), ("apparmor", check_apparmor),
        ("user-namespace", check_namespaces), ("addresses", lambda _: check_addresses(forwards)),
    )  # fmt: skip
    yield from run_checks(home, checks)


def run_checks(home: Home, checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """The findings of each, in order."""
    for code, check in checks:
        try:
            yield from check(home)
        except BoxshiftError as error:
            yield Finding(code, Verdict.UNKNOWN, error.sentence, error.hint)
        except OSError as error:
            yield Finding(code, Verdict.UNKNOWN, f"{error.filename or code}: {error.strerror}.")


def check_tools(_: Home) -> Iterator[Finding]:
    """Whether the programs are installed, and their versions."""
    for program, package in {**TOOLS, **MACHINE_TOOLS}.items():
        found = find_program(program)
        if found is None:
            yield Finding(f"tool.{program}", Verdict.PROBLEM, f"{program} is not installed.", f"apt-get install {package}")
        else:
            yield Finding(f"tool.{program}", Verdict.OK, f"{found}: {_version(found)}")


def check_acceleration(home: Home) -> Iterator[Finding]:
    """What machines run on, proved by booting, and how fast."""
    proved = find_acceleration(home, again=True)
    if proved.accelerator is Accelerator.KVM:
        yield Finding("acceleration", Verdict.OK, f"KVM works: a tiny system booted under it in {proved.seconds:g} s.")
        return
    yield Finding("acceleration", Verdict.WARNING, f"Machines are emulated: {proved.reason}.", _enable_kvm(proved))
    slow = proved.factor >= SLOW
    yield Finding(
        "speed",
        Verdict.WARNING if slow else Verdict.OK,
        f"Emulation runs at {proved.factor:g} times the reference machine's time; deadlines are scaled by it.",
        "Other work may keep the processors busy; run it again when they are idle." if slow else "",
    )


def check_kvm_rights(_: Home) -> Iterator[Finding]:
    """Whether QEMU's own user may open ``/dev/kvm``: if root may and it may not, libvirt probes QEMU anew at every call."""
    if not KVM.exists() or os.geteuid() != 0:
        return
    found = KVM.stat()
    try:
        user = pwd.getpwnam(QEMU_USER)
    except KeyError:
        yield Finding("kvm-rights", Verdict.UNKNOWN, f"There is no user {QEMU_USER} here.", "apt-get install libvirt-daemon-system")
        return
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    wanted = stat.S_IROTH | stat.S_IWOTH, stat.S_IRGRP | stat.S_IWGRP
    allowed = found.st_mode & wanted[0] == wanted[0] or (found.st_mode & wanted[1] == wanted[1] and found.st_gid in groups)
    if allowed:
        yield Finding("kvm-rights", Verdict.OK, f"{QEMU_USER} may open {KVM}.")
    else:
        yield Finding(
            "kvm-rights",
            Verdict.WARNING,
            f"{QEMU_USER} may not open {KVM}: the system's libvirt daemon then probes QEMU at every call, which takes a minute each."
            " boxshift's private daemon hides it.",
            f"chgrp kvm {KVM} && chmod 0660 {KVM}",
        )


def check_libvirt(home: Home) -> Iterator[Finding]:
    """Which daemon would be used, and whether it answers."""
    given = os.environ.get(VARIABLE)
    private = PrivateDaemon(home.daemon)
    if given:
        yield _ask_libvirt(given)
    elif os.geteuid() != 0:
        yield _ask_libvirt(SESSION_URI)
    elif find_pid(private) is not None:
        yield _ask_libvirt(private.uri)
    else:
        found = _ask_libvirt(SYSTEM_URI)
        starts = Finding("libvirt", Verdict.OK, f"No libvirt daemon runs; boxshift starts a private one in {home.daemon} when it needs it.")
        yield found if found.verdict is Verdict.OK else starts


def check_disk(home: Home) -> Iterator[Finding]:
    """Free space where images and machines live."""
    existing = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    yield weigh("disk", free, DISK_WANTED, DISK_NEEDED, f"free for {home.root}", "Free space, or set BOXSHIFT_HOME to another disk.")


def check_memory(_: Home) -> Iterator[Finding]:
    """Memory for two appliances."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    yield weigh("memory", free, MEMORY_WANTED, MEMORY_NEEDED, "of memory available", "End other programs; a migration runs two machines.")


def check_home(home: Home) -> Iterator[Finding]:
    """Whether QEMU's user can reach the disks."""
    existing = next(folder for folder in (home.machines, *home.machines.parents) if folder.exists())
    closed = find_closed_folder(existing / "any") if os.geteuid() == 0 else None
    if closed is None:
        yield Finding("home", Verdict.OK, f"Images and machines are kept in {home.root}.")
    else:
        yield Finding("home", Verdict.PROBLEM, f"QEMU's user cannot pass through {closed}.", f"chmod o+x {closed}, or set BOXSHIFT_HOME.")


def check_apparmor(home: Home) -> Iterator[Finding]:
    """Whether AppArmor confines machines here."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    if not switch.exists() or switch.read_text().strip() != "Y":
        yield Finding("apparmor", Verdict.OK, "AppArmor does not confine machines here.")
    else:
        yield Finding(
            "apparmor",
            Verdict.OK,
            f"AppArmor is on; libvirt allows each machine its own files below {home.root}. A denial would be in `dmesg`. "
            "Clones read all of their template's memory before they go on, since it may not be shared.",
        )


def check_namespaces(_: Home) -> Iterator[Finding]:
    """Whether a user without root can build images: mmdebstrap needs a user namespace with many ids."""
    if os.geteuid() == 0:
        return
    name = pwd.getpwuid(os.geteuid()).pw_name
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        if not any(line.split(":")[0] == name for line in (table.read_text().splitlines() if table.exists() else ())):
            yield Finding(
                "user-namespace",
                Verdict.PROBLEM,
                f"{table} has no line for {name}.",
                f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
            )
    if find_program("newuidmap") is None:
        yield Finding("user-namespace", Verdict.PROBLEM, "newuidmap is not installed.", "apt-get install uidmap")


def check_addresses(forwards: Sequence[Forward]) -> Iterator[Finding]:
    """Whether the ports that shall lead into machines are free."""
    for one in forwards:
        place = f"{one.host}:{one.host_port}"
        if is_taken(one):
            yield Finding(
                "address", Verdict.PROBLEM, f"{place} is in use.", "Find what listens there (ss -ltnp), or choose another address."
            )
        else:
            yield Finding("address", Verdict.OK, f"{place} is free.")


def _ask_libvirt(uri: str) -> Finding:
    with Hypervisor(uri) as hypervisor:
        try:
            facts = hypervisor.read_facts()
        except FailedError as error:
            return Finding(
                "libvirt",
                Verdict.PROBLEM,
                f"{uri}: {error.facts.get('said') or error.sentence}",
                "Is the daemon running, and are you in the group libvirt?",
            )
    return Finding("libvirt", Verdict.OK, f"{uri} answers: libvirt {facts.libvirt}, QEMU {facts.qemu}.")


def weigh(code: str, free: int, wanted: int, needed: int, what: str, do: str) -> Finding:
    """How much there is of something, in bytes, judged by how much is wanted and how much is needed."""
    verdict = Verdict.OK if free >= wanted else Verdict.WARNING if free >= needed else Verdict.PROBLEM
    return Finding(
        code, verdict, f"{free / GIB:.1f} GiB {what}; {wanted / GIB:.0f} GiB are comfortable.", "" if verdict is Verdict.OK else do
    )


def _enable_kvm(proved: Acceleration) -> str:
    if "does not exist" in proved.reason:
        return "All works, slower. KVM needs virtualisation switched on in the firmware, or nested virtualisation in the cloud."
    return "All works, slower. This computer is a virtual machine whose host does not really pass virtualisation on."


def _version(program: Path) -> str:
    said = run([program, "-V" if program.name in ("mke2fs", "ssh") else "--version"], timeout=30, accept=range(256))
    return (said.out or said.err).decode(errors="replace").splitlines()[0]
