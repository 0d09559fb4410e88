"""Change: what somebody asks of a recording: "what if the settings had been these?" Checked as settings always are.

    Settings (as recorded) + Change -> Settings (as asked)

A Change names only what is to be different. What it cannot ask for is what the recorded answers depend on: a model, its
numbers, and how long each answer was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from openwork.core.errors import RequestError
from openwork.core.settings import AdmissionSettings, CacheSettings, First, Order, ScheduleSettings, SpeculationSettings
from openwork.core.terms import Tenant
from openwork.trace.entry import Began

SCHEDULE = (
    "max_step_tokens",
    "max_running",
    "order",
    "is_fair",
    "first",
    "next_token_s",
    "stretch",
    "patience_s",
    "speculation",
)
ADMISSION = ("max_waiting", "max_waiting_tokens", "max_blocks")


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a scheduler is made with."""

    cache: CacheSettings
    schedule: ScheduleSettings
    admission: AdmissionSettings
    tenants: Mapping[str, Tenant] = field(default_factory=dict)

    @classmethod
    def of(cls, began: Began) -> Settings:
        """Those of an engine process."""
        return cls(began.cache, began.schedule, began.admission, began.tenants)

    def flat(self) -> dict[str, Any]:
        """As one record; tenants by name, speculation as the number of tokens guessed at most."""
        guessed = self.schedule.speculation
        return {
            "num_blocks": self.cache.num_blocks,
            "block_size": self.cache.block_size,
            "prefix": self.cache.prefix,
            **asdict(self.schedule),
            "speculation": None if guessed is None else f"{guessed.guess}, up to {guessed.max_draft}",
            **asdict(self.admission),
            **{f"tenant {name}": _terms(tenant) for name, tenant in self.tenants.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Other settings; None leaves one as it was recorded.

    ``tenants`` have other terms, by name: only what is given changes. ``unbounded`` names those that are to have no
    bound, or not to be at all: "stretch", "next_token_s", "speculation", "max_waiting", "max_waiting_tokens",
    "max_blocks".
    """

    prefix: bool | None = None
    blocks: int | None = None
    blocks_factor: float | None = None  # times as many as there were
    max_step_tokens: int | None = None
    max_running: int | None = None
    order: Order | None = None
    is_fair: bool | None = None
    first: First | None = None
    next_token_s: float | None = None
    stretch: float | None = None
    patience_s: float | None = None
    speculation: SpeculationSettings | None = None
    max_waiting: int | None = None
    max_waiting_tokens: int | None = None
    max_blocks: int | None = None
    tenants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unbounded: frozenset[str] = frozenset()

    def of(self, was: Settings) -> Settings:
        """The settings that are asked for. Raises OpenworkError, saying what they must be."""
        blocks = was.cache.num_blocks if self.blocks is None else self.blocks
        if self.blocks_factor is not None:
            blocks = round(was.cache.num_blocks * self.blocks_factor)
        if blocks < 1:
            raise RequestError(f"comes to {blocks}; there must be at least one block", param="kv_blocks")
        prefix = was.cache.prefix if self.prefix is None else self.prefix
        tenants = {name: replace(was.tenants.get(name, Tenant()), **terms) for name, terms in self.tenants.items()}
        return Settings(
            replace(was.cache, num_blocks=blocks, prefix=prefix),
            replace(was.schedule, **self._asked(SCHEDULE)),
            replace(was.admission, **self._asked(ADMISSION)),
            {**was.tenants, **tenants},
        )

    def _asked(self, names: tuple[str, ...]) -> dict[str, Any]:
        asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**asked, **{name: None for name in self.unbounded if name in names}}


def _terms(tenant: Tenant) -> str:
    """Of a tenant, what is not as it is for everybody."""
    usual = asdict(Tenant())
    return ", ".join(f"{name} {value}" for name, value in asdict(tenant).items() if value != usual[name]) or "as usual"
