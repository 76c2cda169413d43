from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path

import pytest

from images.build import render_configure
from images.errors import RecipeError
from images.ready_page import ReadyPage, Speech
from images.recipe import parse_recipe, read_recipe
from images.reference_image import read_reference_recipe
from images.sources import find_sources

GOOD = {
    "name": "tiny", "suite": "bookworm", "hostname": "box", "packages": ["nginx-light"],
    "kernel": {"package": "linux-image-amd64", "modules": ["fs/ext4"], "initrd": ["virtio_blk"]},
    "disk_mib": 1024, "hardware": {"memory_mib": 512, "cpus": 1},
}  # fmt: skip


def test_the_recipe_that_ships_is_good() -> None:
    recipe = read_reference_recipe()
    assert recipe.name == "reference-appliance"
    assert all(one.source.exists() for one in recipe.files)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    bad = {**GOOD, "name": "No Name", "disk_mib": 1, "colour": "blue", "packages": ["a b"], "hardware": {"memory_mib": 512, "cpus": 0}}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(bad, folder=tmp_path, where="r.yaml")
    for part in ("name", "disk_mib", "colour", "packages.0", "hardware.cpus", "r.yaml"):
        assert part in caught.value.sentence


def test_files_that_are_missing_or_climb_out_are_named(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    bad = {
        **GOOD,
        "files": [{"from": "gone", "to": "/a"}, {"from": "there", "to": "/a/../../b"}],
        "leave_out": ["relative/*"],
        "compile": ["opt"],
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(bad, folder=tmp_path, where="r.yaml")
    for part in ("gone does not exist", "climbs out", "relative/*", "compile: opt"):
        assert part in caught.value.sentence


@pytest.mark.parametrize("package", ["--option", "a;b", "$(x)", "-y", "A", ""])
def test_a_package_that_could_be_an_option_or_a_command_is_refused(tmp_path: Path, package: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe({**GOOD, "packages": [package]}, folder=tmp_path, where="r.yaml")


def test_what_is_no_yaml_or_no_mapping_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for content in ("a: [", "just words", "- 1\n- 2\n", ""):
        path.write_text(content)
        with pytest.raises(RecipeError):
            read_recipe(path)
    with pytest.raises(RecipeError, match="could not be read"):
        read_recipe(tmp_path / "absent.yaml")


KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0 it\'s me & "you"'


def test_users_become_commands_before_the_recipes_own(tmp_path: Path) -> None:
    users = [{"name": "ops", "groups": ["adm", "sudo"], "keys": [KEY]}, {"name": "web", "system": True, "shell": "/usr/sbin/nologin"}]
    script = render_configure(parse_recipe({**GOOD, "users": users, "commands": ["true last"]}, folder=tmp_path, where="r.yaml"))
    assert "useradd --shell /bin/bash --user-group --create-home --groups adm,sudo ops\n" in script
    assert "useradd --shell /usr/sbin/nologin --user-group --system web\n" in script
    assert script.index("useradd") < script.index("true last")
    assert shlex.quote(f"{KEY}\n") in script


@pytest.mark.parametrize(
    "user",
    [
        {"name": "Ops"}, {"name": "-ops"}, {"name": "a;b"}, {"name": "ops", "shell": "bash"}, {"name": "ops", "shell": "/bin/sh; reboot"},
        {"name": "ops", "groups": ["a b"]}, {"name": "ops", "keys": ["password"]}, {"name": "ops", "keys": [KEY + "\nssh-rsa AAAA"]},
        {"name": "ops", "system": True, "keys": [KEY]}, {"name": "ops", "password": "secret"},
    ],
)  # fmt: skip
def test_a_user_that_could_be_something_else_is_refused(tmp_path: Path, user: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        parse_recipe({**GOOD, "users": [user]}, folder=tmp_path, where="r.yaml")


def test_a_user_that_is_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ops is there twice"):
        parse_recipe({**GOOD, "users": [{"name": "ops"}, {"name": "ops"}]}, folder=tmp_path, where="r.yaml")


def test_date_and_snapshot_pin_what_goes_in(tmp_path: Path) -> None:
    pinned = {**GOOD, "date": dt.date(2025, 6, 1), "snapshot": "20250601T000000Z", "ready": "https/up"}
    recipe = parse_recipe(pinned, folder=tmp_path, where="r.yaml")
    assert recipe.date == dt.datetime(2025, 6, 1, tzinfo=dt.UTC).timestamp()
    assert recipe.ready == ReadyPage(Speech.HTTPS, 443, "/up")
    for mirror, base in (("", "https://snapshot.debian.org/archive"), ("http://127.0.0.1/s/", "http://127.0.0.1/s")):
        found = find_sources("bookworm", snapshot=recipe.snapshot, env={"BOXSHIFT_SNAPSHOTS": mirror})
        assert f"URIs: {base}/debian/20250601T000000Z/\nSuites: bookworm\n" in found.text
        assert f"URIs: {base}/debian-security/20250601T000000Z/\nSuites: bookworm-security\n" in found.text
        assert "Check-Valid-Until: no" in found.text


@pytest.mark.parametrize("bad", [{"date": "soon"}, {"date": dt.date(1969, 1, 1)}, {"snapshot": "yesterday"}, {"ready": "tcp:22"}])
def test_a_date_a_snapshot_or_a_page_that_is_none_is_refused(tmp_path: Path, bad: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        parse_recipe({**GOOD, **bad}, folder=tmp_path, where="r.yaml")
