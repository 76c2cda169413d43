"""Pages as values: what a person sees is found by words, whatever the page calls it; hostile pages do no harm."""

from __future__ import annotations

import contextlib
import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import UnexpectedError
from kit.secret import Secret
from migrate.appliances.bomgar.forms import Entry, Field, FieldKind, Form, View, fill
from migrate.appliances.bomgar.parse import parse_page
from migrate.appliances.bomgar.words import Term, fold, load_words
from migrate.appliances.http import Upload

EN = load_words("en")


def look(body: str, language: str | None = "en") -> View:
    return View(parse_page(body.encode(), path="/appliance/x?y=1"), load_words(language))


def only_form(view: View) -> Form:
    (form,) = view.page.forms
    return form


LABELLED = {
    "label for": '<label for="i1">Hostname</label><input id="i1" name="n">',
    "wrapped": '<label><b>Host</b>name: <input name="n"></label>',
    "aria-label": '<span>Something</span><input name="n" aria-label="Hostname">',
    "aria-labelledby": '<i id="a">Host</i> <i id="b">Name</i><input name="n" aria-labelledby="a b">',
    "placeholder": '<input name="n" placeholder="HOSTNAME *">',
    "title": '<input name="n" title=" hostname ">',
    "cell beside it": '<table><tr><td>Hostname:</td><td><input name="n"></td></tr></table>',
}


@pytest.mark.parametrize("body", LABELLED.values(), ids=LABELLED.keys())
def test_a_field_is_found_by_every_kind_of_label(body: str) -> None:
    view = look(f"<form method=post>{body}<button>Save Changes</button></form>")
    assert view.need_field(only_form(view), Term.HOSTNAME).name == "n"


def test_a_better_label_wins_over_what_stands_beside() -> None:
    view = look(
        '<form><table><tr><td>Hostname</td><td><input name="gateway" aria-label="Default Gateway"></td></tr></table>'
        '<label for=h>Hostname</label><input id=h name="host"></form>'
    )
    assert view.need_field(only_form(view), Term.HOSTNAME).name == "host"


def test_a_wrapped_drop_down_is_named_by_its_label_and_not_by_its_options() -> None:
    view = look(
        "<form><label>Action <select name=s><option>Export</option><option>Delete</option></select> </label><button>Go</button></form>"
    )
    field = view.need_field(only_form(view), Term.ACTION, kinds=(FieldKind.SELECT,))
    assert [option.text for option in field.options] == ["Export", "Delete"]


@pytest.mark.parametrize(
    "button",
    [
        "<button>Save Changes</button>",
        '<input type=submit value="Save  changes">',
        '<input type=image alt="SAVE CHANGES">',
        '<button aria-label="Save Changes"><svg></svg></button>',
    ],
)
def test_a_button_is_found_by_what_is_written_on_it(button: str) -> None:
    assert look(f"<form>{button}</form>").find_button(Term.SAVE_CHANGES) is not None


@pytest.mark.parametrize(
    "button",
    [
        "<button type=reset>Save Changes</button>",
        "<button type=button>Save Changes</button>",
        "<button hidden>Save Changes</button>",
        '<div style="display: none"><button>Save Changes</button></div>',
        "<script>'<button>Save Changes</button>'</script>",
    ],
)
def test_what_nobody_can_press_is_no_button(button: str) -> None:
    assert look(f"<form>{button}</form>").find_button(Term.SAVE_CHANGES) is None


def test_a_disabled_button_is_seen_and_refuses_to_be_pressed() -> None:
    view = look("<form><button disabled>Save Changes</button></form>")
    assert view.find_button(Term.SAVE_CHANGES) is not None
    with pytest.raises(UnexpectedError, match="cannot be pressed"):
        view.need_button(Term.SAVE_CHANGES)


def test_buttons_of_one_name_are_told_apart_by_their_headings() -> None:
    view = look(
        "<h1>Page</h1><h2>Security :: Other</h2><form id=a action=/a><button>Upload</button></form>"
        "<h2>Security  ::  Certificate Installation</h2><form action=/b><button>Upload</button></form>"
    )
    found = view.find_button(Term.UPLOAD, under=Term.CERTIFICATE_INSTALLATION)
    assert found is not None
    assert found[0].action == "/b"


def test_fields_may_stand_outside_their_form() -> None:
    view = look('<form id=f action="/z"></form><label>Hostname <input name=h form=f></label><button form=f>Save</button>')
    form, button = view.need_button(Term.SAVE_CHANGES)
    assert fill(form, (Entry(view.need_field(form, Term.HOSTNAME), "x"),), press=button).pairs == (("h", "x"),)


def test_words_are_compared_without_case_accents_and_spaces_but_not_guessed() -> None:
    es = load_words("es")
    assert es.match(Term.BASICS, "  informacion\u00a0BÁSICA : ")
    assert es.match(Term.CERTIFICATE_INSTALLATION, "Seguridad::Instalacion  del certificado")
    assert not es.match(Term.BASICS, "Informacion basicas")
    assert not EN.match(Term.UPLOAD, "Uploads")
    assert not EN.match(Term.BACKUP_PASSWORD, "Password")


