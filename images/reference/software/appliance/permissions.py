"""Permissions of an API account, by the names that the documented API uses."""

from __future__ import annotations

from .widgets import Say

#: Those that are on or off; ``perm_command`` is deny, read_only or full_access.
PERMISSIONS = {
    "perm_backup": Say("Backup API"),
    "perm_vault_backup": Say("Allow Vault Encryption Key Access"),
    "perm_configuration": Say("Configuration API"),
    "perm_reporting_support": Say("Allow Access to Support Session Reports"),
}
FULL: dict[str, object] = {"perm_command": "full_access", **dict.fromkeys(PERMISSIONS, True)}
