"""OpenRLHF's `AgentExecutor` with our episode loop. Passed to the engine with `--train.agent_func_path`.

OpenRLHF 0.11.2 loads this file by its path in every rollout actor and calls `execute` once per sample. Settings come
from the run folder that an environment variable names, everything about the episode from its prompt and label.
"""

import asyncio
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import Any

from openrlhf.utils.agent import AgentExecutorBase

from r1searcher.common.files import append_row, parse_json, write_text
from r1searcher.common.records import as_record
from r1searcher.engine.environment import run_of_this_process
from r1searcher.engine.openrlhf.patches.ahead import WEIGHTS_STEP
from r1searcher.engine.vllm.generator import VllmGenerator
from r1searcher.episodes.loop import EpisodeRequest, run_episode
from r1searcher.episodes.tokens import HuggingFaceTokenizer
from r1searcher.episodes.trajectory import Author, StopReason, Trajectory
from r1searcher.errors import R1Error
from r1searcher.retrieval.links.retry import RetryingRetriever
from r1searcher.rewards.measures import episode_logs
from r1searcher.runs.records import EpisodeLabel, add_heartbeat, to_row
from r1searcher.runs.resolved import limits_of, protocol_of, read_run, retriever_of, reward_of


class AgentExecutor(AgentExecutorBase):  # type: ignore[misc]  # OpenRLHF is untyped
    """One per rollout actor; episodes run concurrently on the actor's event loop."""

    def __init__(self) -> None:
        self.run = run_of_this_process()
        self.writer = uuid.uuid4().hex[:12]
        stage, self.settings = read_run(self.run)
        assert stage != "sft"  # no rollouts there
        self.reward = reward_of(self.settings, stage)
        self.protocol, self.limits = protocol_of(self.settings), limits_of(self.settings)
        self._tokenizer: HuggingFaceTokenizer | None = None

    def _wrapped(self, tokenizer: Any) -> HuggingFaceTokenizer:
        """The actor's tokenizer; listing its special tokens takes longer than an episode's other tokenizing."""
        if self._tokenizer is None:
            self._tokenizer = HuggingFaceTokenizer(tokenizer)
        return self._tokenizer

    @cached_property
    def retriever(self) -> RetryingRetriever:
        # Opened at the first episode: asynchronous clients belong to the event loop they are used on.
        return retriever_of(self.settings, self._heartbeat)

    def _heartbeat(self, sentence: str) -> None:
        add_heartbeat(self.run, self.writer, sentence)

    async def execute(
        self,
        *,
        prompt: str,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """Run, score and record one episode; see OpenRLHF's `MultiTurnAgentExecutor` for the fields returned."""
        started = time.perf_counter()
        weights_step: int = llm_engine.weights_step  # those of later turns are newer with partial rollouts
        try:
            row = as_record(parse_json(label), EpisodeLabel, f"a label in {self.run.questions}")
            trajectory = await run_episode(
                EpisodeRequest(
                    question=row.question,
                    gold_answers=row.gold_answers,
                    prompt=prompt,
                    protocol=self.protocol,
                    limits=self.limits,
                    id=row.id,
                    step=row.step,
                ),
                VllmGenerator(llm_engine.generate, sampling_params),
                self.retriever,
                self._wrapped(hf_tokenizer),
            )
            reward = self.reward(trajectory)
            seconds = time.perf_counter() - started
            judged = self.settings.reward
            logs = episode_logs(trajectory, reward.parts, seconds, judged.max_answer_words, judged.format_rules)
            append_row(
                self._file_of(row),
                to_row(
                    trajectory,
                    id=row.id,
                    step=row.step,
                    epoch=row.epoch,
                    weights_step=weights_step,
                    reward=reward.total,
                    parts=dict(reward.parts),
                    logs=logs,
                ),
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The engine wraps exceptions in tracebacks of three processes: write the reason where it can be found.
            if not self.run.stop_note.exists():
                reason = str(error) if isinstance(error, R1Error) else f"{type(error).__name__}: {error}"
                write_text(self.run.stop_note, reason + "\n")
            raise
        return as_openrlhf(prompt, label, trajectory, reward.total, {**logs, WEIGHTS_STEP: weights_step})

    def _file_of(self, label: EpisodeLabel) -> Path:
        """This actor's own file in the folder of the label's step, or of the engine's evaluations."""
        evaluated = label.split == "eval"
        return (self.run.eval_trajectories if evaluated else self.run.trajectories(label.step)) / f"{self.writer}.jsonl"


def as_openrlhf(
    prompt: str, label: str, trajectory: Trajectory, reward: float, logs: dict[str, float]
) -> dict[str, Any]:
    """A trajectory in the fields that OpenRLHF 0.11.2 trains on. Everything is derived from the segments."""
    tokens: list[int] = []
    ranges: list[tuple[int, int]] = []
    logprobs: list[float] = []
    for segment in trajectory.segments:
        start = len(tokens)
        tokens += segment.token_ids
        if segment.author is Author.MODEL:
            ranges.append((start, len(tokens)))
        logprobs += segment.logprobs or [0.0] * len(segment.token_ids)
    return {
        "prompt": prompt,
        "label": label,
        "images": None,
        "mm_train_inputs": None,
        "reward": reward,
        "scores": reward,  # what dynamic filtering compares within a question
        "observation_tokens": tokens,
        "action_ranges": ranges,
        "rollout_log_probs": logprobs,
        "truncated": trajectory.stop in (StopReason.TURN_TRUNCATED, StopReason.CONTEXT_FULL),
        "extra_logs": logs,
    }
