"""Import a bundle: manifest, signature, descriptor, licence, size, properties, and only then its disks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from images.archive import Bundle
from images.hardware import DeclaredProperty
from images.import_disks import ReadyMachine, collect_kernel, collect_media, files_needed, store_machine
from images.import_errors import EulaError, ManifestError, OvfError, SignatureError, SourceError
from images.import_request import ImportReport, ImportRequest, Person, PlannedImage, choose_deployment, parse_image_name, plan_name
from images.manifest import Line, check_manifest, find_manifest, parse_manifest, verify_digests, verify_listed
from images.manifest_signature import UNSIGNED, Signer, Trust, check_signer, read_anchors, verify_signature
from images.ovf.deployment import find_deployment
from images.ovf.hardware import PlannedMachine, plan_machine
from images.ovf.model import Deployment, Envelope, VirtualSystem
from images.ovf.properties import answer, apply_answers
from images.ovf.read import parse_ovf
from images.ovf.xml import LONGEST
from images.span import Span
from images.store import Image, Origin, Store
from kit.findings import Finding, Severity
from kit.progress import Progress


@dataclass(frozen=True)
class Shipment:
    """A bundle, the name of its descriptor, and what the source is called."""

    bundle: Bundle
    descriptor: str
    source: str

    @property
    def text(self) -> Span:
        span = self.bundle.find(self.descriptor)
        if span is None:
            raise SourceError(f"{self.descriptor} is not there.")
        return span


def import_appliance(
    shipment: Shipment, request: ImportRequest, store: Store, work: Path, *, person: Person, progress: Progress
) -> ImportReport:
    """All machines of the bundle, or the one that is asked for. ``work``: a folder for what has to be unpacked."""
    bundle = shipment.bundle
    lines, signer = _read_manifest(shipment, request)
    if lines is not None:  # the descriptor first: nothing of it is believed before
        own = tuple(line for line in lines if line.name == shipment.descriptor)
        verify_listed(own, (shipment.descriptor,))
        verify_digests(bundle, own)
    envelope = parse_ovf(shipment.text.read(0, LONGEST + 1))
    needed = files_needed(bundle, envelope)
    if lines is not None:
        verify_listed(lines, needed)
    systems = _choose_systems(envelope, request)
    size = choose_deployment(envelope.deployments, request.deployment, person)
    deployment = find_deployment(envelope.deployments, size) if size else None
    machines = _plan(envelope, systems, deployment, request, person)
    _accept_eulas(systems, request, person)
    if lines is not None:
        verify_digests(bundle, lines, progress=progress)
    found = [_make_ready(bundle, name, planned, work, request, progress) for name, planned in machines]
    findings = [*check_manifest(lines, bundle, (shipment.descriptor, *needed)), *check_signer(signer)]
    findings += [one for machine in found for one in _check(machine)]
    manifest = "checked" if lines is not None else "none"
    origin = Origin(shipment.source, manifest, signer.trust.value, signer.name, tuple(findings))
    images: tuple[Image, ...] = ()
    if not request.dry_run:
        images = tuple(store_machine(store, one, origin, progress=progress) for one in found)
    shown = tuple(PlannedImage(one.name, one.planned.hardware, tuple(medium.words for medium in one.media)) for one in found)
    eulas = tuple(dict.fromkeys(eula.text for system in systems for eula in system.eulas))
    return ImportReport(images, shown, tuple(findings), manifest, signer.trust.value, signer.name, eulas)


def _make_ready(bundle: Bundle, name: str, planned: PlannedMachine, work: Path, request: ImportRequest, progress: Progress) -> ReadyMachine:
    own = work / f"machine-{name}"
    own.mkdir()
    media = collect_media(bundle, planned, own, limits=request.limits, progress=progress)
    return ReadyMachine(name, planned, media, collect_kernel(bundle, planned, own, progress=progress))


def _read_manifest(shipment: Shipment, request: ImportRequest) -> tuple[tuple[Line, ...] | None, Signer]:
    """The manifest's lines, None where there is none, and who signed it."""
    anchors = read_anchors(request.anchors)
    found = find_manifest(shipment.bundle, shipment.descriptor)
    cert = find_manifest(shipment.bundle, shipment.descriptor, ".cert")
    if found is None:
        if cert is not None:
            raise ManifestError("The bundle has a signature but no manifest that it could be over.", hint="Load the bundle again.")
        signer = UNSIGNED
    else:
        manifest = found[1].read(0, (1 << 20) + 1)
        signer = UNSIGNED if cert is None else verify_signature(cert[1].read(0, (1 << 20) + 1), manifest, found[0], anchors=anchors)
    if request.must_be_signed and signer.trust is not Trust.TRUSTED:
        raise SignatureError(
            f"The bundle is {signer.trust.value}{f' ({signer.reason})' if signer.reason else ''}, and a trusted signature was asked for.",
            hint="Give the certificate of the vendor's authority with --trust.",
        )
    return (parse_manifest(manifest) if found is not None else None), signer


