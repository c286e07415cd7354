"""Terminal output. Text from outside is shown, never interpreted.

Passages, queries, model output, file names and server responses may contain escape sequences, which move the cursor,
set the clipboard or hide text, and square brackets, which Rich treats as markup. Consoles from here interpret neither.
"""

import errno
import json
import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

_SHOWN = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}


def visible(text: str) -> str:
    """Text with its control characters made visible; line feeds and tabs stay.

    C0 controls become their Unicode pictures; C1 controls, direction marks, lone surrogates and other characters that
    are not printable become escapes.

    >>> visible("a\\x1b[2Jb\\x9bc")
    'a␛[2Jb\\\\x9bc'
    """
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(c: str) -> str:
    if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs":
        return c
    return _SHOWN.get(ord(c)) or c.encode("unicode_escape").decode()


class SafeConsole(Console):
    """A Rich console that treats every string, printed or inside a table or panel, as plain untrusted text.

    Control characters are made visible again in the output of every renderable (a `Text`, a table's cell), so that
    none can bypass it.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        """Rich would exit here; instead `last_resort` does, after all callers have closed their resources."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(stderr: bool = False, file: IO[str] | None = None, **options: Any) -> SafeConsole:
    """A console on standard output (or standard error, or `file`). Style with `style=` or `Text`, not with markup."""
    return SafeConsole(stderr=stderr, file=file, markup=False, emoji=False, highlight=False, **options)


def outside(text: str, style: str = "") -> Text:
    """Untrusted text as a Rich `Text`, for lines whose parts have different styles."""
    return Text(visible(text), style=style)


def label(template: str) -> "ProgressColumn":
    """A progress bar column: `template` filled with the fields of its task, as plain text."""
    from rich.progress import TextColumn

    return TextColumn(template, markup=False)


def progress(*columns: "ProgressColumn", console: SafeConsole, **options: Any) -> "Progress":
    """A progress bar; hidden if the output is not a terminal."""
    from rich.progress import Progress

    return Progress(*columns, console=console, disable=not console.is_terminal, **options)


def text_line(text: str) -> None:
    """One line to standard output."""
    sys.stdout.write(f"{visible(text)}\n")


def error_line(text: str) -> None:
    """One sentence to standard error."""
    sys.stderr.write(f"{visible(text)}\n")


def json_line(value: Any) -> None:
    """One JSON value on a line of standard output, in ASCII: JSON does not escape C1 controls otherwise."""
    sys.stdout.write(json.dumps(value) + "\n")


def silence_native_output() -> None:
    """Discards what libraries write to file descriptor 2; Python's `sys.stderr` still reaches the terminal.

    For processes that search an embedded index: a Rust panic prints its message before it becomes an exception, and
    that cannot be turned off. Does nothing if `sys.stderr` is not that descriptor.
    """
    try:
        if sys.stderr.fileno() != 2:
            return
    except (AttributeError, OSError, ValueError):
        return
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = terminal
