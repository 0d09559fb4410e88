"""Whether a constraint can be used is found out in a process that may die of it, and says what is wrong with it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from threading import Thread

import pytest
import schemas

from openwork.core.constraint import Constraint
from openwork.core.errors import EngineUnavailable, RequestError
from openwork.text.trial import Trial

DOUBLING = {  # a kilobyte that asks for two to the thirtieth
    "$ref": "#/$defs/d0",
    "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    | {"d30": {"type": "string", "pattern": ".*a.*"}},
}


@pytest.fixture(scope="module")
def trial():
    made = Trial()
    yield made
    made.close()


def schema(**keywords):
    return Constraint.json_schema(keywords)


GOOD = [
    Constraint.json_schema(True), schema(), Constraint.json_object(), Constraint.regex("(a|b)*abb"),
    Constraint.choice(["a", "</s>", "<x>"]), Constraint.lark('start: "<s>" /<b>/ // <c>\n'),
    *(Constraint.json_schema(each) for each in schemas.BY_HAND.values()), schema(unknown={"not": 1}),
]  # fmt: skip


@pytest.mark.parametrize("constraint", GOOD)
def test_what_can_be_used_passes(trial, constraint):
    trial.check(constraint)


BAD = [
    (schema(**{"not": {}}), '"not"'), (schema(type="array", uniqueItems=True), '"uniqueItems"'),
    (schema(**{"if": {}, "then": {}}), '"if"'), (schema(properties={"a": {"contains": {}}}), '"contains"'),
    (schema(propertyNames={}), '"propertyNames"'), (schema(**{"x-guidance": {"lenient": True}}), '"x-guidance"'),
    (schema(format="color"), "color"), (schema(type="foo"), "foo"), (schema(**{"$ref": "http://example.com/a"}), "not"),
    (schema(enum=[]), "nsatisfiable"), (schema(allOf=[{"type": "string"}, {"type": "number"}]), "nsatisfiable"),
    (schema(**{"$ref": "#"}), "nothing satisfies"), (schema(oneOf=[{"type": "number"}, {"minimum": 0}]), "oneOf"),
    (schema(properties=[]), ""), (schema(minLength=-1), ""), (schema(pattern="("), ""),
    (schema(pattern=r"(?<=a)b"), ""),
    *((Constraint.regex(bad), "") for bad in ("(", "[", "*", "(?<=a)b", r"\1", "(?P<", "(?=a)b", "(" * 2000)),
    *((Constraint.lark(bad), "") for bad in (
        "root ::= root", "root ::= root root |", "start: foo", 'foo: "a"', "start: start", 'start: "', 'start: "\\x"',
        "start: <s>", "start: <[1]>", "start: @other", 'start: ' + "(" * 20_000 + '"a"' + ")" * 20_000,
        "start: a\na: b\nb: a", 'start: %json {"not": {}}',
    )),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "said"), BAD)
def test_what_cannot_be_used_is_refused_and_named(trial, constraint, said):
    with pytest.raises(RequestError, match=said or constraint.kind) as caught:
        trial.check(constraint)
    assert caught.value.param == constraint.kind
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_a_constraint_that_the_helper_does_not_survive_is_refused_and_the_next_is_tried(trial):
    for _ in range(2):  # the second time from memory
        with pytest.raises(RequestError, match=r"too much memory|too long"):
            trial.check(Constraint.json_schema(DOUBLING))
    trial.check(Constraint.regex("after"))


def test_a_helper_that_somebody_ends_is_replaced(trial):
    trial.check(Constraint.regex("before"))
    first = trial._helper
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    trial.check(Constraint.regex("behind"))
    assert trial._helper.pid != first.pid


def script(text):
    return Trial(command=(sys.executable, "-c", text))


def test_one_that_is_always_ended_from_outside_or_cannot_be_started_is_nobodys_fault():
    with pytest.raises(EngineUnavailable):
        script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").check(Constraint.regex("a"))
    with pytest.raises(EngineUnavailable):
        Trial(command=("/there/is/no/such/program",)).check(Constraint.regex("a"))


def test_one_that_takes_too_long_is_refused(monkeypatch):
    with pytest.raises(RequestError, match="too long"):
        script("import os, signal; input(); os.kill(os.getpid(), signal.SIGXCPU)").check(Constraint.regex("a"))
    monkeypatch.setattr("openwork.text.trial.WALL_S", 0.2)
    with pytest.raises(RequestError, match="too long"):
        script("import time; time.sleep(60)").check(Constraint.regex("a"))


ECHO = """
import sys
for line in sys.stdin:
    with open(sys.argv[1], "a") as log: log.write(line)
    print('{"error": null}', flush=True)
"""


def test_nothing_is_tried_twice_and_verdicts_are_bounded(tmp_path):
    log = tmp_path / "log"
    trial = Trial(command=(sys.executable, "-c", ECHO, str(log)), max_bytes=4000)
    threads = [Thread(target=trial.check, args=(Constraint.regex("a+"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.read_text().splitlines()) == 1
    for number in range(50):
        trial.check(Constraint.regex(f"a{number}"))
        assert trial.num_bytes <= 4000
    trial.close()


def test_many_in_a_row_do_not_grow_the_helper(trial, is_long):
    for number in range(10_000 if is_long else 150):
        trial.check(schema(properties={f"field {number}": {"type": "string", "maxLength": number}}))
    pages = int(Path(f"/proc/{trial._helper.pid}/statm").read_text().split()[1])
    assert pages * os.sysconf("SC_PAGE_SIZE") < 256 << 20


def test_closing_ends_the_helper():
    trial = Trial()
    trial.check(Constraint.regex("a"))
    helper = trial._helper
    trial.close()
    assert helper.returncode == 0
    trial.close()
