"""The end of the demo, from the files of its parts."""

import re
from pathlib import Path

from r1searcher.common import terminal
from r1searcher.common.files import append_row, write_json
from r1searcher.demo.results import show_results
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import to_row
from r1searcher.stages.held_out import folder_of, trajectories_file

MEASURES = ("em", "f1", "f1_one_hop", "f1_two_hop", "format", "retrieval", "searches")


def finished(output: Path, name: str, value: float, right: int) -> RunFolder:
    """A part with two steps, unless it is the SFT. Its model answered `right` of ten held-out questions that need one
    search, and one less when decoded greedily."""
    run = RunFolder(output / name)
    for step in (1, 2) if name != "sft" else ():
        append_row(run.metrics, {"step": step, "reward": value, "f1": value, "searches": value})
    for temperature, known in ((1.0, right), (0.0, right - 1)):
        for number in range(10):
            answer = "Arden" if number < known else "Corra"
            text = f"I think.</think><answer>{answer}</answer>"
            segments = (Segment(Author.PROMPT, "Which river?<think>", (1,)), Segment(Author.MODEL, text, (2,)))
            episode = Trajectory("Which river?", ("Arden",), segments, (), StopReason.ANSWERED, "r1-searcher")
            row = to_row(episode, id=f"q{number}", index=number, hops=1)
            append_row(trajectories_file(run, temperature), row)
    greedy = dict.fromkeys(MEASURES, value / 2)
    write_json(folder_of(run) / "metrics.json", {**dict.fromkeys(MEASURES, value), "greedy": greedy, "questions": 10})
    return run


def shown(output: Path, *parts: str) -> str:
    console = terminal.console(record=True, width=120, force_terminal=False)
    results = {name: {"f1": 0.0} for name in parts}
    files = {"summary": output / "summary-contrast.json", "curve": output / "curve.png"}
    show_results(results, output, console, **files, minutes=12.5)
    return console.export_text()


def cells(text: str, label: str) -> list[list[str]]:
    """The sampled and the greedy cells of a measure."""
    lines = text.splitlines()
    [place] = [number for number, line in enumerate(lines) if re.match(rf" *{label} +sampled", line)]
    return [re.findall(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", line) for line in lines[place : place + 2]]


def test_the_table_has_every_finished_part_sampled_and_greedy(tmp_path: Path) -> None:
    for name, value, right in (("sft", 0.1, 1), ("stage1", 0.2, 3), ("stage2", 0.84, 10)):
        finished(tmp_path, name, value, right)
    text = shown(tmp_path, "sft", "stage1", "stage2")
    [heading] = [line for line in text.splitlines() if "SFT" in line and "stage 1" in line]
    assert "stage 2 alone" not in heading
    for label in ("F1", "F1, one hop"):
        sampled, greedy = cells(text, label)
        assert [cell[:4] for cell in sampled] == ["0.10", "0.30", "1.00"]
        assert [cell[:4] for cell in greedy] == ["0.00", "0.20", "0.90"]
        # By the binomial distribution of ten draws at .3, P(X = 0) = .028, above the tail of .025; P(X > 6) = .011.
        assert (sampled[1], sampled[2]) == ("0.30 [0.00, 0.60]", "1.00 [1.00, 1.00]")
    assert cells(text, "F1, two hops") == [[], []]
    assert "<answer>Corra</answer>" in text
    assert "<answer>Arden</answer>" in text
    without = (tmp_path / "curve.png").read_bytes()

    finished(tmp_path, "contrast", 0.5, 5)
    for parts in (("sft", "contrast"), ("sft", "stage1", "stage2")):
        text = shown(tmp_path, *parts)
        [heading] = [line for line in text.splitlines() if "SFT" in line and "stage 1" in line]
        assert "stage 2 alone" in heading
        assert cells(text, "F1")[0][-1].startswith("0.50 [")
    assert (tmp_path / "curve.png").read_bytes() != without
