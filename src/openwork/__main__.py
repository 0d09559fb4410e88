"""``python -m openwork`` is the ``openwork`` command."""

from openwork.cli.main import run

run()
