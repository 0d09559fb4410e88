"""Figure: one measured thing, as a record for scripts and as a line for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Name = Literal["decode", "prefill", "first_token", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured of one model in one format. None is what this kind of figure does not have."""

    name: Name
    dtype: str
    kv_dtype: str
    batch: int = 1
    context: int = 0  # tokens of a sequence: before the first step of a decode, of the prompt in a prefill

    tok_s: float | None = None
    limit_tok_s: float | None = None  # of the ceiling that binds
    share: float | None = None
    bound: str | None = None  # "memory" | "arithmetic"
    memory_tok_s: float | None = None
    arithmetic_tok_s: float | None = None
    linear_share: float | None = None  # prefill: of the dot product's peak, the layers' matrices alone
    num_bytes: float | None = None  # that a decode step, or a whole prompt, must read
    operations: float | None = None  # that it must make

    seconds: float | None = None  # first_token: from process start, the weights' cache being there
    first_seconds: float | None = None  # the same where there is no cache yet
    peak_bytes: int | None = None  # memory: of a process that makes a first token
    weight_bytes: int | None = None

    def record(self) -> dict[str, Any]:
        """For JSON: what does not belong to this figure is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def line(self) -> str:
        """For people."""
        if self.name == "first_token":
            first = "" if self.first_seconds is None else f"   the very first time {self.first_seconds:.2f} s"
            return f"{'first token':12} {self.dtype:12} {'':15} {self.seconds:9.3f} s{first}"
        if self.name == "memory":
            assert self.peak_bytes is not None and self.weight_bytes is not None
            beyond = (self.peak_bytes - self.weight_bytes) / 1e6
            shown = f"{self.peak_bytes / 1e6:9.0f} MB at most, {beyond:.0f} MB of it beside the weights"
            return f"{'memory':12} {self.dtype:12} {'':15} {shown}"
        what = f"{self.name:12} {self.dtype:12} {self.batch:4} x {self.context:<8}"
        shown = f"{self.tok_s:9.1f} tok/s   ceiling {self.limit_tok_s:9.1f}   {self.share:5.0%} of {self.bound}"
        linear = "" if self.linear_share is None else f", {self.linear_share:.0%} by the matrices alone"
        return f"{what} {shown}{linear}"
