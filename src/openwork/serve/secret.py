"""The secret from which the names of prefix caches are made: whoever does not have it can guess no other's."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from openwork.core.errors import OpenworkError

SECRET_BYTES = 32
FILE_NAME = "namespace.secret"


def server_secret(directory: Path | None) -> bytes:
    """A new secret; with a directory, the one kept there, so that a cache saved beside it is still found.

    Raises OpenworkError when the file cannot be made or is not one of ours.
    """
    if directory is None:
        return secrets.token_bytes(SECRET_BYTES)
    path = directory / FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _create(path)
        secret = path.read_bytes()
    except OSError as error:
        raise OpenworkError(f"{path}: {error.strerror}", "--cache-dir must be a directory to write in.") from None
    if len(secret) != SECRET_BYTES:
        raise OpenworkError(
            f"{path}: has {len(secret)} bytes, not {SECRET_BYTES}", "Delete it: a new one is made, and caches are cold."
        )
    return secret


def _create(path: Path) -> None:
    """Unless it exists, whole and readable by its owner only, also when two servers begin at once."""
    own = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
