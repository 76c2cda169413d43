"""Security > Certificates of /appliance."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, pkcs12

from kit.errors import DeadlineError, RefusedError, UnexpectedError
from kit.secret import Secret
from migrate.appliances.bomgar.catalogue import CERTIFICATES
from migrate.appliances.bomgar.console import Console
from migrate.appliances.bomgar.forms import Button, Entry, Field, FieldKind, Form, Link, Row, Table, View, fill
from migrate.appliances.bomgar.patience import ensure, twice
from migrate.appliances.bomgar.words import Term
from migrate.appliances.errors import CertificateRefusedError
from migrate.appliances.http import Upload
from migrate.appliances.pinned import read_fingerprint
from migrate.facts import CertificateRow

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.*?-----END (?:[A-Z]+ )?PRIVATE KEY-----", re.DOTALL)


def read_certificates(console: Console) -> tuple[CertificateRow, ...]:
    """All rows of the table, in the page's order."""
    view = console.open(CERTIFICATES)
    table = _table(view)
    return tuple(_parse_row(view, table, row) for row in table.rows if table.text(row, view.words, Term.ISSUED_TO))


def export_certificate(console: Console, wanted: CertificateRow, passphrase: Secret) -> bytes:
    """Certificate, chain and key, the key under the passphrase; the bytes are of what the box writes: PEM or PKCS#12.

    Raises:
        CertificateRefusedError: the box does not give it.

    """
    parts = (Term.CERTIFICATE, Term.PRIVATE_KEY, Term.CERTIFICATE_CHAIN)
    content = twice(lambda: _export(console, wanted, parts, passphrase))
    if _leaf(content, passphrase) is None:
        raise UnexpectedError(f"{console.client.where} exports something that is neither PEM nor PKCS#12 with a certificate and its key.")
    return content


def _export(console: Console, wanted: CertificateRow, parts: Sequence[Term], passphrase: Secret | None) -> bytes:
    page = _open_export(console, wanted)
    form, button = page.need_button(Term.EXPORT)
    all_parts = (Term.CERTIFICATE, Term.PRIVATE_KEY, Term.CERTIFICATE_CHAIN)
    entries = [Entry(page.need_field(form, part, kinds=(FieldKind.TICK,)), value=part in parts) for part in all_parts]
    if passphrase is not None:
        entries += [Entry(f, passphrase) for f in _passphrases(page, form.fields)]
    answer = console.fetch(fill(form, entries, press=button))
    if answer.status != 200 or answer.type == "text/html":
        said = console.explain(answer)
        raise CertificateRefusedError(f"{console.client.where} does not export the certificate: {said}", status=answer.status)
    return answer.content


def _open_export(console: Console, wanted: CertificateRow) -> View:
    """Tick the row, choose Export in the drop-down, and go to the page that asks what to export. Changes nothing."""
    view = console.open(CERTIFICATES)
    row = _find_row(view, wanted)
    tick = next(((form, c) for form, c in view.in_row(row) if isinstance(c, Field) and c.kind is FieldKind.TICK), None)
    if tick is None:
        raise view.lacking("no tick box in the row of", Term.ISSUED_TO)
    form, box = tick
    choice = view.need_field(form, Term.ACTION, kinds=(FieldKind.SELECT,))
    option = next((o.text for o in choice.options if view.words.match(Term.EXPORT, o.text)), None)
    go = next((b for b in form.buttons if view.words.match_any(Term.APPLY, b.texts)), None)
    if option is None or go is None:
        raise view.lacking("no drop-down with", Term.EXPORT)
    return console.press(fill(form, (Entry(box, value=True), Entry(choice, option)), press=go))


def _passphrases(view: View, fields: Sequence[Field]) -> list[Field]:
    terms = (Term.PASSPHRASE, Term.CONFIRM_PASSPHRASE)
    return [f for f in fields if f.kind is FieldKind.PASSWORD and any(view.words.match_any(term, f.labels) for term in terms)]


