"""Names of requests: ours, which are unique and made here, and the client's, which is a label and never a key."""

from __future__ import annotations

import re
import secrets

_HARMLESS = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def new_request_id() -> str:
    return f"req-{secrets.token_hex(12)}"


def harmless_label(value: bytes) -> str:
    """A client's X-Request-Id as it may stand in a header and a log line, or "" when it may not."""
    return value.decode("ascii") if _HARMLESS.fullmatch(value) else ""
