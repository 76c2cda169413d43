"""How traffic and the last data move: the plan file's `cutover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from migrate.plan_parts import FailoverPlan, Model
from migrate.plan_values import AdminAddress, Duration, HostName, IpAddress, Moment, Name, Port, SecretRef

SHARED_SECONDS = 10.0  # two pages of two boxes


class DnsServer(Model):
    """One authoritative server to look at."""

    address: IpAddress = Field(description="Its address.")
    port: Port = Field(default=53, description="Its port.")
    name: str = Field(default="", description="Its name in the zone's NS records, if that cannot be looked up from here.")


class DnsPlan(Model):
    """For `method: dns`: how the record is changed (RFC 2136 with TSIG)."""

    server: IpAddress = Field(description="Primary server that takes updates.")
    port: Port = Field(default=53, description="Its port.")
    zone: HostName | None = Field(default=None, description="Zone; default: found by its SOA record.")
    key_name: Name = Field(description="Name of the TSIG key.")
    algorithm: Literal["hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"] = Field(
        default="hmac-sha256", description="Algorithm of the TSIG key."
    )
    key: SecretRef = Field(description="Reference to the TSIG secret (base64).")
    ttl: int = Field(default=60, ge=1, le=3600, description="TTL in seconds while the move lasts.")
    authoritative: tuple[DnsServer, ...] = Field(default=(), description="Servers to watch; default: the zone's NS records.")


class NatPlan(Model):
    """For `method: nat`: the gateway whose rule leads to the old box's service address and port (nftables, over SSH)."""

    gateway: AdminAddress = Field(description="The gateway's address or name, reached from this machine.")
    port: Port = Field(default=22, description="Port of its SSH server.")
    host_key: str = Field(
        pattern=r"^SHA256:[A-Za-z0-9+/]{43}$", description="Fingerprint of its host key, as `ssh-keygen -l` prints it: `SHA256:…`."
    )
    user: Name = Field(default="root", description="Who logs in there.")
    password: SecretRef | None = Field(default=None, description="Reference to the password.")
    key: Path | None = Field(default=None, description="File with the private key (mode 0600), instead of a password.")
    passphrase: SecretRef | None = Field(default=None, description="Reference to what the key file is encrypted with.")
    sudo: bool = Field(default=False, description="Run nft and conntrack by `sudo -n`.")
    public: IpAddress | None = Field(
        default=None, description="Where visitors reach the gateway; the new box is proved through it. Only where this machine can use it."
    )
    seconds: Duration = Field(default=3.0, description="How long a switch is expected to take; counted as time without service.")

    @model_validator(mode="after")
    def _has_one_login(self) -> NatPlan:
        if (self.password is None) == (self.key is None):
            raise ValueError("needs either password or key")
        if self.passphrase is not None and self.key is None:
            raise ValueError("has a passphrase, but no key that it belongs to")
        return self


Command = Annotated[tuple[str, ...], Field(min_length=1, max_length=200)]


class CommandPlan(Model):
    """For `method: command`: your own programs for another kind of gateway; lists of words, no shell, run in the plan's folder."""

    check: Command = Field(description="Prints `old`, `new`, or the one address that visitors are sent to.")
    switch: Command = Field(description="Sends visitors to the new box.")
    switch_back: Command = Field(description="Sends visitors to the old box.")
    ready: tuple[str, ...] = Field(default=(), description="Tells by exit status 0 that a switch is allowed, and changes nothing.")
    secret: SecretRef | None = Field(default=None, description="Reference to what each of them reads on its standard input.")
    timeout: Duration = Field(default=30.0, gt=0, description="How long one of them may take.")
    spread: Duration = Field(default=60.0, description="How long after a switch the check may go on saying otherwise.")
    public: IpAddress | None = Field(default=None, description="As for `nat`.")
    seconds: Duration = Field(default=10.0, description="How long a switch is expected to take; counted as time without service.")


class ProbePlan(Model):
    """How the new box is proved from outside."""

    good_in_a_row: int = Field(default=5, ge=1, le=1000, description="Good answers in a row that count as proof.")
    timeout: Duration = Field(default=300.0, description="How long to wait for them.")


class CutoverPlan(Model):
    """How traffic and the last data move."""

    method: Literal["dns", "nat", "command", "shared-ip"] = Field(
        default="dns",
        description="How visitors are sent to the new box: by the section of that name. `shared-ip` has none: the new box takes over the "
        "old one's service address, beside its own.",
    )
    data: Literal["resync", "failover", "none"] = Field(
        default="resync",
        description="`resync`: last backup in the window, nothing lost. `failover`: the new box joins the old one as its backup and takes "
        "its role over, nothing lost. `none`: what was written since the backup IS LOST.",
    )
    failover: FailoverPlan | None = Field(
        default=None, description="The failover pair that the two boxes are meanwhile, for `data: failover`."
    )
    dns: DnsPlan | None = Field(default=None, validate_default=True)
    nat: NatPlan | None = Field(default=None, validate_default=True)
    command: CommandPlan | None = Field(default=None, validate_default=True)
    probes: ProbePlan = Field(default_factory=ProbePlan)
    not_before: Moment | None = Field(default=None, description="Date and time with offset (ISO 8601) before which nothing switches.")

    @field_validator("dns", "nat", "command")
    @classmethod
    def _is_of_the_method(cls, value: Model | None, info: ValidationInfo) -> Model | None:
        """A field's own validator, so that its fault is told with all others, at its line."""
        method = info.data.get("method")
        if value is None and info.field_name == method:
            raise PydanticCustomError("missing", "is missing")
        if value is not None and method is not None and info.field_name != method:
            raise ValueError(f"does not belong to method: {method}")
        return value

    @property
    def kept(self) -> float:
        """Seconds for which a visitor may keep the former answer."""
        return float(self.dns.ttl) if self.dns is not None else 0.0

    @property
    def seconds(self) -> float:
        """How long the switch itself is expected to take."""
        other = self.nat or self.command
        usual = SHARED_SECONDS if self.shares_address else 1.0
        return other.seconds if other is not None else usual

    @property
    def shares_address(self) -> bool:
        """Whether the boxes have one service address in turn."""
        return self.method == "shared-ip"

    @property
    def public(self) -> str | None:
        """Where visitors come in, where that is one address for both boxes."""
        other = self.nat or self.command
        return str(other.public) if other is not None and other.public is not None else None

    @model_validator(mode="after")
    def _pair_is_told(self) -> CutoverPlan:
        if (self.data == "failover") != (self.failover is not None):
            raise ValueError("`data: failover` and the settings under `failover` belong together")
        if self.shares_address and self.by_failover:
            raise ValueError("`data: failover` needs a method of its own: in a pair an address moves with the role, not by shared-ip")
        return self

    @property
    def by_failover(self) -> bool:
        """Whether the two boxes are a failover pair meanwhile."""
        return self.data == "failover"