def _choose_systems(envelope: Envelope, request: ImportRequest) -> tuple[VirtualSystem, ...]:
    if not request.system:
        return envelope.systems
    found = tuple(one for one in envelope.systems if request.system in (one.id, one.name))
    if len(found) != 1:
        raise SourceError(
            f"The bundle has no machine {request.system[:100]!r}.", hint=f"Its machines: {', '.join(one.id for one in envelope.systems)}."
        )
    return found


def _plan(
    envelope: Envelope, systems: Sequence[VirtualSystem], deployment: Deployment | None, request: ImportRequest, person: Person
) -> list[tuple[str, PlannedMachine]]:
    base = request.name or plan_name(Path(request.source.partition("?")[0]).name)
    planned = []
    answers = list(request.answers)
    for system in systems:
        own = [pair for pair in answers if pair[0] in {one.key for one in system.properties}]
        asked = _ask(replace(system, properties=apply_answers(system.properties, own if len(systems) > 1 else answers)), person)
        name = base if len(systems) == 1 else parse_image_name(plan_name(f"{base}-{system.id}"))
        planned.append((name, plan_machine(envelope, asked, deployment)))
    unknown = [key for key, _ in answers if not any(key == one.key for system in systems for one in system.properties)]
    if unknown:
        apply_answers((), [(unknown[0], "")])
    if len({name for name, _ in planned}) < len(planned):
        raise OvfError("Two machines of the bundle would get one name.", hint="Import them one by one: --system ID --name NAME.")
    return planned


def _ask(system: VirtualSystem, person: Person) -> VirtualSystem:
    done = []
    for one in system.properties:
        said = person.answer(one) if one.is_open else None
        done.append(_anchor(answer(one, said) if said is not None else one))
    return replace(system, properties=tuple(done))


def _anchor(one: DeclaredProperty) -> DeclaredProperty:
    """A file is meant from here, wherever a machine is started from later."""
    kind, _, rest = one.reference.partition(":")
    return replace(one, reference=f"file:{Path.cwd() / rest}") if kind == "file" else one


def _accept_eulas(systems: Sequence[VirtualSystem], request: ImportRequest, person: Person) -> None:
    texts = dict.fromkeys(eula.text for system in systems for eula in system.eulas)
    if request.accept_eula or request.dry_run:
        return
    for text in texts:
        if not person.accept(text):
            raise EulaError("The appliance's licence was not accepted.", hint="Nothing was imported.")


def _check(machine: ReadyMachine) -> Iterator[Finding]:
    hardware = machine.planned.hardware
    yield from machine.planned.findings
    for medium in machine.media:
        yield from medium.findings
    missing = [one.key for one in hardware.properties if one.is_open]
    if missing:
        yield Finding(
            "ovf.property-open",
            Severity.WARNING,
            f"It asks for {', '.join(missing[:10])}, and nobody has answered.",
            "Import it again with --property KEY=VALUE; it cannot be started as meant before.",
            machine.name,
        )
