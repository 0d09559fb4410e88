"""JSON files of a checkpoint, read strictly.

A file that is too large, is not valid JSON, is not an object, names a field twice or nests too deeply is refused with
its name. Nothing is known here of what the fields mean.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openwork.core.errors import ModelError

MAX_BYTES = 64 * 2**20  # the largest sensible index of shards is a few megabytes


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"has {size} bytes; at most {MAX_BYTES} are read", where=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse_object(data, str(path))


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """The object in the bytes of a JSON text. Raises ModelError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise ModelError("is there twice", where=where, field=name[:100])
            found[name] = value
        return found

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise ModelError(f"is not UTF-8 at byte {error.start}", where=where) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"is not valid JSON: {error.msg} at byte {error.pos}", where=where) from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; thousands of open brackets
        raise ModelError("is not JSON that anybody would write: too many digits or levels", where=where) from error
    if not isinstance(value, dict):
        raise ModelError("is JSON, but not an object", where=where)
    return value