def import_certificate(console: Console, content: bytes, filename: str, passphrase: Secret) -> None:
    """Upload certificate, chain and key, and look that the row is there, with its key.

    The box may from then on serve this key also on the administration address: the pin is widened by it, by nothing else.

    Raises:
        CertificateRefusedError: the file cannot be opened with the passphrase, or the box does not take it.

    """
    leaf = _leaf(content, passphrase)
    if leaf is None:
        raise CertificateRefusedError(
            "The certificate file to import does not open, or has no key that belongs to a certificate in it. Nothing was sent.",
            hint="Compare the passphrase, and look at the file with boxshift certs inspect.",
        )
    console.client.pin.allow(read_fingerprint(leaf.public_bytes(Encoding.DER)))
    said: list[str] = []

    def act() -> None:
        view = console.open(CERTIFICATES)
        form, button = view.need_button(Term.UPLOAD, under=Term.CERTIFICATE_INSTALLATION)
        entries = [Entry(view.need_field(form, Term.CERTIFICATE_FILE, kinds=(FieldKind.FILE,)), Upload(content, filename))]
        entries += [Entry(f, passphrase) for f in _passphrases(view, form.fields)]
        after = console.press(fill(form, entries, press=button, seconds=120))
        said.append(after.note())
        if after.page.status >= 400:
            raise CertificateRefusedError(f"{console.client.where} does not take the certificate: {after.note()}", status=after.page.status)

    try:
        ensure(lambda: _find_imported(console, leaf), act, what="the imported certificate in the table", timeout=30)
    except DeadlineError as error:
        raise CertificateRefusedError(
            f"{console.client.where} took the file, but its table does not show the certificate with its key: {' '.join(said)}"
        ) from error


def assign_certificate(console: Console, wanted: CertificateRow, addresses: Sequence[str]) -> bool:
    """Serve it on these addresses. False where this version has no Assign IP: it chooses by itself."""
    view = console.open(CERTIFICATES)
    row = _find_row(view, wanted)
    link = _assign_control(view, row)
    if link is None:
        if any(_assign_control(view, other) is not None for other in _table(view).rows):
            raise RefusedError(
                f"The certificate for {wanted.issued_to} cannot be assigned: the page offers it for others, not for this one.",
                hint="Its private key may be missing on this box.",
            )
        return False

    def look() -> bool | None:
        found = next((r for r in read_certificates(console) if _same(r, wanted)), None)
        return True if found is not None and set(addresses) <= set(found.addresses) else None

    ensure(look, lambda: _assign(console, wanted, addresses), what=f"{wanted.issued_to} on {', '.join(addresses)}", timeout=30)
    return True


def _assign(console: Console, wanted: CertificateRow, addresses: Sequence[str]) -> None:
    view = console.open(CERTIFICATES)
    control = _assign_control(view, _find_row(view, wanted))
    if control is None:
        raise view.lacking("no link", Term.ASSIGN_IP)
    page = console.follow(control) if isinstance(control, Link) else console.press(fill(control[0], (), press=control[1]))
    form, button = page.need_button(Term.SAVE_CONFIGURATION)
    entries = [Entry(_tick_of(page, form.fields, address), value=True) for address in addresses]
    after = console.press(fill(form, entries, press=button))
    if after.page.status >= 400:
        raise CertificateRefusedError(f"{console.client.where} does not assign the certificate: {after.note()}", status=after.page.status)


def _tick_of(page: View, fields: Sequence[Field], address: str) -> Field:
    ticks = [f for f in fields if f.kind is FieldKind.TICK]
    labelled = next((f for f in ticks if address in f.labels), None)
    if labelled is not None:
        return labelled
    table = page.find_table(Term.IP_ADDRESS)
    for row in table.rows if table is not None else ():
        if any(cell.text == address for cell in row.cells):
            found = next((f for f in ticks if f.number in row.controls), None)
            if found is not None:
                return found
    raise UnexpectedError(f"The page {page.page.path} has no tick box for the address {address}.")


def _assign_control(view: View, row: Row) -> Link | tuple[Form, Button] | None:
    link = next((link for link in row.links if view.words.match(Term.ASSIGN_IP, link.text)), None)
    if link is not None:
        return link
    found = ((form, c) for form, c in view.in_row(row) if isinstance(c, Button))
    return next(((form, button) for form, button in found if view.words.match_any(Term.ASSIGN_IP, button.texts)), None)


