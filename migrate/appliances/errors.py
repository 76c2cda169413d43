"""Leaves of the error tree that appliance families raise. The table of what the engine does with each is in the contract."""

from __future__ import annotations

from kit.errors import ChangedError, FailedError, RejectedError, UnexpectedError, UnreachableError


class BusyError(UnreachableError):
    """It answers that it cannot serve now (HTTP 502, 503, 504): a restore or an installation runs. Worth another try."""

    code = "appliance-busy"


class UnhealthyError(FailedError):
    """It answers, and says of itself that something keeps it from working (a full disk, a damaged database)."""

    code = "appliance-unhealthy"


class WrongKeyError(RejectedError):
    """The address serves another TLS key than the one pinned. Nothing was sent."""

    code = "appliance-key"


class WrongBoxError(ChangedError):
    """The box is not the one it was taken for. Nothing was touched."""

    code = "appliance-identity"


class LoginRefusedError(RejectedError):
    """User name or password is refused. This process does not try them again."""

    code = "login-refused"


class LockedOutError(RejectedError):
    """The account or this machine's address is locked after failed logins."""

    code = "login-locked"


class PasswordExpiredError(RejectedError):
    """The console wants a new password before it lets anyone in."""

    code = "password-expired"


class ApiForbiddenError(RejectedError):
    """The API account may not do this; it has no permission for it, or this version has no such interface."""

    code = "api-forbidden"


class SessionLostError(UnexpectedError):
    """The session ended while a change was being submitted; whether it was done must be read from the box."""

    code = "session-lost"


class PackageRefusedError(RejectedError):
    """The box refuses a package: signature, prerequisite, or file."""

    code = "package-refused"


class BackupRefusedError(RejectedError):
    """A backup file or its password is refused: truncated, altered, of another version, wrong password."""

    code = "backup-refused"


class FailoverRefusedError(RejectedError):
    """The box refuses what was asked of its failover pair: keys or versions differ, the peer does not answer, it is in another pair."""

    code = "failover-refused"


class DataSyncFailedError(FailedError):
    """A data sync between the boxes of a pair began and failed. The backup is as it was before."""

    code = "data-sync-failed"


class RoleChangeFailedError(FailedError):
    """A change of roles in a pair began and failed."""

    code = "role-change-failed"


class CertificateRefusedError(RejectedError):
    """The box refuses a certificate, its key or the passphrase."""

    code = "certificate-refused"
