"""Kept: the responses of late, for previous_response_id and GET, and those under way, for cancel.

They are in this process's memory, bounded in number and bytes, the oldest going first; a restart forgets all. Each is
found under its own tenant only. It does not know what a response is made of.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openwork.serve.bounds import Bounds
from openwork.serve.errors import ApiError, bad_request


@dataclass(frozen=True, slots=True)
class Kept:
    record: bytes  # the response as JSON
    messages: Sequence[Mapping[str, Any]]  # the conversation with its answer
    num_bytes: int


class Shelf:
    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._num_bytes = 0
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._under_way: dict[tuple[str, str], Callable[[], None]] = {}

    def keep(self, tenant: str, id: str, record: bytes, messages: Sequence[Mapping[str, Any]]) -> None:
        """Nothing is kept that is larger than all may be together."""
        size = len(record) + sum(_size(message) for message in messages)
        if size > self._bounds.stored_bytes:
            return
        self._kept[tenant, id] = Kept(record, messages, size)
        self._num_bytes += size
        while len(self._kept) > self._bounds.stored_responses or self._num_bytes > self._bounds.stored_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.num_bytes

    def find(self, tenant: str, id: str) -> Kept:
        """Raises ApiError 404."""
        kept = self._kept.get((tenant, id))
        if kept is None:
            raise _missing()
        self._kept.move_to_end((tenant, id))
        return kept

    def delete(self, tenant: str, id: str) -> None:
        """Raises ApiError 404."""
        kept = self._kept.pop((tenant, id), None)
        if kept is None:
            raise _missing()
        self._num_bytes -= kept.num_bytes

    def begin(self, tenant: str, id: str, cancel: Callable[[], None]) -> None:
        """A response is under way; ``end`` when it no longer is, however it ended."""
        self._under_way[tenant, id] = cancel

    def end(self, tenant: str, id: str) -> None:
        self._under_way.pop((tenant, id), None)

    def cancel(self, tenant: str, id: str) -> bool:
        """End a response that is under way; whether it was. Raises ApiError 404 when it is not known at all."""
        if (tenant, id) in self._under_way:
            self._under_way[tenant, id]()
            return True
        self.find(tenant, id)
        return False


def previous(shelf: Shelf, tenant: str, id: str) -> Sequence[Mapping[str, Any]]:
    """The conversation that a response ended. Raises ApiError 400 naming the field."""
    try:
        return shelf.find(tenant, id).messages
    except ApiError:
        raise bad_request(
            "There is no such previous response here (any more). Send the whole conversation as input.",
            "previous_response_id",
            "previous_response_not_found",
        ) from None


def _missing() -> ApiError:
    return ApiError(404, "not_found_error", "response_not_found", "There is no such response here (any more).")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode()) + 64
    if isinstance(value, Mapping):
        return 64 + sum(_size(key) + _size(entry) for key, entry in value.items())
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 16
