"""A recipe: what an image is made of, as data. Read from YAML, checked whole, frozen."""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from images.errors import RecipeError, SpecError
from images.ready_page import ReadyPage, parse_ready_page

Package = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
Unit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9@:_.\\-]+\.(service|socket|timer|target|mount|path)$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.,=/:@-]+$")]
ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]+$")]
Hostname = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
Login = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
KeyLine = Annotated[str, StringConstraints(pattern=r"^(ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\r\n]*)?$", max_length=8192)]
Snapshot = Annotated[str, StringConstraints(pattern=r"^20[0-9]{6}T[0-9]{6}Z$")]
USUAL_DATE = dt.date(2025, 1, 1)
SHIPPED = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Kernel:
    """The kernel package, the modules that stay (folders or files below ``kernel/``), and those that the initrd loads."""

    package: str
    modules: tuple[str, ...]
    initrd: tuple[str, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class FileSet:
    """A file or a folder's content that goes to ``target`` in the image, owned by root, modes kept."""

    source: Path
    target: PurePosixPath


@dataclass(frozen=True)
class Hardware:
    """What a machine of this image has unless asked otherwise; memory in MiB."""

    memory_mib: int
    cpus: int


@dataclass(frozen=True)
class User:
    """An account beside root; nobody can log in with a password. ``keys``: lines of its authorized_keys. ``system``: for a service."""

    name: str
    groups: tuple[str, ...]
    shell: str
    keys: tuple[str, ...]
    system: bool


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. ``leave_out``: path patterns of dpkg; ``commands``: shell lines run in the image, after files and users.

    ``date``: what everything in the image is dated, in seconds since 1970; ``snapshot``: the day of Debian's archive, empty: today's.
    ``ready``: what shows that a machine of it is ready, None: any answer over HTTPS.
    """

    name: str
    suite: str
    hostname: str
    packages: tuple[str, ...]
    kernel: Kernel
    leave_out: tuple[str, ...]
    files: tuple[FileSet, ...]
    enable: tuple[str, ...]
    mask: tuple[str, ...]
    commands: tuple[str, ...]
    compile: tuple[PurePosixPath, ...]
    disk_mib: int
    hardware: Hardware
    users: tuple[User, ...] = ()
    date: int = int(dt.datetime.combine(USUAL_DATE, dt.time(), dt.UTC).timestamp())
    snapshot: str = ""
    ready: ReadyPage | None = None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kernel(_Strict):
    package: Package
    modules: list[ModulePath]
    initrd: list[Word]
    arguments: list[Word] = []


class _Files(_Strict):
    source: str = Field(alias="from")
    target: str = Field(alias="to", pattern=r"^/")


class _Services(_Strict):
    enable: list[Unit] = []
    mask: list[Unit] = []


class _User(_Strict):
    name: Login
    groups: list[Login] = []
    shell: str = Field(default="/bin/bash", pattern=r"^/[A-Za-z0-9_./-]+$")
    keys: list[KeyLine] = []
    system: bool = False


class _Hardware(_Strict):
    memory_mib: int = Field(ge=64, le=1 << 20)
    cpus: int = Field(ge=1, le=256)


class _Recipe(_Strict):
    name: Name
    suite: Word
    hostname: Hostname
    packages: list[Package]
    kernel: _Kernel
    leave_out: list[str] = []
    files: list[_Files] = []
    services: _Services = _Services()
    users: list[_User] = []
    commands: list[str] = []
    compile: list[str] = []
    disk_mib: int = Field(ge=256, le=1 << 22)
    hardware: _Hardware
    date: dt.date = Field(default=USUAL_DATE, ge=dt.date(2000, 1, 1), le=dt.date(2037, 12, 31))
    snapshot: Snapshot | None = None
    ready: str | None = None


def find_recipe(word: str) -> Path:
    """The recipe file that is meant: one that ships with boxshift, by its name, or a path.

    Raises:
        RecipeError: there is none.

    """
    path, shipped = Path(word), SHIPPED / f"{word}.yaml"
    if path.is_file() or not (re.fullmatch(r"[a-z0-9.-]+", word) and shipped.is_file()):
        return path
    return shipped


def render_users(users: Sequence[User]) -> Iterator[str]:
    """Shell lines that make the accounts inside the image."""
    for user in users:
        words = ["useradd", "--shell", user.shell, "--user-group"]
        words += ["--system"] if user.system else ["--create-home"]
        words += ["--groups", ",".join(user.groups)] if user.groups else []
        yield shlex.join([*words, user.name])
        if user.keys:
            keys = shlex.quote("".join(f"{key}\n" for key in user.keys))
            yield f'home=$(getent passwd {user.name} | cut -d: -f6); install -d -m 700 -o {user.name} -g {user.name} "$home/.ssh"'
            yield f'printf %s {keys} > "$home/.ssh/authorized_keys"; chown {user.name}: "$home/.ssh/authorized_keys"'


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Sources of files are relative to the recipe's folder.

    Raises:
        RecipeError: it cannot be read, or makes no sense; every fault is named.

    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"The recipe {path} could not be read: {error.strerror}.", hint="Give the path of a recipe file.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe {path} is not YAML: {_first_line(error)}", hint="Mend the line that is named.") from error
    return parse_recipe(raw, folder=path.parent, where=str(path))


def parse_recipe(raw: Any, *, folder: Path, where: str) -> Recipe:
    """The recipe in what a YAML reader gave. ``where`` names it in errors.

    Raises:
        RecipeError: it makes no sense; every fault is named.

    """
    try:
        model = _Recipe.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in error.errors())
        raise RecipeError(f"The recipe {where} has faults: {faults}.", hint="images/reference/recipe.yaml shows every key.") from error
    try:
        recipe = _freeze(model, folder)
    except SpecError as error:
        raise RecipeError(f"The recipe {where} has faults: ready: {error.sentence}", hint=error.hint) from error
    deeper = _faults(recipe)
    if deeper:
        raise RecipeError(f"The recipe {where} has faults: {'; '.join(deeper)}.", hint="Mend each of them.")
    return recipe


def _freeze(model: _Recipe, folder: Path) -> Recipe:
    return Recipe(
        name=model.name,
        suite=model.suite,
        hostname=model.hostname,
        packages=tuple(model.packages),
        kernel=Kernel(model.kernel.package, tuple(model.kernel.modules), tuple(model.kernel.initrd), tuple(model.kernel.arguments)),
        leave_out=tuple(model.leave_out),
        files=tuple(FileSet((folder / one.source).resolve(), PurePosixPath(one.target)) for one in model.files),
        enable=tuple(model.services.enable),
        mask=tuple(model.services.mask),
        commands=tuple(model.commands),
        compile=tuple(PurePosixPath(one) for one in model.compile),
        disk_mib=model.disk_mib,
        hardware=Hardware(model.hardware.memory_mib, model.hardware.cpus),
        users=tuple(User(one.name, tuple(one.groups), one.shell, tuple(one.keys), one.system) for one in model.users),
        date=int(dt.datetime.combine(model.date, dt.time(), dt.UTC).timestamp()),
        snapshot=model.snapshot or "",
        ready=parse_ready_page(model.ready) if model.ready else None,
    )


def _faults(recipe: Recipe) -> list[str]:
    faults = [f"files: {one.source} does not exist" for one in recipe.files if not one.source.exists()]
    faults += [f"files: {one.target} climbs out of the image" for one in recipe.files if ".." in one.target.parts]
    faults += [f"leave_out: {one!r} is no absolute path pattern" for one in recipe.leave_out if not re.match(r"^/[^\s]+$", one)]
    names = [user.name for user in recipe.users]
    faults += [f"users: {name} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    faults += [f"users: {user.name} is for a service and has no home for keys" for user in recipe.users if user.system and user.keys]
    faults += [f"compile: {one} is no absolute path" for one in recipe.compile if not one.is_absolute()]
    return faults


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
