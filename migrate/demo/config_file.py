"""Configuration files that hold secrets: private, and read whole or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kit.errors import RefusedError, UsageError

M = TypeVar("M", bound=BaseModel)


def read_private(path: Path, model: type[M], whose: str) -> M:
    """Read it; ``whose`` configuration it is, for the sentences.

    Raises:
        UsageError: not there, or not what it should be.
        RefusedError: others on this machine may read it.

    """
    try:
        if path.stat().st_mode & 0o077:
            raise RefusedError(f"{path} holds secrets and others may read it.", hint=f"chmod 600 {path}")
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint=f"Give the path of {whose} configuration.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path} is not {whose} configuration: {where}: {first['msg']}.") from None
