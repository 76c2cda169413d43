"""What can go wrong with images and virtual machines: leaves of the kit's error tree."""

from __future__ import annotations

from kit.errors import ChangedError, DeadlineError, FailedError, RefusedError, ToolError, UnreachableError, UsageError


class RecipeError(UsageError):
    """A recipe that makes no sense; the sentence names every fault."""

    code = "images.recipe"


class UnknownImageError(UsageError):
    """No image in the store has that name or digest."""

    code = "images.unknown-image"


class UnknownMachineError(UsageError):
    """The ledger knows no machine of that name."""

    code = "images.unknown-machine"


class SpecError(UsageError):
    """A machine was asked for with values that no machine can have."""

    code = "images.spec"


class BuildError(ToolError):
    """A program that builds an image failed; the hint names the log."""

    code = "images.build"


class AlteredImageError(RefusedError):
    """A stored image is no longer what was stored: nothing boots from it."""

    code = "images.altered"


class ImageInUseError(RefusedError):
    """A machine's disk stands on this image."""

    code = "images.in-use"


class NotOursError(RefusedError):
    """The domain was not made by boxshift, or ledger and domain disagree: it is left alone."""

    code = "images.not-ours"


class RetiredError(RefusedError):
    """The machine was taken out of the hypervisor on purpose; it is not made again for the same request."""

    code = "images.retired"


class RequestChangedError(ChangedError):
    """The same request asks for another machine than before."""

    code = "images.request-changed"


class HypervisorUnreachableError(UnreachableError):
    """libvirt does not answer at its address."""

    code = "images.hypervisor-unreachable"


class HypervisorError(FailedError):
    """libvirt answers and could not do it."""

    code = "images.hypervisor"


class AddressTakenError(FailedError):
    """A port that should lead into a machine is used by something else on this machine."""

    code = "images.address-taken"


class GuestSilentError(UnreachableError):
    """The agent inside the machine does not answer."""

    code = "images.guest-silent"


class GuestError(FailedError):
    """The agent answers and could not run the program."""

    code = "images.guest"


class SpaceError(FailedError):
    """No room left for a disk."""

    code = "images.space"


class NotReadyError(DeadlineError):
    """The machine did not become ready; the sentence says how far it came, the facts hold its console's last lines."""

    code = "images.not-ready"


class SavedStateError(FailedError):
    """A saved machine is damaged, or saved in a form that is not known: nothing is restored from it."""

    code = "images.saved-state"


class IdentityError(FailedError):
    """A copy of a saved machine did not take an identity of its own; it is not used."""

    code = "images.identity"


class TopologyError(UsageError):
    """A topology file that makes no sense; the sentence names every fault with its line."""

    code = "images.topology"


class SegmentError(FailedError):
    """A machine does not reach another one on the private segment that both are on."""

    code = "images.segment"