def test_a_submission_is_what_a_browser_would_send() -> None:
    view = look(
        """<form method=post action="?go=1" enctype="multipart/form-data"><input type=hidden name=token value="t&amp;1">
        <label>Enabled <input type=checkbox name=on></label><input type=checkbox name=kept value=k checked>
        <input type=checkbox name=off value=o><input name=dead value=1 disabled><fieldset disabled><input name=dead2></fieldset>
        <select name=s><option value=1>One<option value=2 selected>Two</select><select name=first><option>A<option>B</select>
        <textarea name=t>
 line</textarea><input type=radio name=r value=1 checked><label>Hostname <input type=radio name=r value=2></label>
        <input type=file name=none><label>File <input type=file name=f></label><input name="" value=x>
        <button name=b1 value=1>Reset</button><button name=b2 value=2>Save</button></form>"""
    )
    form, button = view.need_button(Term.SAVE_CHANGES)
    upload = Upload(b"content", "n.bin")
    entries = (
        Entry(view.need_field(form, Term.ENABLED), value=True),
        Entry(view.need_field(form, Term.FILE), upload),
        Entry(view.need_field(form, Term.HOSTNAME), value=True),
    )
    request = fill(form, entries, press=button)
    assert request.method == "POST"
    assert request.multipart
    assert request.path == "/appliance/x?go=1"
    assert request.pairs == (
        ("token", "t&1"),
        ("on", "on"),
        ("kept", "k"),
        ("s", "2"),
        ("first", "A"),
        ("t", " line"),
        ("r", "2"),
        ("none", Upload(b"", "")),
        ("f", upload),
        ("b2", "2"),
    )


def test_a_tick_is_taken_off_and_a_disabled_field_is_not_filled() -> None:
    view = look("<form><label>Enabled <input type=checkbox name=e checked></label><label>Hostname <input name=h disabled></label></form>")
    form = only_form(view)
    assert fill(form, (Entry(view.need_field(form, Term.ENABLED), value=False),), press=None).pairs == ()
    with pytest.raises(UnexpectedError, match="disabled"):
        fill(form, (Entry(view.need_field(form, Term.HOSTNAME), "x"),), press=None)


def test_a_drop_down_without_the_option_is_an_error() -> None:
    view = look("<form><label>Action <select name=s><option disabled>Export</option></select></label></form>")
    with pytest.raises(UnexpectedError, match="does not offer"):
        fill(only_form(view), (Entry(view.need_field(only_form(view), Term.ACTION), "Export"),), press=None)


def test_tables_are_read_by_their_headings_with_their_controls() -> None:
    view = look(
        """<h2>Security :: Certificates</h2><form><table><caption>All</caption><thead><tr><th></th><th>Issued To ▲<th>Expires</tr></thead>
        <tr class=grey aria-disabled=true><td><input type=checkbox name=c value=1><td>a.example<td>2030</tr>
        <tr><td><input type=checkbox name=c value=2><td>b.example <a href=more>Edit</a><td colspan=2>2031</tr>
        <tr><td colspan=3>None</td></tr></table></form><table><tr><th>System Time</th><td>now</td></tr></table>"""
    )
    table = view.need_table(Term.ISSUED_TO, Term.EXPIRES)
    assert [table.text(row, EN, Term.ISSUED_TO) for row in table.rows] == ["a.example", "b.example Edit", "None"]
    assert table.rows[0].disabled
    assert [control.value for _, control in view.in_row(table.rows[1]) if isinstance(control, Field)] == ["2"]
    assert table.rows[1].links[0].url == "/appliance/more"
    assert table.headings == ("Security :: Certificates", "All")
    assert view.find_fact(Term.SYSTEM_TIME) == "now"


def test_facts_come_from_lists_tables_and_fields() -> None:
    view = look(
        "<dl><dt>Serial Number:<dd>S1</dl><table><tr><td>Hostname</td><td>h1</td></tr></table>"
        "<form><label>Appliance Download Key <input readonly value=K1></label></form>"
    )
    assert [view.find_fact(term) for term in (Term.SERIAL_NUMBER, Term.HOSTNAME, Term.DOWNLOAD_KEY)] == ["S1", "h1", "K1"]
    with pytest.raises(UnexpectedError, match="System Time"):
        view.need_fact(Term.SYSTEM_TIME)


def test_menus_tell_what_a_link_is_nested_in() -> None:
    view = look(
        "<nav><ul><li><span>Management</span><ul><li><a href=/m>Security</a></ul><li><a href=/s>Security</a>"
        "<ul><li><a href=/c>Certificates</a></ul></li></ul></nav>"
    )
    assert [(link.url, link.under) for link in view.find_links(Term.SECURITY)] == [("/m", ("Management",)), ("/s", ())]
    assert view.find_links(Term.CERTIFICATES)[0].under == ("Security",)


@given(st.binary(max_size=600))
def test_any_bytes_give_a_page_or_our_error(content: bytes) -> None:
    try:
        page = parse_page(content, path="/x")
    except UnexpectedError:
        return
    assert page.path == "/x"


