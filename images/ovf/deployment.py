"""Which size of an appliance is meant, and the hardware items that make it up."""

from __future__ import annotations

from collections.abc import Sequence

from images.import_errors import SourceError
from images.ovf.model import Deployment, Item


def find_default(deployments: Sequence[Deployment]) -> Deployment | None:
    """The size that is meant where nobody says one: the marked one, else the first; None where there is only one size."""
    return next((one for one in deployments if one.default), deployments[0] if deployments else None)


def find_deployment(deployments: Sequence[Deployment], wanted: str) -> Deployment:
    """The size of that id or label.

    Raises:
        SourceError: there is none.

    """
    found = next((one for one in deployments if wanted in (one.id, one.label)), None)
    if found is None:
        known = ", ".join(one.id for one in deployments) or "none: it comes in one size"
        raise SourceError(f"The appliance has no size {wanted[:100]!r}.", hint=f"Its sizes: {known}.")
    return found


def choose_items(items: Sequence[Item], deployment: Deployment | None) -> tuple[Item, ...]:
    """The items of one size: those for all sizes, with the size's own in the place of those of the same instance. Ranges are left out."""
    size = deployment.id if deployment else ""
    real = [item for item in items if item.bound in ("", "normal")]
    meant = [item for item in real if not item.configurations or size in item.configurations]
    special = {item.instance for item in meant if item.configurations and item.instance}
    return tuple(item for item in meant if item.configurations or item.instance not in special)
