"""The end of the demo, from the files of its parts."""

from pathlib import Path

from r1searcher.common import terminal
from r1searcher.common.files import append_row, write_json
from r1searcher.demo.results import show_results
from r1searcher.episodes.trajectory import Author, Segment, StopReason, Trajectory
from r1searcher.runs.folder import RunFolder
from r1searcher.runs.records import to_row
from r1searcher.stages.held_out import folder_of, trajectories_file

MEASURES = ("em", "f1", "f1_one_hop", "f1_two_hop", "format", "retrieval", "searches")


def finished(output: Path, name: str, value: float, answer: str) -> RunFolder:
    """A part with two steps, unless it is the SFT, whose model answered one held-out question."""
    run = RunFolder(output / name)
    for step in (1, 2) if name != "sft" else ():
        append_row(run.metrics, {"step": step, "reward": value, "f1": value, "searches": value})
    text = f"I think.</think><answer>{answer}</answer>"
    segments = (Segment(Author.PROMPT, "Which river?<think>", (1,)), Segment(Author.MODEL, text, (2,)))
    episode = Trajectory("Which river?", ("Arden",), segments, (), StopReason.ANSWERED, "r1-searcher")
    for temperature in (1.0, 0.0):
        append_row(trajectories_file(run, temperature), to_row(episode, id="q", index=0))
    greedy = dict.fromkeys(MEASURES, value / 2)
    write_json(folder_of(run) / "metrics.json", {**dict.fromkeys(MEASURES, value), "greedy": greedy, "questions": 1})
    return run


def shown(output: Path, *parts: str) -> str:
    console = terminal.console(record=True, width=120, force_terminal=False)
    results = {name: {"f1": 0.0} for name in parts}
    show_results(results, output, output / "curve.png", 12.5, console)
    return console.export_text()


def test_the_table_has_every_finished_part_sampled_and_greedy(tmp_path: Path) -> None:
    for name, value, answer in (("sft", 0.1, "Corra"), ("stage1", 0.2, "Corra"), ("stage2", 0.84, "Arden")):
        finished(tmp_path, name, value, answer)
    text = shown(tmp_path, "sft", "stage1", "stage2")
    [heading] = [line for line in text.splitlines() if "SFT" in line and "stage 1" in line]
    assert "stage 2 alone" not in heading
    [f1] = [line for line in text.splitlines() if line.startswith("│ F1 ")]
    for cell in ("0.10 (0.05)", "0.20 (0.10)", "0.84 (0.42)"):
        assert cell in f1
    assert "<answer>Corra</answer>" in text
    assert "<answer>Arden</answer>" in text
    without = (tmp_path / "curve.png").read_bytes()

    finished(tmp_path, "contrast", 0.5, "Arden")
    for parts in (("sft", "contrast"), ("sft", "stage1", "stage2")):
        text = shown(tmp_path, *parts)
        [heading] = [line for line in text.splitlines() if "SFT" in line and "stage 1" in line]
        assert "stage 2 alone" in heading
        assert "0.50 (0.25)" in text
    assert (tmp_path / "curve.png").read_bytes() != without
