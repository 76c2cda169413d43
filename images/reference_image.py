"""The reference appliance's image: its recipe, plus the factory folder with the packages and keys of this home's own vendor."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from images.build import build
from images.home import Home, ensure_home
from images.locking import hold
from images.recipe import FileSet, Recipe, read_recipe
from images.reference.packages import make_factory, make_vendor
from images.store import Image
from kit.progress import Progress

RECIPE = Path(__file__).parent / "reference" / "recipe.yaml"
FACTORY = PurePosixPath("/opt/appliance/factory")
# The update server of the lab as a guest with user networking sees this computer's loopback.
HOST_SEEN_FROM_GUEST = "10.0.2.2"
UPDATE_PORT = 8099
UPDATE_SERVER = f"http://{HOST_SEEN_FROM_GUEST}:{UPDATE_PORT}"


def vendor_folder(home: Home) -> Path:
    """Where the home's vendor keeps its keys and the packages that its update server sells."""
    return home.root / "vendor"


def read_reference_recipe() -> Recipe:
    """The recipe that ships with boxshift."""
    return read_recipe(RECIPE)


def ensure_reference_image(home: Home, *, profile: str = "current", progress: Progress | None = None) -> Image:
    """Build the reference appliance's image where it is not in the store yet. ``profile``: the releases that its boxes are born with.

    Raises:
        As :func:`images.build.build`.

    """
    ensure_home(home)
    with hold(home.locks / "vendor", what="making the vendor's packages", timeout=120):
        vendor = vendor_folder(home)
        vendor.mkdir(mode=0o700, exist_ok=True)
        make_vendor(vendor)
        factory = make_factory(vendor, home.cache / f"factory-{profile}", profile, update_server=UPDATE_SERVER)
    return build(read_reference_recipe(), home, extra=(FileSet(factory, FACTORY),), progress=progress)
