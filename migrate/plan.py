"""What the user asked: the plan file, validated and frozen.

The models below are the reference of the plan file: ``docs/reference/plan.md`` is generated from their field descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import TypeVar

from migrate.plan_cutover import CutoverPlan
from migrate.plan_parts import Model, ReadyPlan, SegmentPlan
from migrate.plan_values import (
    AdminAddress,
    Duration,
    HostName,
    IpAddress,
    Name,
    Pin,
    Port,
    SecretRef,
    parse_number,
)


class AccountPlan(Model):
    """One account on one console."""

    user: Name = Field(default="admin", description="User name.")
    password: SecretRef = Field(description="Reference to its password.")


class ApiPlan(Model):
    """An API account of the site."""

    client_id: Name = Field(description="OAuth client id.")
    secret: SecretRef = Field(description="Reference to its secret.")


class Accounts(Model):
    """What opens a box."""

    site: AccountPlan = Field(description="Account for /login.")
    appliance: AccountPlan = Field(description="Account for /appliance.")
    api: ApiPlan | None = Field(default=None, description="API account; needed on the old box, restored with the backup on the new one.")


class ServicePlan(Model):
    """The address on which a box serves its visitors."""

    address: IpAddress = Field(description="As the box's own page names it.")
    prefix: int = Field(default=24, ge=1, le=128, description="Length of its network prefix.")
    reached_at: IpAddress | None = Field(default=None, description="Where visitors reach it, if that differs (NAT, port forwards).")

    @property
    def visible(self) -> str:
        """The address that visitors connect to."""
        return str(self.reached_at or self.address)


class MachinePlan(Model):
    """A virtual machine under libvirt."""

    hypervisor: str = Field(default="", description="libvirt URI; default: the daemon that this machine has, or one of our own.")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="Name of the machine on the hypervisor.")
    image: str = Field(default="", description="Image to provision from; empty for a machine that exists.")
    memory_mib: int = Field(default=0, ge=0, le=1_048_576, description="Memory in MiB; 0: what the image asks for.")
    cpus: int = Field(default=0, ge=0, le=256, description="Virtual processors; 0: what the image asks for.")
    network: str = Field(
        default="", description="Network of the hypervisor's that the provisioned machine is on; it must get `new.address` there by DHCP."
    )
    bridge: str = Field(default="", description="Bridge of the hypervisor's that it is on, instead of a network.")
    mac: str = Field(
        default="",
        pattern=r"^(52:54:00(:[0-9a-f]{2}){3})?$",
        description="Hardware address of its card on that network or bridge, for which DHCP keeps `new.address`; default: any.",
    )
    segment: SegmentPlan | None = Field(default=None, description="A second card of the provisioned machine; default: none.")
    ready: ReadyPlan | None = Field(default=None, description="How the provisioned machine shows that it is up; default: its health page.")

    @property
    def has_own_address(self) -> bool:
        """Whether the provisioned machine is on a network of the hypervisor's, not behind ports of this machine."""
        return bool(self.network or self.bridge)

    @model_validator(mode="after")
    def _cards_are_possible(self) -> MachinePlan:
        if self.network and self.bridge:
            raise ValueError("has network and bridge: name one of them")
        if self.mac and not self.has_own_address:
            raise ValueError("has mac without network or bridge: user networking chooses its own")
        if self.segment is not None and not self.image:
            raise ValueError("segment belongs to a machine that is provisioned; name its image")
        return self


class BoxPlan(Model):
    """What old and new have in common."""

    address: AdminAddress = Field(description="Administration address or name, reached from this machine.")
    port: Port = Field(default=443, description="TLS port of the administration address.")
    service: ServicePlan
    accounts: Accounts
    machine: MachinePlan | None = Field(default=None, description="Set when the box is a virtual machine.")


class ExpectPlan(Model):
    """Versions the plan was made for. A box that differs is refused (exit 5)."""

    site: str | None = Field(default=None, description="Site software of the old box, such as 22.1.4.")
    base: str | None = Field(default=None, description="Base software of the old box, such as 5.3.0.")


class OldPlan(BoxPlan):
    """The box to be replaced."""

    pin: Pin = Field(description="SHA-256 of the SPKI that the administration address serves. `boxshift init` reads it.")
    guid: str | None = Field(default=None, description="Appliance GUID; when given, another box at the address is refused.")
    serial: str | None = Field(default=None, description="Serial number; likewise.")
    factory_user: Name = Field(default="admin", description="User of the factory account that it has after its reset.")
    factory_password: SecretRef | None = Field(
        default=None, description="Reference to the password that it has after its reset; default: the vendor's."
    )
    expect: ExpectPlan = Field(default_factory=ExpectPlan)


class NewPlan(BoxPlan):
    """The box that replaces it: provisioned (`machine.image` given) or standing already (`pin` given)."""

    pin: Pin | None = Field(default=None, description="As for the old box; needed when the new box stands already.")
    factory_user: Name = Field(default="admin", description="User of the factory account on both consoles.")
    factory_password: SecretRef | None = Field(default=None, description="Reference to the factory password; default: the vendor's.")

    @property
    def provisioned(self) -> bool:
        """True when boxshift makes the machine."""
        return self.machine is not None and bool(self.machine.image)

    @model_validator(mode="after")
    def _knows_the_new_box(self) -> NewPlan:
        if not self.provisioned and self.pin is None:
            raise ValueError("needs either machine.image (to be provisioned) or pin (stands already)")
        return self


class SitePlan(Model):
    """The service that visitors use."""

    name: HostName = Field(description="Fully qualified name of the site.")
    port: Port = Field(default=443, description="TLS port under that name.")
    family: Literal["bomgar"] = Field(default="bomgar", description="Family of the appliance.")
    language: str | None = Field(default=None, pattern="^[a-z]{2}$", description="Language of the pages; default: recognised.")


