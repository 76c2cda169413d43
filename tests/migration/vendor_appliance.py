"""An appliance as a vendor ships it: an OVA with a licence and questions, and no agent of anybody inside.

It is the reference appliance's software with a start-up of its own: the password that both consoles begin with is no published one, it is
asked before the first start and read from the CD with the properties.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

from images.build import build
from images.export import ExportFormat, describe_machine, export_image
from images.hardware import Card, DeclaredProperty, MachineHardware
from images.home import Home, ensure_home
from images.recipe import FileSet, Recipe
from images.reference.packages import make_factory, make_vendor
from images.reference_image import FACTORY, read_reference_recipe
from images.store import INITRD, KERNEL, Image, Imported, Store

FILES = Path(__file__).parent / "vendor_files"
NAME = "vendor-appliance"
QUESTIONS = (
    DeclaredProperty("box.name", "string", label="Host name", askable=True, longest=63),
    DeclaredProperty("box.size", "string", label="Size", default="small", askable=True, choices=("small", "large")),
    DeclaredProperty("admin.password", "string", label="First password", askable=True, password=True, shortest=8),
)


def make_vendor_ova(home: Home, folder: Path, vendor: Path, *, update_server: str) -> Path:
    """Build the vendor's image and pack it as an OVA in ``folder``. The Debian packages below it are the reference appliance's.

    ``vendor``: the folder with the vendor's keys and packages; ``update_server``: where its boxes look for them.
    """
    factory = make_factory(make_vendor(vendor), folder / "factory", update_server=update_server)
    image = build(plan_vendor_recipe(folder), home, extra=(FileSet(factory, FACTORY),))
    shop = Store(ensure_home(Home(folder / "shop")))
    with shop.importing() as work:
        for name in ("disk.qcow2", KERNEL, INITRD):
            shutil.copyfile(image.folder / name, work / name)
        sold = shop.add(work, Imported(NAME, "", image.kernel_arguments, 768, 1, _declare(image)))
    Store(home).remove(image)
    return export_image(shop, sold, folder / f"{NAME}.ova", ExportFormat.OVA).path


def plan_vendor_recipe(folder: Path) -> Recipe:
    """The reference recipe without the agents, and with the vendor's start-up."""
    reference = read_reference_recipe()
    software = folder / "software"
    (own,) = (one for one in reference.files if one.target == PurePosixPath("/opt/appliance/appliance"))
    shutil.copytree(own.source, software)
    accounts = software / "accounts.py"
    published = 'FACTORY_NAME, FACTORY_PASSWORD = "admin", "password"'
    text = accounts.read_text()
    assert published in text
    asked = 'FACTORY_NAME, FACTORY_PASSWORD = "admin", open("/run/vendor/password").read()'
    accounts.write_text(text.replace(published, asked))
    files = tuple(one for one in reference.files if one != own and one.source.name != "guest")
    enable = tuple(one for one in reference.enable if one != "boxshift-identity.service")
    return replace(
        reference,
        name=NAME,
        files=(*files, FileSet(software, own.target), FileSet(FILES, PurePosixPath("/"))),
        enable=(*enable, "vendor-setup.service"),
        mask=(*reference.mask, "qemu-guest-agent.service"),
    )


def _declare(image: Image) -> MachineHardware:
    machine = describe_machine(image)
    return replace(machine, cards=(Card("virtio", "front"),), properties=QUESTIONS, transports=("iso",), description="Vendor's appliance")
