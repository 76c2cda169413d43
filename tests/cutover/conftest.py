from __future__ import annotations

from conftest_cutover import serve

__all__ = ["serve"]
