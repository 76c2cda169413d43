"""``boxshift probe``: a box's address and references to its passwords become a probe of its family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kit.errors import UsageError
from migrate.appliances.bomgar.probe import Presence, Probe
from migrate.appliances.bomgar.probe import probe_box as probe_family
from migrate.appliances.contract import Account, Credentials, Endpoint
from migrate.plan_values import parse_pin
from migrate.secrets import resolve_secret

HTTPS = 443


@dataclass(frozen=True)
class Probed:
    """A probe, ready to be shown."""

    url: str
    probe: Probe

    @property
    def good(self) -> bool:
        """Nothing that is needed is missing, and nothing needed could not be looked at."""
        return all(row.presence in {Presence.THERE, Presence.OPTIONAL} for row in self.probe.rows)

    def to_json(self) -> dict[str, object]:
        """As small JSON."""
        rows = [{"where": row.where, "what": row.what, "presence": row.presence.value, "note": row.note} for row in self.probe.rows]
        return {
            "url": self.url,
            "good": self.good,
            "pin": self.probe.tls_spki_sha256,
            "languages": list(self.probe.languages),
            "rows": rows,
        }

    def to_text(self) -> str:
        """One line for each thing."""
        lines = [f"{self.url} serves the key {self.probe.tls_spki_sha256}; languages: {', '.join(self.probe.languages) or 'none known'}"]
        lines += [f"  {row.presence.value:<24} {row.where}: {row.what}{f' ({row.note})' if row.note else ''}" for row in self.probe.rows]
        return "\n".join(lines)


def probe_box(url: str, *, pin: str, user: str, site_password: str, appliance_password: str, language: str) -> Probed:
    """Probe the box at ``url``. A password is sent only to a box whose key is pinned.

    Raises:
        UsageError: the URL is none, or a password was given without a pin.

    """
    host, port = parse_url(url)
    pins = (_parse_pin(pin),) if pin else ()
    credentials = None
    if user or site_password or appliance_password:
        if not pins:
            raise UsageError(
                "A password is only sent to a box whose key is known.",
                hint="Run it without passwords first: it shows the key. Then add --pin.",
            )
        if not (user and site_password and appliance_password):
            raise UsageError("To look behind the logins, --user, --site-password and --appliance-password are all needed.")
        credentials = Credentials(
            Account(user, resolve_secret(site_password, base=Path(), what=f"password of {user} on /login")),
            Account(user, resolve_secret(appliance_password, base=Path(), what=f"password of {user} on /appliance")),
        )
    return Probed(url, probe_family(Endpoint(host, port, pins), credentials, language=language or None))


def _parse_pin(text: str) -> str:
    try:
        return parse_pin(text)
    except ValueError as error:
        raise UsageError(f"The value of --pin {error}.") from None


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of an ``https`` URL; a bare HOST[:PORT] is taken for one."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        scheme, host, port = parts.scheme, parts.hostname, parts.port or HTTPS
    except ValueError:
        scheme, host, port = "", None, 0
    if scheme != "https" or not host:
        raise UsageError(f"{url} is not the address of a box.", hint="Write it as https://HOST or https://HOST:PORT.")
    return host, port
