"""What every part of a plan file is, and the parts about machines and about how two boxes reach each other."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from migrate.plan_values import AdminAddress, CardAddress, Name, PageWord, Port, SecretRef


class Model(BaseModel):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ReadyPlan(Model):
    """The page by which a provisioned machine is found ready."""

    page: PageWord = Field(description="What answers, inside the machine: `tls`, `https:8443/login` or `http/status`.")
    status: int | None = Field(default=None, ge=100, le=599, description="HTTP status that counts; default: any below 500.")
    text: str = Field(default="", max_length=200, description="Text that must stand in the page.")

    @model_validator(mode="after")
    def _asks_a_page(self) -> ReadyPlan:
        if self.page.startswith(("tls", "ssh")) and (self.status is not None or self.text):
            raise ValueError("ssh and tls have no status and no text; name a page with https")
        return self


class SegmentPlan(Model):
    """A private segment on which machines that boxshift made on one computer reach each other."""

    name: Name = Field(description="Name of the segment, which another machine is on already: `boxshift lab list --json` tells.")
    address: CardAddress = Field(description="What this machine has there, with its prefix.")


class ReachPlan(Model):
    """Where a box answers another one: an address of its own, never the name or address that the two share."""

    host: AdminAddress = Field(description="Host name or IP address.")
    port: Port = Field(default=443, description="TLS port.")


class FailoverPlan(Model):
    """How the new box joins the old one as its backup. Each is named to the other by an address of its own."""

    pre_shared_key: SecretRef = Field(
        description="Reference to the Inter-appliance Communication Pre-shared Key. A key that the old box has already is left as it is, "
        "and has to be this one."
    )
    old: ReachPlan | None = Field(default=None, description="Where the new box reaches the old one; default: `old.address` and `old.port`.")
    new: ReachPlan | None = Field(default=None, description="Where the old box reaches the new one; default: `new.address` and `new.port`.")