_TAGS = st.sampled_from(
    ["form", "table", "tr", "td", "th", "input", "select", "option", "label", "button", "li", "ul", "a", "dl", "dt", "h2"]
)
_VALUES = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
_ATTRIBUTES = st.dictionaries(
    st.sampled_from(["id", "for", "name", "value", "type", "form", "href", "colspan", "aria-labelledby", "action", "hidden", "style"]),
    _VALUES | st.sampled_from(["a", "checkbox", "submit", "2", "99999999999", "-1", "http://[::1", "//evil.example/x", "javascript:x"]),
    max_size=4,
)


@st.composite
def _soup(draw: st.DrawFn) -> str:
    pieces = []
    for tag in draw(st.lists(_TAGS, max_size=30)):
        attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in draw(_ATTRIBUTES).items())
        pieces.append(draw(st.sampled_from([f"<{tag}{attributes}>", f"</{tag}>", f"<{tag}{attributes}>text"])))
    return "".join(pieces)


@given(_soup())
def test_any_soup_can_be_looked_at_and_its_forms_filled(soup: str) -> None:
    try:
        view = look(soup)
    except UnexpectedError:
        return
    for form in view.page.forms:
        request = fill(form, (), press=form.buttons[0] if form.buttons else None)
        assert request.method in {"GET", "POST"}
    for term in (Term.HOSTNAME, Term.UPLOAD, Term.STATUS):
        view.find_fact(term)
        view.find_button(term)
        view.find_links(term)
        view.find_table(term)


@given(_VALUES, _VALUES)
def test_hidden_values_and_entries_pass_through_unchanged(token: str, entry: str) -> None:
    def plain(text: str) -> bool:
        return not re.search(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]", text)

    view = look(f'<form method=post><input type=hidden name=t value="{html.escape(token)}"><label>Hostname <input name=h></label></form>')
    form = only_form(view)
    sent = dict(fill(form, (Entry(view.need_field(form, Term.HOSTNAME), entry),), press=None).pairs)
    assert sent["h"] == entry
    if plain(token):
        assert sent["t"] == token


@given(st.text(max_size=30))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)


def test_a_deeply_nested_page_is_an_answer_not_a_crash() -> None:
    with contextlib.suppress(UnexpectedError):
        assert parse_page(b"<div>" * 20_000 + b"<h1>in</h1>", path="/x").status == 200


def test_secrets_in_a_request_are_masked() -> None:
    view = look("<form method=post><label>Password <input type=password name=p></label></form>")
    form = only_form(view)
    request = fill(form, (Entry(view.need_field(form, Term.PASSWORD), Secret("hush-hush")),), press=None)
    assert "hush" not in repr(request)
    assert "hush" not in repr(Upload(b"hush", "x"))


def test_every_complete_language_knows_every_term_and_partial_ones_are_for_looking_only() -> None:
    from kit.errors import UsageError
    from migrate.appliances.bomgar.words import COMPLETE, find_languages

    for language in find_languages():
        words = load_words(language, partial=True)
        assert all(words.knows(term) for term in Term)
    assert set(COMPLETE) < set(find_languages())
    for unknown in ("de", "xx", "../en"):
        with pytest.raises(UsageError):
            load_words(unknown)


def test_no_word_of_a_language_means_two_things_on_the_same_form() -> None:
    pairs = (
        (Term.RESET, Term.SHUT_DOWN, Term.REBOOT, Term.CONFIRM),
        (Term.BACKUP_PASSWORD, Term.CONFIRM_PASSWORD, Term.VAULT_KEY_PASSWORD),
        (Term.CURRENT_PASSWORD, Term.NEW_PASSWORD, Term.CONFIRM_PASSWORD),
        (Term.DOWNLOAD_BACKUP, Term.UPLOAD_BACKUP, Term.DOWNLOAD_VAULT_KEY, Term.UPLOAD_VAULT_KEY),
        (Term.CERTIFICATE, Term.CERTIFICATE_CHAIN, Term.PRIVATE_KEY),
        (Term.ISSUED_TO, Term.ISSUED_BY, Term.EXPIRES, Term.ALTERNATIVE_NAMES, Term.IP_ADDRESSES),
        (Term.YES, Term.NO, Term.NONE),
        (Term.RUNNING, Term.FINISHED, Term.FAILED, Term.NONE),
        (Term.PRIMARY, Term.BACKUP, Term.NONE),
    )
    for language in (None, "en", "es"):
        words = load_words(language)
        for terms in pairs:
            folded = [{fold(word) for word in words.table[term]} for term in terms]
            assert sum(map(len, folded)) == len(set().union(*folded)), (language, terms)


def test_word_files_hold_no_key_twice() -> None:
    folder = Path(__file__).parents[2] / "migrate/appliances/bomgar/words"
    for path in folder.glob("*.yaml"):
        keys = [line.partition(":")[0] for line in path.read_text().splitlines() if line and line[0] not in "# "]
        assert len(keys) == len(set(keys)), path.name
