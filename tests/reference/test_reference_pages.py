"""Every page of both consoles, in both languages and all profiles, over a site with hostile names."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from browsing import Browser
from reference_boxes import PASSWORD, SEED, Maker, look

from images.local_appliance import LocalAppliance
from images.reference.packages import RELEASES

pytestmark = [pytest.mark.process, pytest.mark.network]
SPANISH = json.loads((RELEASES / "words" / "es.json").read_text())
APPLIANCE_MENU = ["Basics", "Users", "IP Configuration", "Certificates", "Appliance Administration", "Updates", "Utilities"]
LOGIN_MENU = [
    *("Status", "Software Management", "Security", "Failover", "API Configuration"),
    *("Users", "Jump Clients", "Vault Accounts", "File Store", "Reports"),
]
ACCOUNT = ["Change Password", "Logout"]


@pytest.fixture(scope="module")
def boxes(shared_boxes: Maker) -> dict[str, LocalAppliance]:
    found = {profile: shared_boxes(profile) for profile in ("current", "auto-select", "old")}
    for box in found.values():
        box.seed(SEED)
    return found


def _menu(browser: Browser) -> list[str]:
    return [one for one in browser.links() if one not in ACCOUNT + [SPANISH[word] for word in ACCOUNT]]


def test_the_menus_of_the_present_version(boxes: dict[str, LocalAppliance]) -> None:
    assert _menu(look(boxes["current"], "appliance")) == APPLIANCE_MENU
    assert _menu(look(boxes["current"], "login")) == LOGIN_MENU


def test_the_menus_of_an_old_version(boxes: dict[str, LocalAppliance]) -> None:
    old = look(boxes["old"], "appliance")
    assert [one.text_content().strip() for one in old.page.xpath("//nav//li[span='Support']//a")] == ["Utilities", "Updates"]
    site = look(boxes["old"], "login")
    assert "Software" in _menu(site)
    assert "Software Management" not in _menu(site)
    assert "Vault Accounts" not in _menu(site)


@pytest.mark.parametrize("profile", ["current", "auto-select", "old"])
@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("console", ["appliance", "login"])
def test_every_page_of_the_menu_opens_in_either_language(
    boxes: dict[str, LocalAppliance], profile: str, language: str, console: str
) -> None:
    browser = look(boxes[profile], console, language)
    for word in _menu(browser):
        browser.follow(word)
        assert browser.answer.status_code == 200, (word, browser.text)
        assert browser.title == word
        assert browser.page.get("lang") == language
        assert not browser.page.xpath("//b[text()='Ada'] | //i"), "a name was taken for markup"


def test_spanish_pages_use_the_words_of_the_guide(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["current"], "appliance", "es")
    for text in ("Restablecer el dispositivo al valor predeterminado de fábrica", "Apagar este dispositivo", "Información básica"):
        assert text in browser.text or browser.form_of(text) is not None
    browser.follow("Seguridad", "Certificados")
    for text in ("Seguridad :: Instalación del certificado", "Emitido a", "Asignar IP", "Exportar", "Importar"):
        assert text in browser.text
    assert browser.form_of("Carga") is not None
    site = look(boxes["current"], "login", "es").follow("Administración", "Administración del software")
    assert "Software :: Configuración de copia de seguridad" in site.text
    assert site.form_of("Descargar copia de seguridad") is not None
    assert site.form_of("Cargar copia de seguridad") is not None


def test_the_language_of_the_account_wins_over_that_of_the_browser(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["auto-select"], "appliance").follow("Users")
    browser.fill("Save Changes", {"Language": "Español"})
    assert browser.title == "Usuarios"
    browser.fill("Guardar cambios", {"Idioma": "Como indique el navegador"})
    assert browser.title == "Users"


def test_no_english_word_is_left_on_spanish_pages(boxes: dict[str, LocalAppliance]) -> None:
    changed = {text for text, spanish in SPANISH.items() if spanish != text}
    for console in ("appliance", "login"):
        browser = look(boxes["current"], console, "es")
        for word in _menu(browser):
            browser.follow(word)
            shown = {
                one.strip() for one in browser.page.xpath("//h1//text() | //h2//text() | //th//text() | //dt//text() | //label//text()")
            }
            shown |= {one.text_content().strip() for one in browser.page.xpath("//button | //nav//a")}
            shown |= set(browser.page.xpath("//input[@type='submit']/@value"))
            same_word = {"Vault", "Software", "No"}
            assert (shown & changed) - same_word == set(), word


def test_basics_tells_what_identifies_the_box(boxes: dict[str, LocalAppliance]) -> None:
    facts = look(boxes["current"], "appliance").facts()
    assert list(facts) == [
        *("Hostname", "Serial Number", "Appliance GUID", "Base Software Version", "Base Software Build", "System Time", "Uptime"),
    ]
    assert facts["Base Software Version"] == "5.1.0"


def test_status_of_the_site_counts_what_it_holds(boxes: dict[str, LocalAppliance]) -> None:
    facts = look(boxes["current"], "login").facts()
    assert facts["Company"] == SEED["company"]
    assert facts["Site Name"] == SEED["site_name"]
    assert [facts[name] for name in ("Users", "Jump Clients", "Sessions", "Session Recordings", "File Store Items", "Vault Accounts")] == [
        *("10", "25", "120", "7", "60", "5"),
    ]


def test_names_of_fields_and_pages_differ_from_box_to_box(boxes: dict[str, LocalAppliance]) -> None:
    pages = [Browser(boxes[profile].url, "appliance").open() for profile in ("current", "old")]
    names = [set(page.page.xpath("//input/@name")) for page in pages]
    assert names[0] & names[1] == set()


def test_a_file_of_the_store_comes_back_as_it_was(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["current"], "login").follow("Public Portals", "File Store")
    content = bytes(range(256)) * 2000
    browser.fill("Upload", {}, files={"File": ('Zoë "x" <y> 文.bin', content)})
    assert "was uploaded" in browser.notice
    row = next(one for one in browser.rows("File Store :: Files") if one["Size"].text_content() == str(len(content)))
    assert row["Name"].text_content() == 'Zoë "x" <y> 文.bin'
    browser.open(row["Download"].xpath(".//a/@href")[0])
    assert browser.answer.content == content
    browser.open().follow("Public Portals", "File Store")
    row = next(one for one in browser.rows("File Store :: Files") if one["Size"].text_content() == str(len(content)))
    browser.press("Delete", within=row["Actions"])
    assert browser.notice == "The file was deleted."


def test_a_user_with_a_hostile_name_can_be_added_log_in_and_be_deleted(boxes: dict[str, LocalAppliance]) -> None:
    name = "<script>alert('ñ')</script> \"; drop table account"
    browser = look(boxes["current"], "login").follow("Users & Security", "Users")
    browser.fill("Add User", {"Username": name, "Display Name": name, "Password": "password"})
    assert browser.notice == "The user was added."
    other = Browser(boxes["current"].url, "login").log_in("password", name)
    assert other.title == "Change Password"
    row = next(one for one in browser.rows("Users") if one["Username"].text_content() == name)
    browser.press("Delete", within=row["Actions"])
    assert browser.notice == "The user was deleted."
    assert other.open().title == "Site Administration Interface"


def test_the_last_user_who_can_log_in_stays(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["current"], "appliance").follow("Users")
    browser.press("Delete", within=browser.rows("Users")[0]["Actions"])
    assert browser.error == "The last user who can log in cannot be deleted."


def test_the_connection_test_really_connects(boxes: dict[str, LocalAppliance]) -> None:
    box = boxes["current"]
    browser = look(box, "appliance").follow("Support", "Utilities")
    browser.fill("Test", {"Host Name or IP Address": box.admin, "Port": str(box.port)})
    assert "can be reached" in browser.text
    browser.fill("Test", {"Host Name or IP Address": box.admin, "Port": "1"})
    assert "cannot be reached" in browser.text
    browser.fill("Test", {"Host Name or IP Address": box.admin, "Port": "99999999"})
    assert "cannot be reached" in browser.text


def test_a_page_that_does_not_exist_says_so(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["current"], "appliance").open("/appliance/nothing")
    assert browser.answer.status_code == 404
    assert browser.error == "There is no such page."


def test_the_public_portal_shows_the_site_without_markup_of_its_names(boxes: dict[str, LocalAppliance]) -> None:
    text = httpx.get(boxes["current"].url, verify=False).text
    assert "Acme &amp; &lt;b&gt;Söhne&lt;/b&gt;" in text


def test_api_accounts_show_their_secret_once(boxes: dict[str, LocalAppliance]) -> None:
    box = boxes["current"]
    browser = look(box, "login").follow("Management", "API Configuration")
    browser.fill("Add API Account", {"Name": "<b>robot</b>", "Command API": "read_only", "Backup API": True})
    facts = browser.facts()
    answer = httpx.post(
        f"{box.url}/oauth2/token",
        auth=(facts["OAuth Client ID"], facts["OAuth Client Secret"]),
        data={"grant_type": "client_credentials"},
        verify=False,
    )
    assert answer.status_code == 200
    browser.follow("Management", "API Configuration")
    assert facts["OAuth Client Secret"] not in browser.text
    row = next(one for one in browser.rows("API :: Accounts") if one["Name"].text_content() == "<b>robot</b>")
    browser.press("Delete", within=row["Actions"])
    again = httpx.post(
        f"{box.url}/oauth2/token",
        auth=(facts["OAuth Client ID"], facts["OAuth Client Secret"]),
        data={"grant_type": "client_credentials"},
        verify=False,
    )
    assert again.status_code == 401


def test_host_name_and_network_settings_are_kept(boxes: dict[str, LocalAppliance], tmp_path: Path) -> None:
    browser = look(boxes["old"], "appliance").follow("Networking", "IP Configuration")
    given = {
        "Hostname": "old.example.test",
        "Default Gateway": "127.0.0.254",
        "DNS Servers": "127.0.0.53",
        "NTP Server": "ntp.example.test",
    }
    section = browser.page.xpath("//section[h2='Networking :: Global Network Configuration']")[0]
    browser.fill("Save Changes", given, within=section)
    assert browser.notice == "The changes were saved."
    shown = browser.page.xpath("//section[h2='Networking :: Global Network Configuration']//input[@type='text']/@value")
    assert shown == list(given.values())
    section = browser.page.xpath("//section[h2='Networking :: Global Network Configuration']")[0]
    browser.fill("Save Changes", {"Hostname": 'bad"host;name'}, within=section)
    assert browser.error.endswith("is not a host name.")


def test_the_preshared_key_is_kept_and_never_shown(boxes: dict[str, LocalAppliance]) -> None:
    browser = look(boxes["current"], "login").follow("Management", "Security")
    assert browser.facts() == {"Inter-appliance Communication Pre-shared Key": "Set"}
    assert PASSWORD not in browser.answer.text
