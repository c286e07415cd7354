"""Text from outside is shown on a terminal, never interpreted."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table

from r1searcher.common import terminal

CONTROLS = {chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"}


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    assert not CONTROLS & set(terminal.visible(text))
    terminal.visible(text).encode()


def test_text_in_any_language_stays_as_it_is() -> None:
    text = "naïve 東京\u3000Ελλάδα\u00a0हिन्दी 🙂\n\tx"
    assert terminal.visible(text) == text


def test_a_console_takes_strings_for_plain_text_everywhere() -> None:
    hostile = "[bold]x[/nope] :smile: \x1b[2J\x9b"
    out = io.StringIO()
    console = terminal.console(file=out, width=200)
    table = Table(title=hostile)
    table.add_column(hostile)
    table.add_row(hostile)
    console.print(hostile)
    console.print(table)
    console.print(Panel(hostile, title="plain"))
    console.print(terminal.outside(hostile, "bold"))
    console.rule(hostile)
    printed = out.getvalue()
    assert printed.count("[bold]x[/nope] :smile: ␛[2J\\x9b") == 7
    assert not CONTROLS & set(printed)
