"""The reading half of the driver: its connections, and what they tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kit.errors import UnexpectedError, UnreachableError
from migrate.appliances.bomgar.api import Api
from migrate.appliances.bomgar.catalogue import ConsoleName
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.pages import basics, certificates, network, site
from migrate.appliances.bomgar.pages.files import FileStore
from migrate.appliances.bomgar.patience import wait_until
from migrate.appliances.bomgar.words import load_words
from migrate.appliances.contract import Account, Credentials, Endpoint
from migrate.appliances.errors import ApiForbiddenError, BusyError, UnhealthyError
from migrate.appliances.http import BoxClient, Request
from migrate.appliances.pinned import Pin
from migrate.facts import ApplianceFacts, BoxAddress, CertificateRow, ClockReading, Identity, JumpClient, PackageKind, SiteContent, Version

T = TypeVar("T")
ILL_FOR_GOOD = 30.0  # seconds of plainly calling itself not healthy, after which more waiting would not help


class BomgarInventory:
    """One box.

    ``language``: of the words on its pages (None: any that is known). ``patience`` stretches all deadlines, for slow machines.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials, *, language: str | None = None, patience: float = 1.0) -> None:
        self.endpoint = endpoint
        self._own = credentials
        self._language = language
        self._patience = patience
        self._words = load_words(language)
        self._open(Pin(*endpoint.pins), credentials)

    def _open(self, pin: Pin, credentials: Credentials) -> None:
        self._pin = pin
        self.credentials = credentials
        self._box = self._console(ConsoleName.APPLIANCE, credentials.appliance)
        self._site = self._console(ConsoleName.SITE, credentials.site)
        self._files = FileStore(self._site)
        self._anyone = self._client()
        self._api = Api(self._client(), credentials.api) if credentials.api is not None else None

    def _client(self) -> BoxClient:
        return BoxClient(self.endpoint, self._pin, language=self._language or "en", patience=self._patience)

    def _console(self, name: ConsoleName, account: Account) -> Console:
        return Console(self._client(), name, account, self._words)

    # Inventory

    def read_identity(self) -> Identity:
        """Who the box is, by Status > Basics."""
        return basics.read_basics(self._box).identity

    def read_clock(self) -> ClockReading:
        """Its clock against ours."""
        return basics.read_basics(self._box).clock

    def read_versions(self) -> tuple[Version, Version]:
        """Base and site."""
        return self._read_version(PackageKind.BASE), self._read_version(PackageKind.SITE)

    def _read_version(self, kind: PackageKind) -> Version:
        if kind is PackageKind.BASE:
            return basics.read_basics(self._box).base
        return site.read_status(self._site).version if self._has_site() else Version("", "")

    def _has_site(self) -> bool:
        """Whether site software is installed: without it nothing answers the question for login mechanisms."""
        answer = self._anyone.send(Request("GET", "/get_mech_list?version=3"))
        if answer.status not in {200, 404}:
            raise UnexpectedError(f"{self._anyone.where} answers {answer.status} for /get_mech_list.", status=answer.status)
        return answer.status == 200

    def read_health(self) -> tuple[bool, str]:
        """Whether the box calls itself healthy, and what it says about it."""
        try:
            return self._ask_health()
        except BusyError as busy:
            return False, busy.sentence

    def _ask_health(self) -> tuple[bool, str]:
        answer = self._anyone.send(Request("GET", "/check_health"))
        if answer.status not in {200, 500}:
            raise UnexpectedError(f"{self._anyone.where} answers {answer.status} for /check_health.", status=answer.status)
        return answer.status == 200, self._box.explain(answer)

    def read_content(self) -> SiteContent:
        """What the site holds. None for what neither the API nor the pages tell."""
        sessions, recordings = self._read_sessions()
        return SiteContent(
            users=self._ask(lambda api: api.read_users(), lambda: site.read_users(self._site)),
            sessions=sessions,
            recordings=recordings,
            files=self._files.read(),
            jump_clients=self.read_jump_clients(),
        )

    def read_jump_clients(self) -> tuple[JumpClient, ...] | None:
        """From the API; without it None, unless the page shows that there are none at all."""
        return self._ask(lambda api: api.read_jump_clients(), lambda: site.read_no_jump_clients(self._site))

    def read_upgrade_limit(self) -> int | None:
        """From the Jump Clients page."""
        return site.read_upgrade_limit(self._site)

    def _read_sessions(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        listed = self._ask(lambda api: api.read_sessions(), lambda: None)
        if listed is None:
            return site.read_sessions(self._site) or (None, None)
        return tuple(one.lsid for one in listed), tuple(one.lsid for one in listed if one.recorded)

    def read_facts(self) -> ApplianceFacts:
        """Everything, read one after the other."""
        found = basics.read_basics(self._box)
        status = site.read_status(self._site)
        healthy, note = self.read_health()
        return ApplianceFacts(
            identity=found.identity,
            site=status.version,
            base=found.base,
            site_name=status.name,
            healthy=healthy,
            health_note=note,
            failover_role=self._ask(lambda api: api.read_health().role, lambda: site.read_failover_role(self._site)),
            clock=found.clock,
            addresses=self.read_addresses(),
            certificates=self.read_certificates(),
            content=self.read_content(),
            read_at=time.time(),
        )

    def _ask(self, by_api: Callable[[Api], T], by_page: Callable[[], T]) -> T:
        """By the API where there is an account that may; by the pages otherwise."""
        if self._api is not None:
            try:
                return by_api(self._api)
            except ApiForbiddenError:
                return by_page()
        return by_page()

    def read_addresses(self) -> tuple[BoxAddress, ...]:
        """The box's addresses."""
        return network.read_addresses(self._box)

    def read_certificates(self) -> tuple[CertificateRow, ...]:
        """The rows of the table."""
        return certificates.read_certificates(self._box)

    def wait_until_healthy(self, *, seconds: float = 600.0) -> None:
        """Return when ``/check_health`` says so twice running.

        Raises:
            UnhealthyError: for half a minute it has answered that it is not; one that starts or restores is busy or does not answer.
            DeadlineError: not within ``seconds``.

        """
        ill_since: float | None = None

        def look() -> bool | None:
            nonlocal ill_since
            try:
                healthy, said = self._ask_health()
            except UnreachableError:
                ill_since = None
                raise
            if healthy:
                return True
            ill_since = ill_since or time.monotonic()
            if time.monotonic() - ill_since > ILL_FOR_GOOD * self._patience:
                raise UnhealthyError(f"{self._anyone.where} calls itself not healthy: {said}", hint="Mend that on the box, then retry.")
            return None

        what = f"{self._anyone.where} to be healthy"
        wait_until(look, what=what, timeout=seconds * self._patience, poll=0.3, in_a_row=2)

    def close(self) -> None:
        """Drop sessions and connections."""
        for client in (self._box.client, self._site.client, self._anyone, *((self._api.client,) if self._api else ())):
            client.close()
