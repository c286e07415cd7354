"""Each script in examples/ runs by itself and prints what its subject gives by definition."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "compose_a_reward.py": (
        # F1 of "ada quill director" and "ada quill": precision 2/3, recall 1.
        "as written           +1.30 = f1 +0.80, retrieval +0.50, format +0.00",
        "thinking not closed  -0.70 = f1 +0.80, retrieval +0.50, format -2.00",
    ),
    "run_an_episode.py": ("[environment] <|begin_of_documents|>", "directed by Ada Quill.", "answered; "),
    "score_predictions.py": (
        "Who directed Silver Harbor?  EM 1  F1 1.00",
        "Where was she born?          EM 0  F1 0.50",  # "town of foxford": precision 1/3, recall 1
        "Which river flows there?     EM 0  F1 0.00",
        "f1                   0.500 [",
    ),
    "search_a_corpus.py": ("indexed 3 passages", "  Silver Harbor: ", "  Foxford: "),
}


def test_every_example_is_tested() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in EXPECTED[name]:
        assert text in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60
