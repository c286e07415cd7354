"""`r1s show`: the commands that it reads, and that text of episodes is shown and not interpreted."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1searcher.common.files import append_row
from r1searcher.common.terminal import SafeConsole, console
from r1searcher.errors import InputError
from r1searcher.evaluation.reports import read_folder
from r1searcher.evaluation.show import Browser, ShowRequest, interact, run_show
from r1searcher.report.contents import Records
from tests.report.test_page import run_records
from tests.report.test_report import WRONG, a_run, episode


def conversation(records: Records, *said: str) -> str:
    """What is on the screen after these commands and the end of the input."""
    out = io.StringIO()
    screen: SafeConsole = console(file=out, width=200)
    commands: Iterator[str] = iter(said)

    def read(prompt: str) -> str:
        screen.print(f"> {prompt[:0]}")
        try:
            return next(commands)
        except StopIteration:
            raise EOFError from None

    interact(Browser(records), screen, read)
    return out.getvalue()


def shown(text: str) -> list[str]:
    return [line.split(" of ")[0] for line in text.splitlines() if " of 6 · " in line]


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ((), ["1"]),
        (("n", "", "p", "6", "q", "n"), ["1", "2", "3", "2", "6"]),
        (("/where", "/WHERE"), ["1", "2", "3"]),
        (("p", "7", "0", "x", "/zebra", "n"), ["1", "2"]),
    ],
)
def test_commands_move_between_episodes(said: tuple[str, ...], numbers: list[str]) -> None:
    assert shown(conversation(run_records("Lima", 0.5, 1.0, 0.0), *said)) == numbers


def test_a_group_lists_the_samples_of_the_question_by_their_reward() -> None:
    text = conversation(run_records("Lima", 0.5, 1.0, 0.0), "5", "g")
    table = [line.split() for line in text.partition("number")[2].splitlines()[1:] if line.strip(" >")]
    assert [(row[0], row[1], row[-1]) for row in table] == [
        ("5", "1.00", "Lima1"),
        ("4", "0.50", "Lima0"),
        ("6", "0.00", "Lima2"),
    ]


def test_output_elsewhere_is_every_episode_with_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path / "run", steps=2)
    append_row(run.trajectories(2) / "a.jsonl", {**episode(f"\x1b[2J[bold]{WRONG}"), "question": "Why?", "reward": 0.0})
    run_show(ShowRequest(folder=run.path))
    text = capsys.readouterr().out
    assert text.count("gold: Oslo") == 9
    assert "\x1b[2J" not in text
    assert "␛[2J[bold]" in text
    run_show(ShowRequest(folder=run.path, steps=[2], words="why"))
    assert capsys.readouterr().out.count("gold: Oslo") == 1
    with pytest.raises(InputError, match="no question has the words 'zebra'"):
        run_show(ShowRequest(folder=run.path, words="zebra"))


def test_an_evaluation_is_shown_too(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"model": "m", "datasets": {"capitals": {}}}))
    keys = {"dataset": "capitals", "index": 0, "sample": 0, "seconds": 1.0, "reward": 1.0, "parts": {}}
    append_row(tmp_path / "predictions.jsonl", episode(WRONG, **keys))
    assert "1 of 1 · capitals" in conversation(read_folder(tmp_path, []))
