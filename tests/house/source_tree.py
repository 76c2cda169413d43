"""The source as the house rules look at it: files that belong to the repository, and the Python among them, parsed once."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit import process

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kit", "certs", "images", "migrate")
# Runs inside the appliance, where nothing of this repository is installed.
SOFTWARE = "images/reference/software/"
# Laid over the file system of every image.
GUEST = "images/guest/"


@dataclass(frozen=True)
class Module:
    """One Python file; ``path`` is relative to the repository."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """Dotted, as it is imported."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def tracked_files() -> tuple[str, ...]:
    """Files that are in the repository or would be added to it."""
    listed = process.run(
        ["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], timeout=60
    ).text
    return tuple(sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file()))


@functools.cache
def read_text(name: str) -> str | None:
    """None for what is no text."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the packages; tests are not among them."""
    names = [name for name in tracked_files() if name.endswith(".py") and name.partition("/")[0] in PACKAGES]
    return tuple(Module(name, text, ast.parse(text, name)) for name in names if (text := read_text(name)) is not None)


@dataclass(frozen=True)
class Import:
    """One name that a module imports, wherever in the file; ``name`` is absolute, relative imports are resolved."""

    module: Module
    name: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.module.path}:{self.line} imports {self.name}"


def imports_of(module: Module) -> Iterator[Import]:
    """Also those inside functions, under TYPE_CHECKING, and by ``import_module("…")`` or ``__import__("…")``."""
    package = module.name.split(".") if module.path.endswith("__init__.py") else module.name.split(".")[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, f"{stem}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                yield Import(module, node.args[0].value, node.lineno)
