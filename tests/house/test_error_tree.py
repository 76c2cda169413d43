"""Every error an operator may meet: it has a code of its own, a class that survives storage, and nothing secret in it."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import pkgutil
import re
import sys

import pytest

import certs
import images
import kit
import migrate
from kit.errors import BoxshiftError, ChangedError, FailedError, RefusedError, UsageError, WaitingError, from_record, walk_tree
from kit.secret import Secret

BRANCHES = (UsageError, RefusedError, FailedError, ChangedError, WaitingError)
FAULTS_OF_OUR_OWN = {"BoxshiftError", "BugError"}  # exit status 70


def load_everything() -> None:
    """Every module of the four packages; a module that cannot be imported is a failure, not an omission."""
    for package in (kit, certs, images, migrate):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith(".__main__") or found.name.startswith("images.reference.software"):
                continue  # a program; and the software that runs inside the appliance
            importlib.import_module(found.name)


load_everything()
KINDS = sorted(
    {kind for kind in walk_tree() if kind.__module__.partition(".")[0] in {"kit", "certs", "images", "migrate"}},
    key=lambda kind: kind.__qualname__,
)


def make(kind: type[BoxshiftError], secret: str) -> BoxshiftError:
    """One of its class, made by its own constructor, with a Secret wherever it takes facts."""
    error = kind("It is so: ñ.", hint="Do that.")
    error.__init__("It is so: ñ.", hint="Do that.", **fact_for(kind, Secret(secret)))  # type: ignore[misc]
    return error


def fact_for(kind: type[BoxshiftError], secret: Secret) -> dict[str, object]:
    takes_facts = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(kind.__init__).parameters.values())
    return {"told": secret, "count": 3, "seen": None} if takes_facts else {}


def test_every_class_of_errors_has_a_code_of_its_own() -> None:
    codes: dict[str, list[str]] = {}
    for kind in KINDS:
        assert "code" in vars(kind), f"{kind.__qualname__} inherits its code"
        codes.setdefault(kind.code, []).append(kind.__qualname__)
    assert {code: names for code, names in codes.items() if len(names) > 1} == {}
    assert len(KINDS) > 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__qualname__)
class TestEveryError:
    def test_its_code_is_a_plain_word_and_its_name_says_error(self, kind: type[BoxshiftError]) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9]*([._-][a-z0-9]+)*", kind.code)
        assert kind.__name__.endswith("Error")
        assert inspect.getdoc(kind)

    def test_it_leads_to_exactly_one_exit_code(self, kind: type[BoxshiftError]) -> None:
        branches = [branch for branch in BRANCHES if issubclass(kind, branch)]
        assert len(branches) == (0 if kind.__qualname__ in FAULTS_OF_OUR_OWN else 1)

    def test_it_survives_being_stored_and_read_back(self, kind: type[BoxshiftError], hostile_password: str) -> None:
        error = make(kind, hostile_password)
        again = from_record(json.loads(json.dumps(error.to_record())))
        assert type(again) is kind
        assert again.to_record() == error.to_record()
        assert vars(again).keys() == vars(error).keys()
        assert str(again) == "It is so: ñ."

    def test_it_survives_pickling_and_carries_no_secret(self, kind: type[BoxshiftError], hostile_password: str) -> None:
        error = make(kind, hostile_password)
        raw = pickle.dumps(error)
        assert hostile_password.encode() not in raw
        assert hostile_password not in json.dumps(error.to_record(), ensure_ascii=False)
        assert pickle.loads(raw).to_record() == error.to_record()


def test_errors_of_the_packages_are_all_in_the_tree() -> None:
    """An exception of one's own that is not in the tree would reach an operator as a fault of boxshift itself."""
    own = {
        thing
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in {"kit", "certs", "images", "migrate"} and not name.startswith("images.reference.software")
        for thing in vars(module).values()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == name and not issubclass(thing, BoxshiftError)
    }
    outside = {f"{thing.__module__}.{thing.__qualname__}" for thing in own}
    assert outside - NOT_FOR_OPERATORS.keys() == set()


# Exceptions that never leave their own room, and who catches them.
NOT_FOR_OPERATORS = {
    "kit.yaml_lines.FaultyYaml": "the readers of plan and secrets files make errors of the tree of it",
    "migrate.engine.serial.RecordedError": "stands for an exception text in the engine's own tables",
    "images.reference.update_server.Refused": "becomes an HTTP answer of the update server, a program of its own",
}
