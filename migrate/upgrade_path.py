"""The path of an upgrade: which packages, in which order. Base packages first and without wait, then the site's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrate.checks import parse_version
from migrate.facts import PackageKind, PackageOffer, Version


@dataclass(frozen=True)
class PathItem:
    """One package of the path. ``needs``: what greys it out today, in the page's words; the packages before it are to cure that.

    ``label`` names it in the runbook, such as ``site-22.1.4``: ``name`` is in the page's words, and may hold anything.
    """

    label: str
    name: str
    kind: PackageKind
    version: str
    build: str
    needs: str = ""


@dataclass(frozen=True)
class UpgradePath:
    """Packages in the order of installing, from what the box runs to what it is to run."""

    base: Version
    site: Version
    items: tuple[PathItem, ...]
    greyed: tuple[PackageOffer, ...] = ()

    @property
    def site_items(self) -> tuple[PathItem, ...]:
        """Those that clients follow."""
        return tuple(item for item in self.items if item.kind is PackageKind.SITE)

    def ends_at(self, kind: PackageKind) -> str:
        """The version after the last package."""
        installed = self.base if kind is PackageKind.BASE else self.site
        return next((item.version for item in reversed(self.items) if item.kind is kind), installed.version)


def plan_path(offers: Sequence[PackageOffer], base: Version, site: Version, to_base: str, to_site: str) -> UpgradePath:
    """Every package on offer between what is installed and the targets (empty: the newest), base first, low versions first.

    No package is left out because a later one might do without it: the guide wants the ones between, in order.
    """
    sites = _between(offers, PackageKind.SITE, site, to_site)
    bases = _between(offers, PackageKind.BASE, base, to_base)
    taken = (*bases, *sites)
    items = tuple(PathItem(_label(offer), offer.name, offer.kind, offer.version, offer.build, offer.missing) for offer in taken)
    return UpgradePath(base, site, items, tuple(offer for offer in offers if offer.missing and offer not in taken))


def _between(offers: Sequence[PackageOffer], kind: PackageKind, installed: Version, to: str) -> tuple[PackageOffer, ...]:
    here, there = parse_version(installed.version), parse_version(to)
    found = [offer for offer in offers if offer.kind is kind and parse_version(offer.version) > here]
    fitting = sorted((offer for offer in found if not to or parse_version(offer.version) <= there), key=_order)
    return tuple({_label(offer): offer for offer in fitting}.values())  # of one version the latest build


def _order(offer: PackageOffer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return parse_version(offer.version), parse_version(offer.build)


def _label(offer: PackageOffer) -> str:
    return f"{offer.kind.value}-{'.'.join(str(part) for part in parse_version(offer.version))}"
