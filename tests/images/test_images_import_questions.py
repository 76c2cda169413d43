"""What a person is asked during an import: the licence, the size, the properties; and what happens with the answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from bundles import HARDWARE, codes, envelope, item, make_appliance, system

from images.hardware import DeclaredProperty
from images.home import Home
from images.import_cli import Terminal
from images.import_errors import EulaError, PropertyError
from images.import_image import import_image
from images.import_request import ImportReport, ImportRequest
from images.ovf.model import Deployment
from images.store import Store

pytestmark = pytest.mark.process

EULA = "<EulaSection><Info>i</Info><License>Be nice.</License></EulaSection>"
PRODUCT = """<ProductSection><Info>i</Info><Property ovf:key="host" ovf:type="string" ovf:userConfigurable="true"/>
<Property ovf:key="port" ovf:type="uint16" ovf:userConfigurable="true"/></ProductSection>"""
SIZES = """<DeploymentOptionSection><Info>i</Info><Configuration ovf:id="small"><Label>S</Label><Description>d</Description></Configuration>
<Configuration ovf:id="large"><Label>L</Label><Description>d</Description></Configuration></DeploymentOptionSection>"""
LARGE = item(2, 4, 'ovf:configuration="large"', VirtualQuantity="2", AllocationUnits="GB")


class Someone:
    """Answers as the test wants, and remembers what was asked."""

    def __init__(self, *, accepts: bool = True, port: str | None = "443") -> None:
        self.asked: list[str] = []
        self._accepts, self._port = accepts, port

    def accept(self, eula: str) -> bool:
        self.asked.append(eula)
        return self._accepts

    def choose(self, deployments: Sequence[Deployment], usual: Deployment) -> str:
        self.asked.append(f"{len(deployments)} sizes, usually {usual.id}")
        return "large"

    def answer(self, asked: DeclaredProperty) -> str | None:
        self.asked.append(asked.key)
        return {"host": "box", "port": self._port}[asked.key]


@pytest.fixture
def ova(tmp_path: Path) -> Path:
    return make_appliance(tmp_path, envelope(system(HARDWARE + LARGE, more=EULA + PRODUCT, transport="iso"), more=SIZES))


def bring(home: Home, source: Path, person: Someone, **more: object) -> ImportReport:
    return import_image(ImportRequest(str(source), **more), Store(home), person=person)  # type: ignore[arg-type]


def test_what_is_open_is_asked_and_what_was_given_is_not(home: Home, ova: Path) -> None:
    person = Someone()
    hardware = bring(home, ova, person).images[0].hardware
    assert hardware is not None
    assert (hardware.deployment, hardware.memory_mib) == ("large", 2048)
    assert {one.key: one.value for one in hardware.properties} == {"host": "box", "port": "443"}
    assert person.asked == ["2 sizes, usually small", "host", "port", "Be nice."]
    quiet = Someone()
    bring(home, ova, quiet, deployment="small", accept_eula=True, answers=(("host", "a"), ("port", "1")), name="other")
    assert quiet.asked == []


def test_a_licence_that_is_not_accepted_ends_the_import(home: Home, ova: Path) -> None:
    with pytest.raises(EulaError, match="was not accepted"):
        bring(home, ova, Someone(accepts=False))
    assert list(home.images.iterdir()) == []


def test_an_answer_may_stay_open_and_a_wrong_one_is_refused(home: Home, ova: Path) -> None:
    assert "ovf.property-open" in codes(bring(home, ova, Someone(port=None)).findings)
    with pytest.raises(PropertyError, match="port"):
        bring(home, ova, Someone(port="many"))


def test_the_terminal_shows_what_it_asks_about(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    prompts: list[str] = []

    def ask(text: str, **more: object) -> object:
        prompts.append(text)
        return more.get("default", True)

    monkeypatch.setattr(typer, "confirm", ask)
    monkeypatch.setattr(typer, "prompt", ask)
    sizes = (Deployment("small", "S", "few", default=False), Deployment("large", "L", "many", default=True))
    assert Terminal().accept("Be\x9b nice.") is True
    assert Terminal().choose(sizes, sizes[1]) == "large"
    assert Terminal().answer(DeclaredProperty("net.pass", "string", label="Pass word", password=True, askable=True)) is None
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Be  nice." in shown.err
    assert "small" in shown.err
    assert "file:PATH" in prompts[-1]
    assert prompts[-1].startswith("Pass word")


SECRET = """<ProductSection><Info>i</Info><Property ovf:key="word" ovf:type="string" ovf:userConfigurable="true" ovf:password="true"/>
</ProductSection>"""


@pytest.mark.parametrize(
    ("given", "kept"), [("file:first.yaml#word", "file:{here}/first.yaml#word"), ("file:/x", "file:/x"), ("env:X", "env:X")]
)
def test_a_file_with_a_password_is_meant_from_where_the_import_ran(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, kept: str
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = make_appliance(tmp_path, envelope(system(more=SECRET, transport="iso")))
    (word,) = bring(home, asked, Someone(), answers=(("word", given),)).images[0].hardware.properties
    assert word.reference == kept.format(here=tmp_path)
