"""A worker that goes wrong on demand: what the engine's process may do in tests of those who have to live with it.

python tests/faulty_worker.py FAULT,... FD PARENT      as RemoteEngine(command=faulty("abort=77")) starts it

abort=T     the process aborts when token T is in a step that it computes
hang=T      it hangs then; hang=T:FILE only if it can create FILE, that is, once
kill=T      it is killed then, as for want of memory
fail=T      the step fails, and the process goes on
slow=S      every step takes S seconds more
deaf=N      after N steps it reads and computes nothing any more, without being at work
nan=T       where token T is the input of a row, the row comes out of the layers as NaN
lie=T       where token T is the input of a row, what is chosen from the row is an id beyond the vocabulary
memory=FILE a step that begins when FILE exists finds no memory, and removes FILE
garbage=N   after N steps it sends what is no message
stillborn   it ends before it has loaded anything
refuse      the model cannot be loaded; refuse=FILE: once FILE exists
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from openwork.cluster import worker
from openwork.core.errors import MemoryTooSmall


def faulty(*faults):
    """The command of a worker with these faults."""
    return (sys.executable, str(Path(__file__)), ",".join(faults))


class FaultyRunner:
    def __init__(self, runner, faults):
        self._runner = runner
        self._faults = faults
        self._num_steps = 0
        self._fails = None
        if "nan" in faults:
            _spoil(runner._model, int(faults["nan"]))
        if "lie" in faults:
            _lie(runner, int(faults["lie"]))

    def submit(self, step):
        self._num_steps += 1
        tokens = {token for work in step.works for token in work.tokens}
        for name, value in self._faults.items():
            self._go_wrong(name, value, tokens)
        return self._runner.submit(step)

    def _go_wrong(self, name, value, tokens):
        if name in ("abort", "hang", "kill", "fail"):
            token, _, once = value.partition(":")
            if int(token) not in tokens or (once and not first_time(once)):
                return
            if name == "abort":
                os.abort()
            elif name == "hang":
                time.sleep(3600)
            elif name == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                self._fails = RuntimeError("this step was told to fail")
        elif name == "memory":
            if Path(value).exists():
                Path(value).unlink()
                self._fails = MemoryError()
        elif name == "slow":
            time.sleep(float(value))
        elif name == "deaf" and self._num_steps > int(value):
            time.sleep(3600)
        elif name == "garbage" and self._num_steps > int(value):
            os.write(int(sys.argv[2]), b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def collect(self, ticket):
        result = self._runner.collect(ticket)
        if self._fails is not None:
            failure, self._fails = self._fails, None
            raise failure
        return result

    def close(self, wait=True):
        self._runner.close(wait)


def _spoil(model, token):
    forward = model.forward

    def spoiled(ids, rows, kv):
        hidden = forward(ids, rows, kv)
        hidden[ids == token] = float("nan")
        return hidden

    model.forward = spoiled


def _lie(runner, token):
    """Marks the row in the layers' output, then in the logits, and gives the id where it finds the mark."""
    model, mark = runner._model, np.float32(12345.5)
    forward, best, logits = model.forward, model.best, model.logits
    choose, argmax = runner._ops.choose, runner._ops.argmax

    def marked(ids, rows, kv):
        hidden = forward(ids, rows, kv)
        hidden[ids == token] = mark
        return hidden

    def best_of(hidden, hashes=None):
        ids, finite = best(hidden, hashes)
        ids[hidden[:, 0] == mark] = model.spec.vocab_size
        return ids, finite

    def logits_of(hidden, out=None):
        found = logits(hidden, out)
        found[hidden[:, 0] == mark] = mark
        return found

    def chosen(row, *how):
        return model.spec.vocab_size if row[0] == mark else choose(row, *how)

    def highest(rows):
        return np.where(rows[:, 0] == mark, model.spec.vocab_size, argmax(rows))

    model.forward, model.best, model.logits = marked, best_of, logits_of
    runner._ops.choose, runner._ops.argmax = chosen, highest


def first_time(file):
    try:
        Path(file).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def load_with(faults):
    def load(start, tenants, progress):
        if "stillborn" in faults:
            os._exit(3)
        if "refuse" in faults and (not faults["refuse"] or Path(faults["refuse"]).exists()):
            raise MemoryTooSmall("the machine has 3 bytes", "Buy another.")
        wired = worker.load(start, tenants, progress)
        return replace(wired, runner=FaultyRunner(wired.runner, faults))

    return load


if __name__ == "__main__":
    named = dict(each.partition("=")[::2] for each in sys.argv[1].split(",") if each)
    sys.exit(worker.main(sys.argv[2:], load_with(named)))
