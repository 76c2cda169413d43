"""A small browser for the tests: goes where menus lead, fills forms by the labels that people see."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from lxml import html


@dataclass
class Browser:
    """Looks at one console of a box; ``page`` is what it shows now."""

    base: str
    console: str
    language: str = "en"
    page: Any = None
    answer: Any = None
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.base, verify=False, headers={"Accept-Language": self.language}, timeout=60)

    def close(self) -> None:
        self.client.close()

    def open(self, path: str = "") -> Browser:
        try:
            answer = self.client.get(path or f"/{self.console}", follow_redirects=True)
        except httpx.RemoteProtocolError:  # the web server took a new configuration and closed what was idle
            answer = self.client.get(path or f"/{self.console}", follow_redirects=True)
        return self._take(answer)

    def _take(self, answer: httpx.Response) -> Browser:
        self.answer = answer
        is_page = answer.headers.get("content-type", "").startswith("text/html")
        self.page = html.fromstring(answer.text) if is_page and answer.text else None
        return self

    @property
    def text(self) -> str:
        return " ".join(self.page.text_content().split()) if self.page is not None else self.answer.text

    @property
    def title(self) -> str:
        return self.page.findtext(".//h1").strip()

    @property
    def notice(self) -> str:
        return " ".join(self.page.xpath("string(//*[@role='status'])").split())

    @property
    def error(self) -> str:
        return " ".join(self.page.xpath("string(//*[@role='alert'])").split())

    def links(self) -> list[str]:
        return [one.text_content().strip() for one in self.page.xpath("//nav//a")]

    def follow(self, *texts: str) -> Browser:
        """Menu links by group and text, or one link anywhere by its text."""
        if len(texts) == 2:
            found = self.page.xpath("//nav//li[span[normalize-space()=$group]]//a[normalize-space()=$text]", group=texts[0], text=texts[1])
        else:
            found = self.page.xpath("//a[normalize-space()=$text]", text=texts[0])
        assert found, f"no link {texts} among {self.links()}"
        return self.open(urllib.parse.urljoin(str(self.answer.url), found[0].get("href")))

    def facts(self) -> dict[str, str]:
        names = [one.text_content().strip() for one in self.page.xpath("//dt")]
        return dict(zip(names, [one.text_content().strip() for one in self.page.xpath("//dd")], strict=True))

    def rows(self, heading: str) -> list[dict[str, Any]]:
        """Rows of the first table below a heading: header text -> cell element."""
        table = self.page.xpath("//section[h2[normalize-space()=$h]]//table", h=heading)[0]
        heads = [one.text_content().strip() for one in table.xpath("./thead//th")]
        found = [dict(zip(heads, row.xpath("./td"), strict=False)) for row in table.xpath("./tbody/tr")]
        return [row for row in found if len(row) == len(heads)]

    def texts(self, heading: str) -> list[dict[str, str]]:
        return [{key: cell.text_content().strip() for key, cell in row.items()} for row in self.rows(heading)]

    def form_of(self, button: str, within: Any = None) -> Any:
        root = self.page if within is None else within
        found = root.xpath(".//button[normalize-space()=$b] | .//input[@type='submit'][@value=$b]", b=button)
        assert found, f"no button {button!r} on {self.text[:500]}"
        return found[0]

    def press(self, button: str, within: Any = None, files: dict[str, Path | tuple[str, bytes]] | None = None, **_: Any) -> Browser:
        return self.fill(button, {}, within=within, files=files)

    def fill(
        self,
        button: str,
        values: Mapping[str | tuple[str, int], str | bool] | Mapping[str, str | bool],
        *,
        within: Any = None,
        files: dict[str, Any] | None = None,
        ticks: tuple[Any, ...] = (),
        follow: bool = True,
    ) -> Browser:
        """Fill the form that the button belongs to, by labels, and press it."""
        pressed = self.form_of(button, within)
        assert pressed.get("disabled") is None, f"the button {button!r} is greyed out"
        form = next(pressed.iterancestors("form"))
        data: list[tuple[str, str]] = []
        given = {self._control(form, label).get("name"): value for label, value in values.items()}
        parts = {self._control(form, label).get("name"): value for label, value in (files or {}).items()}
        for one in form.xpath(".//input | .//select | .//textarea"):
            kind, name = one.get("type", one.tag), one.get("name")
            if kind in ("submit", "file"):
                continue
            if kind == "checkbox":
                on = given.get(name, one.get("checked") is not None) if one not in ticks else True
                if on:
                    data.append((name, one.get("value", "on")))
            elif one.tag == "select":
                chosen = given.get(name)
                options = {option.text_content().strip(): option.get("value") for option in one.xpath("./option")}
                data.append((name, options[str(chosen)] if chosen is not None else str(one.value or "")))
            else:
                old = (one.text or "").lstrip("\n") if one.tag == "textarea" else one.get("value", "")
                data.append((name, str(given.get(name, old))))
        data.append((pressed.get("name"), pressed.get("value", "1")))
        form_data: dict[str, list[str]] = {}
        for name, value in data:
            form_data.setdefault(name, []).append(value)
        url = urllib.parse.urljoin(str(self.answer.url), form.get("action"))
        sent = {name: value if isinstance(value, tuple) else ("file.bin", value) for name, value in parts.items()}
        return self._take(self.client.post(url, data=form_data, files=sent or None, follow_redirects=follow))

    def _control(self, form: Any, label: str | tuple[str, int]) -> Any:
        """The control of this label; of several, the one with this number (from 0) in the order of the page."""
        wanted, number = label if isinstance(label, tuple) else (label, 0)
        found = [one for one in form.xpath(".//input | .//select | .//textarea") if self._wears(one, wanted)]
        assert len(found) > number, f"no field {label!r} in the form: {html.tostring(form)[:800]!r}"
        return found[number]

    def _wears(self, control: Any, label: str) -> bool:
        if label in (control.get("aria-label"), control.get("placeholder")):
            return True
        around = control.xpath("ancestor::label")
        pointing = self.page.xpath("//label[@for=$id]", id=control.get("id")) if control.get("id") else []
        return any(" ".join(one.text_content().split()) == label or (one.text or "").strip() == label for one in [*around, *pointing])

    def tick_in(self, row: dict[str, Any]) -> Any:
        return next(cell.xpath(".//input[@type='checkbox']")[0] for cell in row.values() if cell.xpath(".//input[@type='checkbox']"))

    def log_in(self, password: str, name: str = "admin") -> Browser:
        self.open()
        words = {"en": ("Username", "Password", "Login"), "es": ("Nombre de usuario", "Contraseña", "Iniciar sesión")}[self.language]
        return self.fill(words[2], {words[0]: name, words[1]: password})

    def first_login(self, password: str) -> Browser:
        self.log_in("password")
        return self.change_password("password", password)

    def change_password(self, old: str, new: str) -> Browser:
        words = {
            "en": ("Current Password", "New Password", "Confirm New Password", "Change Password"),
            "es": ("Contraseña actual", "Nueva contraseña", "Confirmar nueva contraseña", "Cambiar contraseña"),
        }[self.language]
        return self.fill(words[3], {words[0]: old, words[1]: new, words[2]: new})


def wait_page(browser: Browser, pattern: str, seconds: float = 30) -> Browser:
    """Load the page again until its text shows the pattern."""
    import time

    end = time.monotonic() + seconds
    while True:
        try:
            browser.open(str(browser.answer.url))
            if re.search(pattern, browser.text):
                return browser
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"{pattern!r} did not appear; the page says: {browser.text[:1500]}"
        time.sleep(0.1)
