"""Finds every sentence that the appliance's pages can show, by reading its source."""

from __future__ import annotations

import ast
from pathlib import Path

SOFTWARE = Path(__file__).parents[2] / "images" / "reference" / "software" / "appliance"
SPEAKERS = {"Say", "Refused", "Busy", "tell", "step", "note", "PeerSilent"}


def find_sentences() -> set[str]:
    """Texts given to Say, Refused and the steps of jobs, menu words of entries, and constants that are used so."""
    found: set[str] = set()
    for path in SOFTWARE.glob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found |= _of_call(node, constants)
    return {one for one in found if any(letter.isalpha() for letter in one) and one != "{reason}"}


def _of_call(node: ast.Call, constants: dict[str, object]) -> set[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if name == "Entry":
        words = [one for arg in node.args if isinstance(arg, ast.Tuple) for one in arg.elts]
    elif name in SPEAKERS and node.args:
        words = [node.args[0]]
    else:
        return set()
    texts = {one.value for one in words if isinstance(one, ast.Constant)}
    texts |= {constants.get(one.id) for one in words if isinstance(one, ast.Name)}
    return {one for one in texts if isinstance(one, str)}
