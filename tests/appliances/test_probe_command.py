"""``boxshift probe`` up to what is shown: no password goes to a key that was not named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stands import OWN, Stand

from kit.errors import UsageError
from migrate.wiring.probing import parse_url, probe_box

NOTHING = {"pin": "", "user": "", "site_password": "", "appliance_password": "", "language": ""}


@pytest.mark.process
@pytest.mark.network
def test_a_whole_probe_by_references(one_stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = one_stand.settle().read_identity().tls_spki_sha256
    monkeypatch.setenv("SITE", OWN.site.password.reveal())
    monkeypatch.setenv("BOX", OWN.appliance.password.reveal())
    url = f"https://{one_stand.endpoint.host}:{one_stand.endpoint.port}"
    login = {"user": "admin", "site_password": "env:SITE", "appliance_password": "env:BOX"}
    assert key in json.dumps(probe_box(url, **NOTHING).to_json())
    with pytest.raises(UsageError, match="key is known"):
        probe_box(url, **(NOTHING | login))
    found = probe_box(url, **(NOTHING | login | {"pin": key.upper()}))
    assert found.good
    shown = json.dumps(found.to_json()) + found.to_text()
    assert key in shown
    assert OWN.site.password.reveal() not in shown


@pytest.mark.parametrize("options", [{"user": "admin"}, {"site_password": "env:X"}, {"user": "a", "appliance_password": "env:X"}])
def test_half_a_login_is_a_usage_error(options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        probe_box("https://127.0.0.1", **(NOTHING | {"pin": "ab" * 32} | options))
    with pytest.raises(UsageError):
        probe_box("https://127.0.0.1", **(NOTHING | options))


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://box.example", ("box.example", 443)),
        ("box.example:8443", ("box.example", 8443)),
        ("https://[::1]:1/", ("::1", 1)),
    ],
)
def test_urls_are_host_and_port(url: str, place: tuple[str, int]) -> None:
    assert parse_url(url) == place


@pytest.mark.parametrize("url", ["http://box", "https://", "https://box:99999", "ftp://box", "https://[::1"])
def test_other_urls_are_usage_errors(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)
