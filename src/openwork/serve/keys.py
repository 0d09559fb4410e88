"""The keys file: who may come, by the SHA-256 of a key, and what each tenant may have.

    [tenants.alice]
    keys = ["sha256:9f86d0..."]        # as many as are valid at a time; openwork serve --new-key alice makes one
    models = ["openwork/stories"]      # without it, all
    requests_per_minute = 60
    tokens_per_minute = 100_000        # prompt and output
    max_running = 64                   # sequences; further requests wait
    max_waiting = 128
    kv_share = [0.1, 0.5]              # of the KV cache: kept for it at least, taken by it at most
    weight = 1.0                       # against the other tenants, where they compete
    cache = "private"                  # or the name of a group that shares its prefix cache
    may_prioritise = false             # set the priority of its requests
    may_operate = false                # read /metrics, which tells on all tenants

It guarantees that a file is taken as a whole or not at all, and that a file which lets nobody in is an error: a server
is never open by mistake. It knows no requests.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from openwork.core.errors import OpenworkError
from openwork.core.terms import Tenant

MAX_FILE_BYTES = 1024 * 1024
MAX_KEYS = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PRIVATE = "private"


class KeysError(OpenworkError):
    """A keys file cannot be used. The message names the file and the place in it, and never a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the file says of one tenant. None: no bound of its own."""

    tenant: str
    digests: frozenset[bytes]
    models: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_running: int | None = 64
    max_waiting: int | None = None
    kv_share: tuple[float, float] = (0.0, 1.0)
    weight: float = 1.0
    cache: str = _PRIVATE
    may_prioritise: bool = False
    may_operate: bool = False

    @property
    def circle(self) -> str:
        """Who sees the same prefix cache; a group that is called like a tenant is another circle."""
        return f"tenant {self.tenant}" if self.cache == _PRIVATE else f"group {self.cache}"

    def as_tenant(self, num_blocks: int) -> Tenant:
        """The bounds that the engine keeps, for a cache of so many blocks."""
        low, high = self.kv_share
        return Tenant(
            weight=self.weight,
            max_running=self.max_running,
            max_waiting=self.max_waiting,
            max_blocks=None if high >= 1 else max(1, int(high * num_blocks)),
            reserved_blocks=int(low * num_blocks),
        )


class Keys:
    """All grants, found by key."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self.grants = {grant.tenant: grant for grant in grants}
        self._by_digest = [(digest, grant) for grant in self.grants.values() for digest in sorted(grant.digests)]

    def find(self, key: bytes) -> tuple[bytes, Grant] | None:
        """The digest of a key and what it grants; takes the same time whichever key it is, and for none."""
        given, found = digest_of(key), None
        for digest, grant in self._by_digest:
            if hmac.compare_digest(digest, given):
                found = digest, grant
        return found

    def holds(self, digest: bytes, tenant: str) -> bool:
        """Whether a key found before still opens the door, as the same tenant."""
        grant = self.grants.get(tenant)
        return grant is not None and digest in grant.digests


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def new_key() -> tuple[str, str]:
    """A key to give away, and what stands for it in the file. 256 bits: its plain hash need not be slow."""
    key = f"ow-{secrets.token_urlsafe(32)}"
    return key, f"sha256:{digest_of(key.encode()).hex()}"


def is_valid_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def is_readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)) and os.name == "posix"


def read_keys(path: Path) -> Keys:
    """Read and check a keys file. Raises KeysError, naming the place."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"{path}: cannot be read: {error.strerror}", "Give a file to --api-keys.") from None
    if len(data) > MAX_FILE_BYTES:
        raise KeysError(f"{path}: is larger than {MAX_FILE_BYTES} bytes")
    try:
        return parse_keys(data.decode("utf-8"))
    except KeysError as error:
        raise KeysError(f"{path}: {error.message}", error.hint) from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: is not UTF-8") from None


def parse_keys(text: str) -> Keys:
    """The grants of a file's text. Raises KeysError for anything that is not exactly as described above."""
    try:
        whole = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise KeysError(f"is not TOML: {error}") from None
    unknown = set(whole) - {"tenants"}
    if unknown:
        raise KeysError(f"there is no {_shown(min(unknown))} in a keys file", "Everything stands under [tenants.NAME].")
    tenants = whole.get("tenants", {})
    if not isinstance(tenants, dict) or not tenants:
        raise KeysError("grants nobody anything", "openwork serve --new-key NAME prints a key and the lines for it.")
    grants = [_grant(name, entry) for name, entry in tenants.items()]
    _check_together(grants)
    return Keys(grants)


