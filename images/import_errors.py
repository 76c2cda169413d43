"""What can go wrong when a foreign image is read: leaves of the kit's error tree."""

from __future__ import annotations

from kit.errors import RefusedError, ToolError, UnreachableError, UsageError, WaitingError


class UnknownFormatError(UsageError):
    """The content of a file is of no kind that can be imported."""

    code = "images.unknown-format"


class SourceError(UsageError):
    """What should be imported is not named in a way that leads to it."""

    code = "images.source"


class PropertyError(UsageError):
    """A value for a property of an appliance that it does not have, or does not allow."""

    code = "images.property"


class HostileSourceError(RefusedError):
    """The source names files of this computer, climbs out of its folder, or is absurdly large: nothing of it is used."""

    code = "images.hostile"


class DamagedSourceError(RefusedError):
    """The source ends too early, or its parts contradict each other."""

    code = "images.damaged"


class ChecksumError(RefusedError):
    """A file is not the one whose checksum was given."""

    code = "images.checksum"


class ManifestError(RefusedError):
    """The manifest cannot be read, or the files are not those that it lists."""

    code = "images.manifest"


class SignatureError(RefusedError):
    """The manifest's signature is wrong, or not by someone who is trusted where that was asked for."""

    code = "images.signature"


class OvfError(RefusedError):
    """The OVF descriptor cannot be read, or describes no machine that can exist."""

    code = "images.ovf"


class EulaError(WaitingError):
    """The appliance comes with a licence that nobody has accepted yet."""

    code = "images.eula"


class ConvertError(ToolError):
    """qemu-img could not read or write a disk."""

    code = "images.convert"


class DownloadError(UnreachableError):
    """An image could not be loaded from its address."""

    code = "images.download"
