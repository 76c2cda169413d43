"""Bundles that the tests make: disks of every format, descriptors, archives, manifests, signatures."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kit.process import need_program, run

MIB = 1 << 20
NAMESPACES = """xmlns="http://schemas.dmtf.org/ovf/envelope/{version}" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/{version}"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vbox="http://www.virtualbox.org/ovf/machine" """


def qemu_img(*argv: str | Path) -> bytes:
    return run([need_program("qemu-img", package="qemu-utils"), *argv], timeout=60).out


def make_raw(path: Path, *, mib: int = 2, mark: bytes = b"hello") -> Path:
    """A raw disk with a boot mark, and something to recognise in its middle."""
    with path.open("wb") as sink:
        sink.truncate(mib * MIB)
        sink.seek(510)
        sink.write(b"\x55\xaa")
        sink.seek(MIB)
        sink.write(mark)
    return path


def make_disk(folder: Path, format_: str, *options: str, name: str = "", mib: int = 2, mark: bytes = b"hello") -> Path:
    """The same disk in another format, by QEMU's word."""
    raw = make_raw(folder / "made.raw", mib=mib, mark=mark)
    target = folder / (name or f"disk.{format_}")
    more = ["-o", ",".join(options)] if options else []
    qemu_img("convert", "-f", "raw", "-O", format_, *more, raw, target)
    raw.unlink()
    return target


def make_vmdk(folder: Path, name: str = "disk1.vmdk", **more: object) -> Path:
    return make_disk(folder, "vmdk", "subformat=streamOptimized", name=name, **more)  # type: ignore[arg-type]


def content_of(disk: Path) -> str:
    """SHA-256 of what a machine sees of a qcow2 disk."""
    raw = disk.with_suffix(".plain")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", disk, raw)
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    raw.unlink()
    return digest


def plain_content(*, mib: int = 2, mark: bytes = b"hello") -> str:
    content = bytearray(mib * MIB)
    content[510:512] = b"\x55\xaa"
    content[MIB : MIB + len(mark)] = mark
    return hashlib.sha256(content).hexdigest()


def item(instance: int, kind: int, attributes: str = "", extra: str = "", *, tag: str = "Item", **values: str) -> str:
    """A hardware item; ``values`` by CIM's names."""
    told = {"ElementName": f"thing {instance}", "InstanceID": str(instance), "ResourceType": str(kind)} | values
    children = "".join(f"<rasd:{key}>{value}</rasd:{key}>" for key, value in told.items())
    return f"<{tag} {attributes}>{children}{extra}</{tag}>"


CPU = item(1, 3, VirtualQuantity="2", AllocationUnits="hertz * 10^6")
MEMORY = item(2, 4, VirtualQuantity="512", AllocationUnits="byte * 2^20")
SCSI = item(3, 6, ResourceSubType="lsilogic", Address="0")
DISK = item(4, 17, Parent="3", AddressOnParent="0", HostResource="ovf:/disk/disk1")
CARD = item(5, 10, ResourceSubType="VmxNet3", Connection="lan", AddressOnParent="7")
HARDWARE = CPU + MEMORY + SCSI + DISK + CARD
FILES = '<File ovf:id="file1" ovf:href="disk1.vmdk"/>'
DISKS = '<Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^20"/>'


def system(hardware: str = HARDWARE, *, id_: str = "box", more: str = "", transport: str = "") -> str:
    told = f'ovf:transport="{transport}"' if transport else ""
    return f"""<VirtualSystem ovf:id="{id_}"><Info>a machine</Info><Name>{id_}</Name>{more}
<VirtualHardwareSection {told}><Info>hardware</Info><System><vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType></System>
{hardware}</VirtualHardwareSection></VirtualSystem>"""


def envelope(body: str = "", *, files: str = FILES, disks: str = DISKS, more: str = "", version: int = 1) -> bytes:
    """A descriptor; ``body`` the systems, ``more`` what comes before them."""
    networks = '<NetworkSection><Info>n</Info><Network ovf:name="lan"/><Network ovf:name="wan"/></NetworkSection>'
    return f"""<?xml version="1.0"?><Envelope {NAMESPACES.format(version=version)}><References>{files}</References>
<DiskSection><Info>d</Info>{disks}</DiskSection>{networks}{more}{body or system()}</Envelope>""".encode()


def manifest(files: Mapping[str, bytes], algorithm: str = "sha256", form: str = "{word}({name})= {digest}\n") -> bytes:
    word = algorithm.upper()
    return "".join(
        form.format(word=word, name=name, digest=hashlib.new(algorithm, content).hexdigest()) for name, content in files.items()
    ).encode()


def make_ova(path: Path, files: Mapping[str, bytes], *, odd: Sequence[tarfile.TarInfo] = ()) -> Path:
    """A tar archive; ``odd`` members come last, without content."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
        for about in odd:
            archive.addfile(about)
    return path


def make_appliance(folder: Path, descriptor: bytes | None = None, *, algorithm: str = "sha256", disk: bytes | None = None) -> Path:
    """A whole OVA with one disk and a manifest."""
    content = disk if disk is not None else make_vmdk(folder).read_bytes()
    files = {"box.ovf": descriptor or envelope(), "disk1.vmdk": content}
    return make_ova(folder / "box.ova", {"box.ovf": files["box.ovf"], "box.mf": manifest(files, algorithm), "disk1.vmdk": content})


class Vendor:
    """An authority, and a certificate of its for signing."""

    def __init__(self, *, elliptic: bool = False, days: int = 30, usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._issue("Root", self._root_key.public_key(), "Root", authority=True, days=days)
        self._key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)
        self.leaf = self._issue("Vendor", self._key.public_key(), "Root", authority=False, days=days, usage=usage)

    def sign(self, content: bytes, name: str = "box.mf", algorithm: str = "SHA256") -> bytes:
        """The ``.cert`` file."""
        kind = getattr(hashes, algorithm)()
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(content, padding.PKCS1v15(), kind)
        else:
            signature = self._key.sign(content, ec.ECDSA(kind))
        return f"{algorithm}({name})= {signature.hex()}\n".encode() + self.leaf.public_bytes(serialization.Encoding.PEM)

    def write_root(self, path: Path) -> Path:
        path.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))
        return path

    def _issue(self, name: str, key, issuer: str, *, authority: bool, days: int, usage=None) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        end = now + dt.timedelta(days=days)
        subject, above = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer))
        built = x509.CertificateBuilder(above, subject, key, x509.random_serial_number(), min(now, end) - dt.timedelta(days=60), end)
        built = built.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        built = built.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key()), critical=False)
        built = built.add_extension(
            x509.KeyUsage(
                digital_signature=not authority, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
        if usage is not None:
            built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return built.sign(self._root_key, hashes.SHA256())


def codes(findings) -> set[str]:
    return {one.code for one in findings}


def info(disk: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", disk))
    return told
