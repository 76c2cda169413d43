"""The pytest plugin as another project's tests use it: a session of its own, with the example of the documentation."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from images import reap
from images.lab import list_lab, read_lab
from images.machine import Machines, open_machines
from images.reference_image import ensure_reference_image
from kit.process import run

pytest_plugins = ["pytester"]
PAGE = Path(__file__).parents[2] / "docs/how-to/test-with-appliances.md"
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
FAILING = """
from pathlib import Path

def test_that_fails(lab_appliance):
    Path("name").write_text(lab_appliance.name)
    raise AssertionError("as it should")
"""
KILLED = """
import os, signal
from pathlib import Path

def test_that_is_killed(lab_appliance):
    Path("name").write_text(lab_appliance.name)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def machines() -> Iterator[Machines]:
    """The user's own home, where the template is kept."""
    with open_machines() as opened:
        ensure_reference_image(opened.home)
        yield opened


def test_it_is_installed_under_its_name() -> None:
    (found,) = entry_points(group="pytest11", name="boxshift.lab")
    assert found.value == "images.pytest_plugin"


@pytest.mark.process
def test_a_session_that_does_not_use_it_pays_nothing() -> None:
    heavy = "{'libvirt', 'typer', 'cryptography', 'pydantic', 'sqlite3', 'images.machine'}"
    told = run([sys.executable, "-c", f"import images.pytest_plugin, sys; print(sorted({heavy} & set(sys.modules)))"], timeout=60)
    assert told.text == "[]\n"


@pytest.mark.process
def test_its_settings_are_options_and_lines_of_the_configuration_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nboxshift_lab_image = mine\nboxshift_lab_ttl = 20m\n")
    pytester.makepyfile("""
        from images.pytest_plugin import read_setting

        def test_settings(pytestconfig):
            assert read_setting(pytestconfig, "image") == "mine"
            assert read_setting(pytestconfig, "ttl") == "5m"
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-ttl", "5m").assert_outcomes(passed=1)
    told = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--help").stdout
    told.fnmatch_lines(["*--lab-image*", "*boxshift_lab_image*"])


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_documented_example_passes_and_an_appliance_is_gone_also_after_a_failure(pytester: pytest.Pytester, machines: Machines) -> None:
    before = {box.name for box in list_lab(machines)}
    pytester.makepyfile(test_example=EXAMPLE, test_failing=FAILING)
    told = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    told.assert_outcomes(passed=1, failed=1)
    name = (pytester.path / "name").read_text()
    told.stdout.fnmatch_lines([f"*console of {name}*"])
    assert name not in before
    assert name not in {box.name for box in list_lab(machines)}
    assert machines.hypervisor.find_domain(name) is None


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_killed_session_left_is_reaped_when_its_time_is_over(pytester: pytest.Pytester, machines: Machines) -> None:
    pytester.makepyfile(KILLED)
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-ttl", "10m").ret < 0
    name = (pytester.path / "name").read_text()
    try:
        assert read_lab(machines, name).power == "running"
        assert name not in {one.key for one in reap.plan_reap(machines)}
        (late,) = [one for one in reap.plan_reap(machines, now=time.time() + 601) if one.key == name]
        reap.apply_reap(machines, late)
        assert machines.hypervisor.find_domain(name) is None
    finally:
        machines.ensure_removed(name)
