"""References to secrets in plans. Every kind means what it means elsewhere; a plan names a file's key always, so that none is mistaken."""

from __future__ import annotations

import re

from kit.references import resolve_secret

REFERENCE = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^#\n]+#[A-Za-z0-9_.-]+|keyring:[^/\n]+/[^\n]+|prompt)$")
FORMS = "env:NAME, file:PATH#KEY, keyring:SERVICE/USER or prompt"

__all__ = ["FORMS", "REFERENCE", "resolve_secret"]
