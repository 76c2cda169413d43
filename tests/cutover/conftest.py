from __future__ import annotations

from conftest_cutover import gateway, gateway_of_the_session, serve

__all__ = ["gateway", "gateway_of_the_session", "serve"]
