"""The command line: bad input is one sentence and exit code 2, never a traceback."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def r1s(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "r1searcher.cli", *words], capture_output=True, text=True, cwd=folder, timeout=120
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stage1", "missing.toml"), "there is no settings file missing.toml"),
        (("stage1", "--set", "nonsense"), "section.key=value"),
        (("stage1", "--set", "rl.stepz=3"), "did you mean rl.steps?"),
        (("stage2", "--from", "nowhere"), "--from nowhere: this is not the folder of a finished run"),
        (("search", "missing-index", "query"), "missing-index"),
        (("stage1", "--no-such-flag"), "--no-such-flag"),
        (("nonsense",), "nonsense"),
    ],
)
def test_bad_input_is_said_and_exits_with_2(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = r1s(*words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_everything_that_a_stage_lacks_is_reported_at_once(tmp_path: Path) -> None:
    pytest.importorskip("openrlhf")
    done = r1s("stage1", "--set", 'reward.recipe="papper"', "--retriever", "no-index", folder=tmp_path)
    assert done.returncode == 2
    for said in ("model.path is not set", "data.train is not set", "no-index", "papper"):
        assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_run_is_never_written_over(tmp_path: Path) -> None:
    done = r1s("init", folder=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "settings.toml").exists()
    assert r1s("init", folder=tmp_path).returncode == 2


RUN = "--preset --set --name --model --seed"
RL = f"{RUN} --data --retriever"
MODEL = "--retriever --served-model --tokenizer --seed --set"
OPTIONS = {
    "init": "",
    "sft": f"{RUN} --steps",
    "stage1": f"{RL} --steps --from",
    "stage2": f"{RL} --steps --from",
    "train": RL,
    "check": f"{RL} --stage --queries --json",
    "plan": f"{RUN} --nodes --gpus --gpu-memory --json",
    "demo": "--output --seed --contrast --set",
    "data r1-searcher": "--to --from",
    "data traces": "--to --min-f1 --min-searches --per-question --limit --seed --json",
    "simulate prepare": "--to --min-f1 --max-words --limit --balance --seed --json",
    "data bootstrap": "--to --questions-to --retriever --model --config --preset --set --data-dir --limit --max-traces "
    "--seed --json",
    "index-corpus": "--to --format --limit --overwrite --restart --rejects --bad-rows"
    " --analyzer --k1 --b --title-weight --shards --dense --pooling --query-prefix --passage-prefix --max-length"
    " --vectors --device --batch-size --trust-remote-code",
    "index push": "--overwrite",
    "index pull": "--overwrite",
    "search": "--queries --top-k --explain --json",
    "serve": "--port --host --workers --allowed-host --mcp",
    "recall": "--dataset --config --exhaustive --plot --output --concurrency --data-dir --limit --json",
    "evaluate": f"{MODEL} --dataset --to --data-dir --limit --samples --temperature"
    " --judge --judge-model --concurrency",
    "ask": f"{MODEL} --model --temperature",
    "score": "--json --judge --judge-model --dataset --reward",
    "compare": "--json --dataset",
    "report": "--step --to",
}


def test_every_command_is_listed_in_the_help(tmp_path: Path) -> None:
    shown = r1s("--help", folder=tmp_path).stdout
    listed = re.findall(r"^│ ([a-z][a-z0-9-]+) ", shown, re.MULTILINE)
    assert sorted(listed) == sorted({command.split()[0] for command in OPTIONS})


@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_lists_the_options_that_it_shares_with_others_and_its_own(command: str, tmp_path: Path) -> None:
    shown = r1s(*command.split(), "--help", folder=tmp_path).stdout
    listed = {word for line in shown.splitlines() for word in line.strip("│* ").split()[:1] if word.startswith("--")}
    assert listed == {*OPTIONS[command].split(), "--help"}


def test_shared_options_reach_the_settings(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("seed = 1\n[rl]\nsteps = 1\n")
    done = r1s(
        *("stage1", "settings.toml", "--seed", "-3", "--steps", "-4", "--name", "a/b", "--set", "rl.kl_coef=-5"),
        folder=tmp_path,
    )
    assert done.returncode == 2
    for said in ("seed = -3", "rl.steps = -4", "name = 'a/b'", "rl.kl_coef = -5"):
        assert said in done.stderr


def test_train_reads_the_settings_of_every_stage_before_the_first_one_starts(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[stage2.rl]\nsteps = -1\n")
    done = r1s("train", "settings.toml", folder=tmp_path)
    assert done.returncode == 2
    assert "rl.steps = -1" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]