def _table(view: View) -> Table:
    return view.need_table(Term.ISSUED_TO, Term.ISSUED_BY, Term.EXPIRES)


def _parse_row(view: View, table: Table, row: Row) -> CertificateRow:
    key = table.cell(row, view.words, Term.PRIVATE_KEY)
    if key is None or not (view.words.match(Term.YES, key.text) or view.words.match(Term.NO, key.text)):
        raise view.lacking("no yes or no in the column", Term.PRIVATE_KEY)
    return CertificateRow(
        issued_to=table.text(row, view.words, Term.ISSUED_TO),
        issued_by=table.text(row, view.words, Term.ISSUED_BY),
        expires=table.text(row, view.words, Term.EXPIRES),
        names=_split(view, table.text(row, view.words, Term.ALTERNATIVE_NAMES), r"[,;\s]+"),
        has_key=view.words.match(Term.YES, key.text),
        addresses=_split(view, table.text(row, view.words, Term.IP_ADDRESSES), r"[,;\s]+"),
        warnings=_split(view, table.text(row, view.words, Term.WARNINGS), r"\s*[·;|]\s*"),
    )


def _split(view: View, text: str, by: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(by, text) if part and not view.words.match(Term.NONE, part))


def _find_row(view: View, wanted: CertificateRow) -> Row:
    table = _table(view)
    rows = [row for row in table.rows if table.text(row, view.words, Term.ISSUED_TO) and _same(_parse_row(view, table, row), wanted)]
    if len(rows) != 1:
        raise UnexpectedError(
            f"The table of certificates has {len(rows)} rows for {wanted.issued_to}, expiring {wanted.expires}; one was expected."
        )
    return rows[0]


def _same(row: CertificateRow, wanted: CertificateRow) -> bool:
    """The same certificate, as far as the page tells; where it is served and what is wrong with it may change."""
    return (row.issued_to, row.issued_by, row.expires, row.names) == (wanted.issued_to, wanted.issued_by, wanted.expires, wanted.names)


def _find_imported(console: Console, leaf: x509.Certificate) -> CertificateRow | None:
    """The row of exactly this certificate, with its key: rows that fit by name are exported (without their key) and compared."""
    for row in read_certificates(console):
        if row.issued_to == _common_name(leaf.subject) and row.has_key and _exports(console, row, leaf):
            return row
    return None


def _exports(console: Console, row: CertificateRow, leaf: x509.Certificate) -> bool:
    blocks = _CERTIFICATE.findall(twice(lambda: _export(console, row, (Term.CERTIFICATE,), None)))
    if not blocks:
        raise UnexpectedError(f"{console.client.where} does not export {row.issued_to} in a form that can be compared.")
    try:
        return x509.load_pem_x509_certificate(blocks[0]) == leaf
    except ValueError as error:
        raise UnexpectedError(f"{console.client.where} exports a certificate that cannot be read.") from error


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _leaf(content: bytes, passphrase: Secret) -> x509.Certificate | None:
    """The certificate whose key is in the file too; None where the file does not open or there is none."""
    try:
        if b"-----BEGIN " in content:
            certificates = [x509.load_pem_x509_certificate(block) for block in _CERTIFICATE.findall(content)]
            keys = [_load_key(block, passphrase) for block in _KEY.findall(content)]
        else:
            key, first, more = pkcs12.load_key_and_certificates(content, passphrase.to_bytes())
            certificates, keys = [*([first] if first else []), *more], [key] if key else []
        wanted = {_spki(key.public_key()) for key in keys}
        return next((one for one in certificates if _spki(one.public_key()) in wanted), None)
    except (ValueError, TypeError, AttributeError):
        return None


def _load_key(block: bytes, passphrase: Secret) -> PrivateKeyTypes:
    return load_pem_private_key(block, passphrase.to_bytes() if b"ENCRYPTED" in block else None)


def _spki(key: PublicKeyTypes) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