class CertificatePlan(Model):
    """The site's certificate."""

    roots: Path | None = Field(default=None, description="PEM file with the private roots that clients trust; default: the system's.")
    safety_passphrase: SecretRef = Field(description="Encrypts the operator's copy of certificate and key.")


class BackupPlan(Model):
    """The site's backup."""

    password: SecretRef = Field(description="Encrypts the backup file.")
    history: bool = Field(default=True, description="Include logged history.")
    archive_recordings: bool = Field(default=True, description="Download recordings, which no backup holds, into the run's folder.")


class PackagesPlan(Model):
    """How the new box gets the old box's exact version."""

    source: Literal["box", "folder"] = Field(default="box", description="`box`: it downloads by itself. `folder`: uploaded from files.")
    folder: Path | None = Field(default=None, description="Folder with package files, for `source: folder`.")
    accept_eula: bool = Field(default=False, description="You accept the vendor's licence for every package on the path.")

    @model_validator(mode="after")
    def _folder_is_named(self) -> PackagesPlan:
        if self.source == "folder" and self.folder is None:
            raise ValueError("source: folder needs `folder`")
        return self


class VerifyPlan(Model):
    """What is looked at before the switch."""

    clock_tolerance: Duration = Field(default=30.0, description="Most a box's clock may be off.")
    commands: tuple[tuple[str, ...], ...] = Field(default=(), description="Your own checks: programs with arguments; exit 0 is good.")


class WatchPlan(Model):
    """What is looked at after the switch."""

    soak: Duration = Field(default=3600.0, description="How long the new box serves before the old one may go.")
    clients: float = Field(default=0.9, ge=0, le=1, description="Share of the Jump Clients connected before that must be back.")


class RetirePlan(Model):
    """The end of the old box."""

    hold: Duration = Field(default=86400.0, description="How long after the watch phase the old box is kept untouched; never shortened.")
    reset: bool = Field(default=True, description="Factory-reset the old box.")
    shut_down: bool = Field(default=True, description="Shut it down.")
    carrier: str = Field(default="", max_length=500, description="Carrier or asset note, printed on the return papers.")


class NotifyPlan(Model):
    """Who is told what happens, so that nobody has to sit and watch."""

    to: tuple[SecretRef, ...] = Field(
        min_length=1,
        max_length=20,
        description="References to addresses in Apprise's form, such as `mailto://…` or `json://…`.",
    )
    at: tuple[Literal["gates", "failures", "ends"], ...] = Field(
        default=("gates", "failures", "ends"), min_length=1, description="What is told: a gate that waits, a failure, the end of a run."
    )


class CommonPlan(Model):
    """What every procedure's plan has."""

    boxshift: Annotated[Literal[1], BeforeValidator(parse_number)] = Field(description="Version of the plan format.")
    site: SitePlan
    certificate: CertificatePlan
    backup: BackupPlan
    notify: NotifyPlan | None = Field(default=None, description="Who is told what happens; default: nobody.")


class Plan(CommonPlan):
    """One migration of one site."""

    procedure: Literal["migration"] = Field(default="migration", description="What this plan is for.")
    old: OldPlan
    new: NewPlan
    packages: PackagesPlan = Field(default_factory=PackagesPlan)
    cutover: CutoverPlan
    verify: VerifyPlan = Field(default_factory=VerifyPlan)
    watch: WatchPlan = Field(default_factory=WatchPlan)
    retire: RetirePlan = Field(default_factory=RetirePlan)

    @model_validator(mode="after")
    def _two_boxes(self) -> Plan:
        if (self.old.address, self.old.port) == (self.new.address, self.new.port):
            raise ValueError("old and new have the same administration address")
        if self.old.service.visible == self.new.service.visible:
            raise ValueError(
                f"old and new have the same service address; a switch by {self.cutover.method} needs two: give the new box one of its own"
            )
        return self

    @property
    def entrance(self) -> str:
        """Where visitors reach the new box after the switch."""
        shared = self.old.service.visible if self.cutover.shares_address else None
        return self.cutover.public or shared or self.new.service.visible

    @model_validator(mode="after")
    def _can_share_address(self) -> Plan:
        machine = self.new.machine
        if self.cutover.shares_address and self.new.provisioned and (machine is None or not machine.has_own_address):
            raise ValueError("method: shared-ip needs both boxes on one network: set new.machine.network or new.machine.bridge")
        if self.cutover.shares_address and self.old.service.address == self.new.service.address:
            raise ValueError("method: shared-ip needs an address of the new box's own, beside the one that it takes over")
        return self

    @field_validator("cutover", mode="after")
    @classmethod
    def _boxes_reach_each_other(cls, cutover: CutoverPlan, known: ValidationInfo) -> CutoverPlan:
        pair, site, new = cutover.failover, known.data.get("site"), known.data.get("new")
        if pair is None:
            return cutover
        if site is not None and site.name in {place.host for place in (pair.old, pair.new) if place is not None}:
            raise ValueError("failover names a box by the site's name, which moves; give each box's own address")
        if new is not None and new.provisioned and (pair.old is None or pair.new is None):
            raise ValueError("failover needs `old` and `new`: the forwards of a provisioned machine lead to it from here only")
        if pair.old is not None and pair.old == pair.new:
            raise ValueError("failover gives both boxes the same address")
        return cutover


# A plan of whatever procedure; a migration's where nothing is said.
P_co = TypeVar("P_co", bound=CommonPlan, default=Plan, covariant=True)
