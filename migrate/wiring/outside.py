"""Looks at the service as a visitor does: by its name, with full verification, at an address of our choosing."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from certs.served import read_pin, read_served
from kit.errors import FailedError, UnexpectedError, UnreachableError, UsageError
from migrate.cutover.contract import Cutover
from migrate.plan import CommonPlan
from migrate.steps.context import ServedProof

TIMEOUT = 15.0


class Visitor:
    """A visitor of one plan's site."""

    def __init__(self, plan: CommonPlan, folder: Path, cutover: Cutover | None) -> None:
        self._name = plan.site.name
        self._cutover = cutover
        self._roots = folder / plan.certificate.roots if plan.certificate.roots else None

    def resolve(self) -> tuple[str, ...]:
        """Every address that any authoritative server gives."""
        if self._cutover is None:
            raise UnexpectedError("This plan has no cutover, so there are no name servers to ask.")
        return tuple(sorted({address for witness in self._cutover.read_state().witnesses for address in witness.shows}))

    def read_key(self, host: str, port: int) -> str:
        """Handshakes only; nothing is sent."""
        return read_pin(host, port, timeout=TIMEOUT)

    def read_served(self, address: str, port: int) -> ServedProof:
        """The handshake as it is, then a second one that verifies: the two answers are different facts."""
        served = read_served(self._name, port, address=address, timeout=TIMEOUT)
        try:
            self._request(address, port)
            said = "verified"
        except FailedError as error:
            said = error.sentence
        chains = {tuple(cert.sha256 for cert in one.certs) for one in served.presented if one.certs and one.server_name}
        if len(chains) > 1:
            said = f"Clients of {' and '.join(served.versions)} are sent different certificates."
        return ServedProof(
            address, port, tuple(cert.sha256 for cert in served.certs), served.certs[0].spki_sha256, verified=said == "verified", said=said
        )

    def probe(self, address: str, port: int) -> None:
        """One request; anything but an answer of the site itself is a failure."""
        answer = self._request(address, port)
        if answer.status_code != httpx.codes.OK:
            raise FailedError(f"{self._name} at {address}:{port} answers {answer.status_code} to a health check.")

    def _request(self, address: str, port: int) -> httpx.Response:
        host = f"[{address}]" if ":" in address else address
        try:
            with httpx.Client(verify=self._context(), timeout=TIMEOUT, trust_env=False) as client:
                return client.get(
                    f"https://{host}:{port}/check_health",
                    headers={"Host": f"{self._name}:{port}", "Connection": "close"},
                    extensions={"sni_hostname": self._name},
                )
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise UnreachableError(f"{self._name} at {address}:{port} does not answer a verified request: {error}") from error

    def _context(self) -> ssl.SSLContext:
        if self._roots is None:
            return ssl.create_default_context()
        try:
            return ssl.create_default_context(cafile=str(self._roots))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"The file of trusted roots {self._roots} cannot be used.", hint="certificate.roots names a PEM file."
            ) from error
