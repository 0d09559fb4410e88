"""Record the README's picture: real commands, run now, with what they really print, as an SVG of a terminal.

python docs/make_picture.py        writes docs/terminal.svg
"""

from __future__ import annotations

import re
import shlex
import subprocess
import textwrap
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100
COMMANDS = (
    'openwork generate "Once upon a time" --echo',
    'openwork generate "the cat" --echo --temperature 0 --max-tokens 5 --logprobs 3',
    "python examples/bits.py",
)


def main() -> None:
    console = Console(record=True, width=WIDTH, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for command in COMMANDS:
        console.print(Text("$ ", "bold green") + Text(command, "bold"))
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
        for line in done.stdout.rstrip("\n").split("\n"):
            console.print(
                Text("\n".join(textwrap.wrap(line, WIDTH, drop_whitespace=False)) if len(line) > WIDTH else line)
            )
        console.print()
    path = Path(__file__).with_name("terminal.svg")
    svg = re.sub(
        r"@font-face \{.*?\}\s*", "", console.export_svg(title="openwork"), flags=re.DOTALL
    )  # no fonts from afar
    path.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
