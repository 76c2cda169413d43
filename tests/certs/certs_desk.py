"""The certificate commands, called as a person calls them, in a folder with everything apart (the fixture ``desk``)."""

from __future__ import annotations

from pathlib import Path

from certs_making import HOSTILE
from typer.testing import CliRunner

from certs.cli import app
from certs.write import write_bundle

ALL = ("leaf.crt", "chain.pem", "box.key", "--passphrase", "env:WORD", "--roots", "roots.pem")


def call(*words: str | Path, code: int = 0, errors: type[Exception] | None = None):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if errors is not None:
        assert isinstance(result.exception, errors), (result.output, result.exception)
        return result
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert HOSTILE.reveal() not in result.output
    return result


def quick(monkeypatch) -> None:
    """Few rounds of key derivation in what is written."""
    from certs import outputs

    monkeypatch.setattr(outputs, "write_bundle", lambda *args, **kwargs: write_bundle(*args, rounds=2048, **kwargs))
