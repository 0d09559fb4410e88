"""Caller: who sent a request, and what it may do here. Callers: all of them, by their keys.

It guarantees that who calls follows from the key alone, that a prefix cache is seen by the circle it was made for and
by nobody else, and that every place taken is given back. The engine's own bounds for a tenant are kept by the engine.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from openwork.core.errors import RequestError
from openwork.core.terms import Tenant, Terms
from openwork.serve.errors import rate_limited, unauthenticated
from openwork.serve.keys import Grant, Keys
from openwork.serve.rates import Bucket, rate_headers

_SALT = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,512}=*")
_BUSY_RETRY_S = 1.0


class Reservation:
    """A place among the caller's running requests and tokens of its rate, from before a request until its end.

    ``settle`` says how many tokens it really took; leaving the ``with`` block gives the place back.
    """

    def settle(self, tokens: int) -> None:
        pass

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Caller:
    """One tenant, as a request sees it. This one is for a server without keys: everybody is the same tenant."""

    tenant = ""
    may_prioritise = False  # whether it may say how urgent a request is
    may_operate = True  # whether it may read what tells on others
    _circle = ""
    _secret = b"one tenant has no secrets from itself"

    def may_use(self, model: str) -> bool:
        return True

    def terms(
        self,
        *,
        cache_salt: str | None = None,
        priority: int = 0,
        first_token_s: float | None = None,
        next_token_s: float | None = None,
    ) -> Terms:
        """The terms that a request is served on. ``cache_salt`` makes its prefix cache private to those who know it.

        Raises RequestError for a salt that is too long or has other characters than a key may have.
        """
        if cache_salt is not None and not _SALT.fullmatch(cache_salt):
            raise RequestError("must be 1 to 128 of A-Z a-z 0-9 . _ ~ + / = -", param="cache_salt")
        named = self._circle if cache_salt is None else f"{self._circle}\0{cache_salt}"
        return Terms(
            tenant=self.tenant,
            namespace=hmac.new(self._secret, named.encode(), hashlib.sha256).hexdigest(),
            priority=priority,
            first_token_s=first_token_s,
            next_token_s=next_token_s,
        )

    def reserve(self, tokens: int) -> Reservation:
        """Take a place for a request of at most so many tokens, prompt and output. Raises ApiError 429."""
        return Reservation()

    def headers(self) -> Mapping[str, str]:
        """The rate-limit headers of an answer."""
        return {}

    def limits(self) -> dict[str, Any]:
        """What the operator granted, for /v1/limits."""
        return {}


class Usage:
    """What a tenant has taken of its grant; it outlives a change of the grant."""

    def __init__(self, grant: Grant, now: float) -> None:
        self.running = 0
        self.refused = 0
        self.requests = self._bucket(None, grant.requests_per_minute, now)
        self.tokens = self._bucket(None, grant.tokens_per_minute, now)

    def change(self, grant: Grant, now: float) -> None:
        self.requests = self._bucket(self.requests, grant.requests_per_minute, now)
        self.tokens = self._bucket(self.tokens, grant.tokens_per_minute, now)

    @staticmethod
    def _bucket(old: Bucket | None, capacity: int | None, now: float) -> Bucket | None:
        if capacity is None or old is None:
            return None if capacity is None else Bucket(capacity, now)
        old.resize(capacity, now)
        return old


class TenantCaller(Caller):
    """A caller that showed a key."""

    def __init__(self, grant: Grant, digest: bytes, usage: Usage, secret: bytes, clock: Callable[[], float]) -> None:
        self.tenant = grant.tenant
        self.may_prioritise = grant.may_prioritise
        self.may_operate = grant.may_operate
        self.digest = digest
        self._grant = grant
        self._usage = usage
        self._circle = grant.circle
        self._secret = secret
        self._clock = clock

    def may_use(self, model: str) -> bool:
        return self._grant.models is None or model in self._grant.models

    def reserve(self, tokens: int) -> Reservation:
        grant, usage, now = self._grant, self._usage, self._clock()
        if grant.max_running is not None and grant.max_waiting is not None:
            most = grant.max_running + grant.max_waiting
            if usage.running >= most:
                self._refuse(f"You have {usage.running} requests under way, and may have {most}.", _BUSY_RETRY_S)
        for bucket, amount, unit in ((usage.requests, 1, "requests"), (usage.tokens, tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait_s(amount, now)) > 0:
                self._refuse(f"You may have {bucket.capacity} {unit} a minute.", wait)
        if usage.requests is not None:
            usage.requests.take(1, now)
        return _Held(usage, tokens, self._clock)

    def _refuse(self, message: str, wait_s: float) -> None:
        self._usage.refused += 1
        raise rate_limited(message, wait_s, self.headers())

    def headers(self) -> Mapping[str, str]:
        now, usage = self._clock(), self._usage
        kinds = (("requests", usage.requests), ("tokens", usage.tokens))
        return {
            n: v for kind, bucket in kinds if bucket is not None for n, v in rate_headers(kind, bucket, now).items()
        }

    def limits(self) -> dict[str, Any]:
        grant = self._grant
        return {
            "models": None if grant.models is None else sorted(grant.models),
            "requests_per_minute": grant.requests_per_minute,
            "tokens_per_minute": grant.tokens_per_minute,
            "max_running": grant.max_running,
            "max_waiting": grant.max_waiting,
            "kv_share": list(grant.kv_share),
            "weight": grant.weight,
        }


class _Held(Reservation):
    """A place that was taken, and tokens of the rate."""

    def __init__(self, usage: Usage, tokens: int, clock: Callable[[], float]) -> None:
        self._usage = usage
        self._clock = clock
        self._bucket = usage.tokens
        self._taken = 0.0 if self._bucket is None else self._bucket.take(tokens, clock())
        self._used = self._taken  # if nobody says otherwise
        self._is_held = True
        usage.running += 1

    def settle(self, tokens: int) -> None:
        self._used = float(tokens)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_held:
            self._is_held = False
            self._usage.running -= 1
            if self._bucket is not None:
                self._bucket.settle(self._taken, self._used, self._clock())


class Callers:
    """Everybody who may come. ``keys`` None: everybody may, as one tenant."""

    def __init__(self, keys: Keys | None, secret: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._secret = secret
        self._clock = clock
        self._usage: dict[str, Usage] = {}

    @property
    def usage(self) -> Mapping[str, Usage]:
        """By tenant, of those who came."""
        return self._usage

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who sent these headers. Raises ApiError 401."""
        if self._keys is None:
            return Caller()
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        found = None
        if scheme.lower() == b"bearer" and _TOKEN.fullmatch(key):
            found = self._keys.find(key)
        if found is None:
            raise unauthenticated()
        digest, grant = found
        usage = self._usage.setdefault(grant.tenant, Usage(grant, self._clock()))
        return TenantCaller(grant, digest, usage, self._secret, self._clock)

    def replace(self, keys: Keys) -> None:
        """Let a new file take effect; ``is_welcome`` then says whose key is gone."""
        self._keys = keys
        now = self._clock()
        for name, usage in list(self._usage.items()):
            if name in keys.grants:
                usage.change(keys.grants[name], now)
            else:
                del self._usage[name]

    def is_welcome(self, caller: Caller) -> bool:
        """Whether a caller that was identified before still would be."""
        if self._keys is None or not isinstance(caller, TenantCaller):
            return self._keys is None
        return self._keys.holds(caller.digest, caller.tenant)

    def tenants(self, num_blocks: int) -> dict[str, Tenant]:
        """The bounds that an engine with so many blocks keeps for each tenant."""
        grants = {} if self._keys is None else self._keys.grants
        return {name: grant.as_tenant(num_blocks) for name, grant in grants.items()}
