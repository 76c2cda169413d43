"""The commands: what they print, and that they ask before they delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_hypervisor import FakeMachines, store_image
from typer.testing import CliRunner, Result

import images.lab
import images.machine
from images import cli
from images.domain import Forward
from images.errors import ImageInUseError, UnknownImageError
from images.home import Home
from images.machine import MachineSpec
from images.store import Store
from kit.errors import UsageError


@pytest.fixture(autouse=True)
def _at_home(home: Home, machines: FakeMachines, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[FakeMachines]:
        yield machines

    monkeypatch.setenv("BOXSHIFT_HOME", str(home.root))
    monkeypatch.setattr(images.machine, "open_machines", opened)
    monkeypatch.setattr(images.lab, "wait_for_ready", lambda machines, name, **_: machines.read_machine(name))
    monkeypatch.setattr(images.lab, "is_taken", lambda _: False)


def images_(*argv: str) -> Result:
    return CliRunner().invoke(cli.images_app, argv)


def lab(*argv: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli.lab_app, argv, input=typed)


def test_images_are_listed_as_lines_and_as_json(machines: FakeMachines) -> None:
    image = machines.store.read_image("tiny")
    assert "tiny" in images_("list").stdout
    (row,) = json.loads(images_("list", "--json").stdout)
    assert (row["name"], row["digest"]) == ("tiny", image.digest)
    assert json.loads(images_("show", "tiny", "--json").stdout)[0]["digest"] == image.digest
    assert isinstance(images_("show", "nothing").exception, UnknownImageError)


def test_an_image_is_removed_only_when_nothing_stands_on_it(machines: FakeMachines, home: Home) -> None:
    machines.ensure_machine(MachineSpec("old", "tiny", "r"))
    assert isinstance(images_("remove", "tiny").exception, ImageInUseError)
    machines.ensure_removed("old")
    assert "Would remove" in images_("remove", "tiny", "--dry-run").stdout
    assert Store(home).list_images()
    assert images_("remove", "tiny").exit_code == 0
    assert Store(home).list_images() == ()


def test_a_dry_run_of_a_build_builds_nothing(home: Home) -> None:
    assert "Would build reference-appliance" in images_("build", "--dry-run").stdout
    assert not any(home.layers.iterdir())


def test_lab_up_makes_machines_with_addresses_of_their_own() -> None:
    rows = json.loads(lab("up", "tiny", "-n", "2", "--json").stdout)
    assert len({row["address"] for row in rows}) == len({row["uuid"] for row in rows}) == 2
    assert all(row["path"] == "cold" and row["reason"] and row["ready_seconds"] >= 0 for row in rows)
    assert {row["name"] for row in json.loads(lab("list", "--json").stdout)} == {row["name"] for row in rows}


def test_a_dry_run_of_lab_up_makes_nothing(machines: FakeMachines) -> None:
    assert "lab-31" in lab("up", "tiny", "--dry-run").stdout
    assert machines.list_machines() == ()


def test_lab_down_asks_and_leaves_the_machines_of_migrations(machines: FakeMachines) -> None:
    lab("up", "tiny")
    machines.ensure_machine(MachineSpec("new", "tiny", "run 7"))
    assert isinstance(lab("down", "--all", typed="n\n").exception, UsageError)
    assert "Would remove lab-31" in lab("down", "--all", "--dry-run").stdout
    assert len(machines.list_machines()) == 2
    assert "Removed lab-31" in lab("down", "--all", "--yes").stdout
    assert [one.name for one in machines.list_machines()] == ["new"]


@pytest.mark.parametrize("argv", [[], ["lab-31", "--all"], ["new", "--yes"], ["nobody", "--yes"]])
def test_lab_down_refuses_what_it_does_not_know(machines: FakeMachines, argv: list[str]) -> None:
    machines.ensure_machine(MachineSpec("new", "tiny", "run 7"))
    assert isinstance(lab("down", *argv).exception, UsageError)
    assert machines.find_machine("new") is not None


def test_the_console_is_printed(machines: FakeMachines) -> None:
    facts = machines.ensure_machine(MachineSpec("new", "tiny", "r"))
    facts.console_log.write_bytes(b"one\ntwo\nthree\n")
    assert lab("console", "new", "--lines", "2").stdout == "two\nthree\n"


@pytest.mark.process
def test_ssh_puts_a_key_in_and_never_asks_for_a_password(machines: FakeMachines) -> None:
    machines.ensure_machine(MachineSpec("new", "tiny", "r", (Forward("127.0.3.9", 8022, "10.0.2.15", 22),)))
    argv = images.lab.ensure_ssh(machines, "new")
    assert argv[0] == "ssh"
    assert argv[-1] == "root@127.0.3.9"
    assert (machines.home.cache / "lab_key").stat().st_mode & 0o777 == 0o600


def test_images_that_share_a_name_are_told_apart_by_digest(machines: FakeMachines) -> None:
    store_image(machines.store, content=b"newer")
    rows = json.loads(images_("list", "--json").stdout)
    assert len({row["digest"] for row in rows}) == 2
