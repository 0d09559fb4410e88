"""What the command line writes, and to whom: colours only where somebody sees them, control characters never.

Text of a model or a file may hold escape sequences that would move the cursor or rename the window; on a terminal they
are shown as symbols. Into a file or a pipe, text goes as it is. NO_COLOR is respected (no-color.org).
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

RED, YELLOW, DIM, BOLD = "31", "33", "2", "1"
_KEPT = {0x09, 0x0A}
# C0 controls and DEL have symbols of their own in Unicode; C1 controls, which terminals obey too, have none.
_SYMBOLS = {code: 0x2400 + code for code in range(0x20) if code not in _KEPT} | {0x7F: 0x2421}
_SYMBOLS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody is looking. False for a stream that is closed or was never there."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def has_colour(stream: TextIO) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, code: str, stream: TextIO) -> str:
    """``text`` in a colour, where the stream shows colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if has_colour(stream) and text else text


def printable(text: str, stream: TextIO) -> str:
    """Text of unknown origin: what a terminal would obey becomes visible, and does nothing."""
    return text.translate(_SYMBOLS) if is_terminal(stream) else text


def write(text: str, stream: TextIO | None = None, style: str = "") -> None:
    """Write text at once, as it is but for control characters; a character the stream cannot encode becomes "?"."""
    stream = stream or sys.stdout
    text = printable(text, stream)
    text = styled(text, style, stream) if style else text
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def show_error(message: str, hint: str = "") -> None:
    """One red line that says what happened, and a line that says what to do."""
    _show("error", RED, message)
    if hint:
        _show("hint", BOLD, hint)


def show_warning(
    message: Warning | str,
    category: type[Warning] = Warning,
    filename: str = "",
    lineno: int = 0,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of ``warnings.showwarning``, whose file name and source line help no user."""
    _show("warning", YELLOW, str(message))


def show_note(text: str) -> None:
    """A dim line on standard error, for people only: nothing when it is not a terminal."""
    if is_terminal(sys.stderr):
        write(f"{text}\n", sys.stderr, DIM)


def _show(kind: str, colour: str, text: str) -> None:
    write(f"{kind}:", sys.stderr, colour)
    write(f" {' '.join(text.split())}\n", sys.stderr)
