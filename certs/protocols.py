"""What services speak before TLS."""

from __future__ import annotations

from enum import Enum


class Protocol(Enum):
    """What a service speaks before TLS; ``TLS`` itself for those that begin with it."""

    TLS = "tls"
    SMTP = "smtp"
    IMAP = "imap"
    LDAP = "ldap"
    POSTGRES = "postgres"
    XMPP = "xmpp"

    @property
    def port(self) -> int:
        """The usual port."""
        return {"tls": 443, "smtp": 25, "imap": 143, "ldap": 389, "postgres": 5432, "xmpp": 5222}[self.value]
