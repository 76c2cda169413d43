"""What can go wrong with certificates, drawn as a tree. No other exception leaves a reader of this room.

CertsError                      certs
├── WrongPassphraseError        certs.wrong_passphrase    the passphrase was tried against a known algorithm, and it is wrong
├── PassphraseNeededError       certs.passphrase_needed   encrypted, and none was given
├── LegacyCipherError           certs.legacy_cipher       RC2, RC4 or DES that this process's OpenSSL does not offer
├── UnsupportedError            certs.unsupported         an algorithm, version or kind that nothing here knows
├── TruncatedError              certs.truncated           the file ends before its own header says it does
├── DamagedError                certs.damaged             it is not well-formed
├── TooCostlyError              certs.too_costly          it asks for an absurd amount of work or memory
├── KeystoreError               certs.java_keystore       JKS or JCEKS: keytool converts it
├── NoCertificateError          certs.no_certificate      there is none in what was given
├── KeyMismatchError            certs.key_mismatch        the key belongs to another certificate
├── AmbiguousError              certs.ambiguous           several fit; a person has to choose
├── NotWritableError            certs.not_writable        the target's profile cannot hold this
├── WriteMismatchError          certs.write_mismatch      what was written does not read back the same
├── HandshakeError              certs.handshake           the server answers, but no TLS comes about
├── NotServedError              certs.not_served          TLS works, and what is served is not what was expected
└── NoAnswerError               certs.no_answer           nothing answers there
"""

from __future__ import annotations

from kit.errors import Fact, FailedError, UnreachableError
from kit.plain import spell_out


class CertsError(FailedError):
    """Root of this room's errors."""

    code = "certs"

    def __init__(self, sentence: str, *, hint: str = "", **facts: Fact) -> None:
        # Names of files and of certificates, and what servers answer, stand in these sentences: anybody's text.
        super().__init__(spell_out(sentence), hint=spell_out(hint), **facts)


class WrongPassphraseError(CertsError):
    """The passphrase was tried against an algorithm that is known, and does not fit."""

    code = "certs.wrong_passphrase"


class PassphraseNeededError(CertsError):
    """It is encrypted, and no passphrase was given."""

    code = "certs.passphrase_needed"


class LegacyCipherError(CertsError):
    """It is encrypted with RC2, RC4 or DES, which this process's OpenSSL does not offer. Says nothing about the passphrase."""

    code = "certs.legacy_cipher"


class UnsupportedError(CertsError):
    """An algorithm, a version or a kind that nothing here knows."""

    code = "certs.unsupported"


class TruncatedError(CertsError):
    """It ends before its own header says it does."""

    code = "certs.truncated"


class DamagedError(CertsError):
    """It is not well-formed."""

    code = "certs.damaged"


class TooCostlyError(CertsError):
    """Reading it would take an absurd amount of work or memory."""

    code = "certs.too_costly"


class KeystoreError(CertsError):
    """A Java keystore in Sun's own format (JKS, JCEKS)."""

    code = "certs.java_keystore"


class NoCertificateError(CertsError):
    """There is no certificate in what was given."""

    code = "certs.no_certificate"


class KeyMismatchError(CertsError):
    """The private key belongs to another certificate."""

    code = "certs.key_mismatch"


class AmbiguousError(CertsError):
    """Several certificates or keys fit; a person has to choose."""

    code = "certs.ambiguous"


class NotWritableError(CertsError):
    """The target's profile cannot hold this."""

    code = "certs.not_writable"


class WriteMismatchError(CertsError):
    """What was written does not read back the same; nothing was kept."""

    code = "certs.write_mismatch"


class HandshakeError(CertsError):
    """The server answers, but no TLS session comes about."""

    code = "certs.handshake"


class NotServedError(CertsError):
    """TLS works, and what is served is not what was expected."""

    code = "certs.not_served"


class NoAnswerError(CertsError, UnreachableError):
    """Nothing answers at the address."""

    code = "certs.no_answer"
