"""Which foreign package may be imported where, also inside functions; and what has to stay on its own."""

from __future__ import annotations

import re
import sys

import pytest
from source_tree import GUEST, PACKAGES, ROOT, SOFTWARE, imports_of, modules, tracked_files

from kit import process

pytestmark = pytest.mark.process  # git lists the files

REFERENCES = {
    r"kit/references\.py": "the one place that resolves references to secrets",
}
COMMAND_LINES = r"migrate/cli/.*|(certs|images)/(cli|lab_cli|import_cli|__main__)\.py"
PROGRAMS = (
    rf"{COMMAND_LINES}|migrate/demo/(visitor|swarm)\.py"  # programs of their own: visitors, who the demo starts, and the client swarm
)
# foreign package: where it may be imported (a pattern over paths), and why there
ONLY_IN: dict[str, dict[str, str]] = {
    "subprocess": {
        r"kit/process\.py": "the one way out to other programs",
        rf"{SOFTWARE}.*": "runs inside the appliance, where kit is not installed",
        rf"{GUEST}.*": "runs inside a machine, where kit is not installed",
    },
    "multiprocessing": {},
    "pty": {},
    "pexpect": {},
    "libvirt": {r"images/hypervisor(_storage|_networks|_disks)?\.py": "the one adapter to hypervisors"},
    "libvirt_qemu": {r"images/hypervisor(_storage|_networks)?\.py": "the one adapter to hypervisors"},
    "libvirtmod": {},
    "dbos": {r"migrate/engine/.*": "the one adapter to the workflow engine"},
    "typer": {COMMAND_LINES: "the command line"},
    "click": {},  # typer brings its own
    "paramiko": {
        r"migrate/appliances/linux/.*": "the family that is reached by SSH",
        r"migrate/cutover/ssh\.py": "the way to a gateway",
    },
    "flask": {rf"{SOFTWARE}.*": "the reference appliance's pages"},
    "gunicorn": {rf"{SOFTWARE}.*": "the reference appliance's server"},
    "keyring": REFERENCES,
    "getpass": REFERENCES | {r"migrate/cli/.*": "the name of the person who decides"},
    "pickle": {},
    "marshal": {},
    "shelve": {},
}
# call: where it may stand, and why
CALLS_ONLY_IN: dict[str, dict[str, str]] = {
    r"\bos\.(system|popen|exec\w+|spawn\w+|posix_spawn\w*|fork\w*)\(": {
        rf"{SOFTWARE}appliance/supervisor\.py": "runs inside the appliance and replaces its own worker",
        r"images/lab_cli\.py": "`lab ssh` becomes ssh, which owns the terminal from then on",
        r"images/apart\.py": "only a new process is in a new table of processes, and its first one has to bury the others",
    },
    r"\bshell=True": {},
    r"\b(eval|exec)\(": {},
    r"verify=False": {},
    r"\bsys\.exit\(|\braise SystemExit": {
        PROGRAMS: "only what is started as a program knows exit codes",
        rf"{SOFTWARE}.*": "programs inside the appliance end by themselves",
    },
}


@pytest.mark.parametrize("foreign", ONLY_IN)
def test_a_foreign_package_is_imported_only_where_it_belongs(foreign: str) -> None:
    allowed = [re.compile(pattern) for pattern in ONLY_IN[foreign]]
    astray = [
        found.where
        for module in modules()
        for found in imports_of(module)
        if found.name.partition(".")[0] == foreign and not any(pattern.fullmatch(module.path) for pattern in allowed)
    ]
    assert astray == []


@pytest.mark.parametrize("call", CALLS_ONLY_IN)
def test_a_dangerous_call_stands_only_where_it_belongs(call: str) -> None:
    allowed = [re.compile(pattern) for pattern in CALLS_ONLY_IN[call]]
    astray = [
        f"{module.path}:{number} {line.strip()}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), 1)
        if re.search(call, line) and not any(pattern.fullmatch(module.path) for pattern in allowed)
    ]
    assert astray == []


def test_every_exception_has_its_reason() -> None:
    for table in (ONLY_IN, CALLS_ONLY_IN):
        assert all(reason for places in table.values() for reason in places.values())


def test_the_software_of_the_reference_appliance_imports_nothing_of_this_repository() -> None:
    inside = [module for module in modules() if module.path.startswith(SOFTWARE)]
    assert inside
    astray = [
        found.where
        for module in inside
        for found in imports_of(module)
        if found.name.partition(".")[0] in PACKAGES and not found.name.startswith("images.reference.software.")
    ]
    assert astray == []


def test_nothing_of_this_repository_imports_the_software_of_the_reference_appliance() -> None:
    """It is carried into the box as files; importing it here would mix two programs."""
    astray = [
        found.where
        for module in modules()
        if not module.path.startswith(SOFTWARE)
        for found in imports_of(module)
        if found.name.startswith("images.reference.software")
    ]
    assert astray == []


def test_nothing_below_the_command_line_imports_it() -> None:
    astray = [
        found.where
        for module in modules()
        for found in imports_of(module)
        if re.match(r"migrate\.cli\b|(certs|images)\.cli\b", found.name) and not re.fullmatch(COMMAND_LINES, module.path)
    ]
    assert astray == []


def test_only_the_command_line_prints() -> None:
    allowed = re.compile(rf"{PROGRAMS}|{SOFTWARE}.*")
    astray = [
        f"{module.path}:{number}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), 1)
        if re.search(r"(?<![\w.])print\(|\bsys\.std(out|err)\.write\(", line) and not allowed.fullmatch(module.path)
    ]
    assert astray == []


def test_no_product_code_imports_a_test() -> None:
    """But the plugin that pytest loads, which nothing of ours imports."""
    astray = [
        found.where
        for module in modules()
        for found in imports_of(module)
        if re.match(r"(tests|pytest|hypothesis|images\.pytest_plugin)\b", found.name) and module.path != "images/pytest_plugin.py"
    ]
    assert astray == []


def test_every_folder_of_a_package_is_a_package() -> None:
    """A folder without ``__init__.py`` is passed over by import-linter and by the wheel."""
    folders = {path.rpartition("/")[0] for path in (module.path for module in modules()) if not path.startswith((SOFTWARE, GUEST))}
    assert [folder for folder in sorted(folders) if f"{folder}/__init__.py" not in tracked_files()] == []


def test_showing_the_help_imports_nothing_heavy() -> None:
    heavy = ("dbos", "libvirt", "paramiko", "httpx", "lxml", "cryptography", "sqlalchemy", "pydantic", "jinja2", "ruamel", "dns", "OpenSSL")
    body = f"import sys, migrate.cli.main; print(*[name for name in {heavy!r} if name in sys.modules])"
    assert process.run([sys.executable, "-c", body], timeout=60, cwd=ROOT).text.split() == []
    helped = process.run([sys.executable, "-X", "importtime", "-m", "migrate.cli.main", "--help"], timeout=60, cwd=ROOT)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in helped.err.decode().splitlines() if "import time" in line}
    assert loaded & set(heavy) == set()
    assert "Usage" in helped.text
