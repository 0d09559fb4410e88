"""openwork serve around an engine's process that goes wrong: python faulty_server.py FAULT,... serve ...

The faults are those of tests/faulty_worker.py.
"""

import sys

from faulty_worker import faulty

from openwork.cluster import process

if __name__ == "__main__":
    process.COMMAND = faulty(sys.argv.pop(1))
    from openwork.cli.main import run

    run()