def _check_together(grants: list[Grant]) -> None:
    owners: dict[bytes, str] = {}
    for grant in grants:
        for digest in grant.digests:
            if digest in owners:
                raise KeysError(f"tenants.{grant.tenant}.keys: a key of {owners[digest]} stands here, too")
            owners[digest] = grant.tenant
    if len(owners) > MAX_KEYS:
        raise KeysError(f"holds {len(owners)} keys; there may be {MAX_KEYS}")
    kept = sum(grant.kv_share[0] for grant in grants)
    if kept > 1:
        raise KeysError(f"kv_share: the least shares of all tenants add up to {kept:g}, more than the whole cache")


def _grant(name: str, entry: Any) -> Grant:
    if not is_valid_name(name):
        raise KeysError(f"tenants: {_shown(name)} is no name", "Use up to 64 of A-Z a-z 0-9 . _ - and begin plainly.")
    if not isinstance(entry, dict):
        raise KeysError(f"tenants.{name}: is not a table", f"Begin it with [tenants.{name}].")
    known = {each.name for each in fields(Grant)} - {"tenant", "digests"} | {"keys"}
    for each in entry:
        if each not in known:
            raise KeysError(f"tenants.{name}: there is no {_shown(each)}", f"There are {', '.join(sorted(known))}.")
    if "keys" not in entry:
        raise KeysError(f"tenants.{name}.keys: is missing", "Without a key the tenant could not come in.")
    values = {each: _CHECKS[each](f"tenants.{name}.{each}", value) for each, value in entry.items()}
    return Grant(tenant=name, digests=values.pop("keys"), **values)


def _digests(place: str, value: Any) -> frozenset[bytes]:
    if not isinstance(value, list) or not value:
        raise KeysError(f"{place}: must be a list with at least one hash")
    for number, each in enumerate(value):
        if not isinstance(each, str) or not _DIGEST.fullmatch(each):  # not shown: it may be the key itself
            raise KeysError(
                f"{place}[{number}]: must be sha256: and 64 hex digits, in small letters",
                "It stands for the key, and is not the key: openwork serve --new-key NAME prints both.",
            )
    return frozenset(bytes.fromhex(each.removeprefix("sha256:")) for each in value)


def _names(place: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise KeysError(f"{place}: must be a list with at least one name of a model")
    return frozenset(value)


def _count(place: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**40:
        raise KeysError(f"{place}: must be a whole number from 1 up, not {_shown(value)}")
    return value


def _share(place: str, value: Any) -> tuple[float, float]:
    is_pair = isinstance(value, list) and len(value) == 2 and all(_is_real(each) for each in value)
    if not is_pair or not 0 <= value[0] <= value[1] <= 1 or value[1] == 0:
        raise KeysError(f"{place}: must be [least, most] within 0 and 1, not {_shown(value)}")
    return float(value[0]), float(value[1])


def _weight(place: str, value: Any) -> float:
    if not _is_real(value) or not 0 < value <= 1e6:
        raise KeysError(f"{place}: must be a number above 0, not {_shown(value)}")
    return float(value)


def _group(place: str, value: Any) -> str:
    if not isinstance(value, str) or not is_valid_name(value):
        raise KeysError(f'{place}: must be "private" or the name of a group, not {_shown(value)}')
    return value


def _flag(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise KeysError(f"{place}: must be true or false, not {_shown(value)}")
    return value


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_CHECKS: dict[str, Any] = {
    "keys": _digests,
    "models": _names,
    "requests_per_minute": _count,
    "tokens_per_minute": _count,
    "max_running": _count,
    "max_waiting": _count,
    "kv_share": _share,
    "weight": _weight,
    "cache": _group,
    "may_prioritise": _flag,
    "may_operate": _flag,
}
