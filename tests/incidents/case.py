"""Case: one bad input with its id, and what a correct server makes of it. Tables of cases are tests and a page of docs.

    table = Table("HTTP")
    table.refused("J05", "two documents", B + B, 400)            data: sent as it is, the answer compared
    @table.case("Q03", "half close after the request", "the whole answer")       or a function of the house

    test_incidents = table.as_test()

Every case ends with postcondition P, which the house checks (house.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from incidents.house import House
from incidents.serving import Answer

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
Do = Callable[[House], None]


@dataclass(frozen=True)
class Case:
    id: str
    input: str
    expected: str
    do: Do
    crashes: bool = False  # the engine's process is another one afterwards
    needs_long: bool = False


@dataclass
class Table:
    title: str
    cases: list[Case] = field(default_factory=list)

    def case(self, id: str, input: str, expected: str, **options: Any) -> Callable[[Do], Do]:
        def add(do: Do) -> Do:
            self.cases.append(Case(id, input, expected, do, **options))

        return add

    def each(self, id: str, expected: str, inputs: dict[str, Any], **options: Any):
        """One case for every input, which the function gets as its second argument."""

        def add(do: Callable[[House, Any], None]):
            for name, value in inputs.items():
                self.cases.append(Case(id, name, expected, lambda house, v=value: do(house, v), **options))
            return do

        return add

    def refused(
        self,
        id: str,
        input: str,
        body: Any,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        path: str = CHAT,
    ) -> None:
        """A body that is refused, naming ``param`` where that is given."""

        def do(house: House) -> None:
            answer = house.post(path, body() if callable(body) else body)
            assert answer.status == status, answer
            error = answer.error
            assert param is None or error["param"] == param, error
            assert code is None or error["code"] == code, error

        said = " ".join(str(part) for part in (status, code and f"`{code}`", param and f"({param})") if part)
        self.cases.append(Case(id, input, said, do))

    def accepted(self, id: str, input: str, body: Any, check: Callable[[Answer], None] | None = None, path: str = CHAT):
        """A body that is odd and right."""

        def do(house: House) -> None:
            answer = house.post(path, body() if callable(body) else body)
            assert answer.status == 200, answer
            if check is not None:
                check(answer)

        self.cases.append(Case(id, input, "200", do))

    def as_test(self):
        """A test for each id, with all its inputs in one audit; with --long, every input has an audit of its own."""
        ids = list(dict.fromkeys(case.id for case in self.cases))

        @pytest.mark.parametrize("id", ids)
        def test_incidents(id: str, house: House, is_long: bool) -> None:
            cases = [case for case in self.cases if case.id == id and (is_long or not case.needs_long)]
            if not cases:
                pytest.skip("takes long")
            groups = [[case] for case in cases] if is_long else [cases]
            failures = [failure for group in groups for failure in _run(house, group)]
            if failures:
                raise ExceptionGroup(f"{id}: {len(failures)} of {len(cases)} inputs", failures)

        return test_incidents


def _run(house: House, cases: list[Case]) -> list[Exception]:
    """The cases, one after the other, within one audit; what went wrong, each with the input that did it."""
    failures = []
    with house.audited(any(case.crashes for case in cases)):
        for case in cases:
            try:
                case.do(house)
            except Exception as failure:
                failure.add_note(f"input: {case.input}; expected: {case.expected}")
                failures.append(failure)
    return failures


def chat(**fields: Any) -> dict[str, Any]:
    """A small chat request, with fields set or, where they are ..., left out."""
    from incidents.serving import MODEL, SECRET

    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"hi {SECRET}"}],
        "max_tokens": 4,
        "temperature": 0,
        **fields,
    }
    return {name: value for name, value in body.items() if value is not ...}


def completion(**fields: Any) -> dict[str, Any]:
    from incidents.serving import MODEL, SECRET

    body = {"model": MODEL, "prompt": f"hi {SECRET}", "max_tokens": 4, "temperature": 0, **fields}
    return {name: value for name, value in body.items() if value is not ...}


def says(content: Any, **fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": content, **fields}])
