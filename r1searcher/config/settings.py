"""Every setting of a run, with its meaning; read from one TOML file, with all errors reported together.

A file has settings for all stages and, under `[sft]`, `[stage1]` and `[stage2]`, those that differ there:

    seed = 7
    [episode]
    max_searches = 8
    [stage2.rl]
    learning_rate = 1e-6

`load(...)` merges presets, file, stage table and command-line overrides, in this order, into one `Settings`.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from r1searcher.common.files import read_toml
from r1searcher.common.section import Section, explain, keys_of, short
from r1searcher.episodes.protocol import PROTOCOLS
from r1searcher.episodes.protocols.r1_searcher import R1_SEARCHER
from r1searcher.errors import InputError
from r1searcher.questions.datasets import DATASETS
from r1searcher.retrieval.base import EngineSettings
from r1searcher.retrieval.registry import RETRIEVERS, settings_of, settings_of_table
from r1searcher.rewards.measures import MEASURES
from r1searcher.rewards.recipes import RECIPES, Part
from r1searcher.tracking.base import TRACKERS, TrackerSettings
from r1searcher.tracking.trackio import Trackio
from r1searcher.tracking.wandb import Wandb

Stage = Literal["sft", "stage1", "stage2"]
STAGES: tuple[Stage, ...] = ("sft", "stage1", "stage2")


MANY = 1_000_000
"""Upper limit of counts: more is a typing error, and some libraries accept only 32 bits."""

LONGEST_NAME = 240
"""Bytes of a run's name: file systems accept 255, and some files add a suffix."""

LARGEST_SEED = 2**31 - 1
"""NumPy accepts 32 bits, and each vLLM engine adds its number to the seed."""


class _Derived:
    """Marks a setting that, on GPUs and where it is not set, follows from the model and the GPUs; its default is the
    value without GPUs. See `planning.derive`."""


DERIVED = _Derived()

TRAINING_DATASETS = tuple(name for name in DATASETS.builtin if "train" in DATASETS[name].splits)


class Model(Section):
    path: str = ""
    """Folder in Hugging Face format, hub name, or "demo" (SmolLM2-135M-Instruct, a cached download of 98 MB)."""

    prompt: str = "chat"
    """Prompt text: "chat" or "base" of the episode's protocol, "bare" (question only), "chatml" (question in chat
    markup), or a file with {question} in it."""

    chat_template: bool = True
    """Apply the tokenizer's chat template, with the prompt as the user's message; false uses the text unchanged."""

    reserved_tokens: bool = False
    """SFT only: assign an unused reserved token of the vocabulary to each protocol tag, without resizing the model."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave this off unless you wrote or read that code."""


class Data(Section):
    train: str = Field(
        "",
        description="File of questions with gold answers (JSON Lines, JSON, Parquet, CSV or TSV; see "
        "docs/evaluation.md), or the name of a dataset, whose training split is used: "
        f'{", ".join(TRAINING_DATASETS)}. Choose a split with a colon, as in "nq:dev" or "r1-searcher:stage1".',
    )

    held_out: str = Field(
        "",
        description="File of questions that are never trained on, or the name of a dataset "
        f"({', '.join(DATASETS.builtin)}), to evaluate on after a stage; empty for none.",
    )

    folder: str = ""
    """Folder with the named datasets, instead of the hub."""

    traces: str = ""
    """JSONL file of SFT traces: {"segments": [["prompt" | "model" | "environment", text], …]}, or of prompts with
    responses: {"prompt": text, "response": text}."""

    limit: int | None = Field(None, ge=1, le=10**9)
    """Use only the first N questions."""

    shuffle: bool = True
    """Shuffle the questions before each pass, as the seed decides; false keeps the order of the file."""


class Retrieval(Section):
    """The retriever: a URL, or a kind and its keys (see docs/retrieval.md)."""

    model_config = ConfigDict(extra="allow")  # those of the kind

    url: str = ""
    """Retriever: an index folder, es://host:9200/name, http://host:8000/retrieve, http://host:8000/queries, or KIND:…
    for one of another package."""

    kind: str = ""
    """Kind of retriever (bm25, es, http, or one of another package), where it has further settings in this table."""

    retry_timeout_s: float = Field(600.0, gt=0, le=10_000_000)
    """Seconds that a run retries while the retriever is down, before it stops with its last checkpoint."""

    @property
    def is_set(self) -> bool:
        return bool(self.url or self.kind)

    @property
    def engine(self) -> EngineSettings:
        """The engine's own settings. Raises `InputError` for a URL that is not a retriever's."""
        if not self.kind:
            return settings_of(self.url)
        return settings_of_table(self.kind, {**({"url": self.url} if self.url else {}), **(self.model_extra or {})})

    def absolute(self) -> Self:
        """The same retriever, valid in any working directory. A URL with several keys becomes a table."""
        if not self.is_set:
            return self
        engine = self.engine.absolute()
        if engine.model_fields_set <= {"kind", "url"}:
            return self.model_copy(update={"url": engine.url}) if self.url else self
        table = engine.model_dump(mode="json", exclude_unset=True)
        return type(self).model_validate({**table, "kind": engine.kind, "retry_timeout_s": self.retry_timeout_s})

    @field_validator("kind", mode="after")
    @classmethod
    def known_kind(cls, value: str) -> str:
        try:
            if value:
                RETRIEVERS.require(value)
            return value
        except InputError as error:
            raise PydanticCustomError("kind", "{error}", {"error": str(error)}) from None

    @model_validator(mode="after")
    def further_keys_are_those_of_the_kind(self) -> "Retrieval":
        if self.kind:
            _ = self.engine  # its errors are ours, at their keys
        elif self.model_extra:
            unknown = [
                InitErrorDetails(type="extra_forbidden", loc=(key,), input=value)
                for key, value in self.model_extra.items()
            ]
            raise ValidationError.from_exception_data("Retrieval", unknown)
        return self


class Episode(Section):
    protocol: str = Field(
        R1_SEARCHER.name,
        description="Tags, turns and prompts with which the model searches and answers: "
        f"{', '.join(PROTOCOLS.builtin)}, or a protocol of another package.",
    )

    max_searches: int = Field(8, ge=0, le=10_000)
    """Maximum searches per episode; a request for one more ends it."""

    max_new_tokens: int = Field(512, ge=1, le=10 * MANY)
    """Maximum tokens that the model writes per turn."""

    max_context: int = Field(4096, ge=16, le=10 * MANY)
    """Maximum tokens of prompt, turns and documents together. Documents are truncated to fit, the question never."""

    top_k: int = Field(3, ge=1, le=1000)
    """Passages shown per query."""

    max_document_words: int = Field(120, ge=1, le=MANY)
    """Words shown per passage."""

    temperature: float = Field(1.0, ge=0.01, le=100)
    """Sampling temperature of rollouts. It cannot be 0: equal samples of a question teach nothing."""


class Reward(Section):
    recipe: str = Field("paper", description=f"{', '.join(RECIPES.builtin)}, or a recipe of another package.")

    parts: Annotated[tuple[Part, ...], Field(strict=False)] = ()
    """Your own composition instead of a recipe: tables of name, weight, if_zero and params."""

    max_answer_words: int = Field(10, ge=1, le=MANY)
    """Maximum words of an answer; a longer one breaks the format."""

    format_rules: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Format rules of other packages, in addition to those of docs/rewards.md."""


ClipRange = Annotated[float, Field(gt=0, le=MANY)]


class RL(Section):
    algorithm: str = "reinforce++-baseline"
    """How the policy is updated from rewards: reinforce++, reinforce++-baseline, rloo, grpo, dr-grpo, flash-reinforce,
    gspo, ppo or one of another package; see docs/training.md."""

    questions_per_step: int = Field(64, ge=1, le=MANY)
    """Questions per step."""

    samples_per_question: int = Field(16, ge=1, le=MANY)
    """Trajectories sampled per question."""

    batch_size: int = Field(256, ge=1, le=MANY)
    """Trajectories per optimizer update."""

    micro_batch_size: Annotated[int, DERIVED] = Field(4, ge=1, le=MANY)
    """Trajectories per forward and backward pass, on each device."""

    forward_micro_batch_size: int | None = Field(None, ge=1, le=MANY)
    """The same for passes without training, which compute the log-probabilities before an update; `micro_batch_size` if
    not set."""

    dynamic_batch: bool = False
    """Pack as many trajectories into a forward and backward pass as max_tokens_per_gpu allows, instead of a fixed
    number: less time where their lengths differ. micro_batch_size then only sets that limit's default."""

    max_tokens_per_gpu: int | None = Field(None, ge=16, le=1000 * MANY)
    """dynamic_batch only: tokens per pass on each device; micro_batch_size x episode.max_context if not set."""

    learning_rate: float = Field(2e-6, gt=0, le=1)
    """Adam's learning rate, without warmup."""

    lr_schedule: Literal["constant", "cosine"] = "constant"
    """cosine lowers the learning rate to a tenth by the last step of the stage."""

    kl_coef: float = Field(0.0, ge=0, le=1000)
    """Weight of the KL divergence from the model that the stage starts with. With 0 no reference model is loaded."""

    kl_estimator: Literal["k1", "k2", "k3"] | None = None
    """Estimator of the KL divergence per token; the algorithm's if not set."""

    kl_in_loss: bool | None = None
    """Whether the KL divergence is a term of the loss (with k2 or k3) or subtracted from the reward; the algorithm's if
    not set."""

    clip_range: Annotated[tuple[ClipRange, ClipRange] | None, Field(strict=False)] = None
    """How far below and above 1 the ratio of new to old probability counts in the loss, such as [0.2, 0.28]; the
    algorithm's if not set."""

    dual_clip: float | None = Field(None, gt=1, le=MANY)
    """Largest ratio that counts where the advantage is negative (dual-clip PPO, arXiv 1912.09729)."""

    loss_aggregation: Literal["token", "trajectory"] | None = None
    """Whether each token or each trajectory of an update has the same weight; the algorithm's if not set."""

    entropy_coef: float | None = Field(None, ge=0, le=1000)
    """Weight of the policy's entropy, which the loss rewards. 0 only logs it; if not set, it is not computed."""

    gae_lambda: float = Field(1.0, ge=0, le=1)
    """ppo only: lambda of generalized advantage estimation (GAE); it must be 1."""

    critic_learning_rate: float = Field(9e-6, gt=0, le=1)
    """ppo only: Adam's learning rate for the critic, without warmup."""

    value_clip_range: float = Field(0.5, gt=0, le=MANY)
    """ppo only: how far a value may move from the one before the update and still count in the critic's loss."""

    steps: int | None = Field(None, ge=1, le=MANY)
    """Steps of this stage; one pass over the questions if not set."""

    @property
    def rollouts(self) -> int:
        """Trajectories per step."""
        return self.questions_per_step * self.samples_per_question

    @model_validator(mode="after")
    def values_of_model_tokens(self) -> "RL":
        if self.gae_lambda < 1:
            raise ValueError(
                f"gae_lambda = {self.gae_lambda}: must be 1; OpenRLHF sets the values of document tokens to 0, so that "
                "with less than 1 every search counts as a loss of all value"
            )
        return self

    @model_validator(mode="after")
    def whole_updates(self) -> "RL":
        if self.rollouts % self.batch_size:
            raise ValueError(
                f"batch_size = {self.batch_size}: must divide questions_per_step x samples_per_question = "
                f"{self.rollouts}"
            )
        if self.steps is not None and self.steps * self.questions_per_step > 100 * MANY:
            raise ValueError(
                f"steps = {self.steps}: with questions_per_step = {self.questions_per_step} this is more than "
                f"{100 * MANY} prompts; lower one of them"
            )
        return self


class Sft(Section):
    learning_rate: float = Field(1e-5, gt=0, le=1)
    """Adam's peak learning rate."""

    batch_size: int = Field(8, ge=1, le=MANY)
    """Traces per update."""

    micro_batch_size: Annotated[int, DERIVED] = Field(8, ge=1, le=MANY)
    """Traces per forward and backward pass."""

    steps: int | None = Field(None, ge=1, le=MANY)
    """Updates; one pass over the traces if not set."""


class Lora(Section):
    """Train low-rank adapters (LoRA, arXiv 2106.09685) instead of all weights. They are merged into the saved model."""

    rank: int = Field(0, ge=0, le=100_000)
    """Rank of the adapters; 0 trains all weights."""

    alpha: int = Field(16, ge=1, le=MANY)
    """An adapter's output is multiplied by alpha / rank."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the adapters' input during training."""

    target_modules: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the linear layers that get an adapter, such as q_proj; if empty, all but the vocabulary's head."""

    @field_validator("target_modules", mode="after")
    @classmethod
    def no_vocabulary(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name in ("embed_tokens", "lm_head") or not re.fullmatch(r"[A-Za-z0-9_.]+", name):
                raise PydanticCustomError(
                    "target_modules", "must hold names of linear layers, such as q_proj, not the embeddings or the head"
                )
        return value


class Stop(Section):
    """End the stage early once every measure named here reaches its threshold, as its mean over the sampled rollouts of
    a step: retrieval = 0.95, format = 0.9, f1 = 0.9 and so on. The measures are in docs/evaluation.md."""

    model_config = ConfigDict(extra="allow")  # a threshold for each measure
    __pydantic_extra__: dict[str, float]

    patience: int = Field(1, ge=1, le=MANY)
    """Consecutive steps that must reach the thresholds."""

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The least value of each measure, by its name."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def thresholds_are_for_measures(self) -> "Stop":
        wrong = [
            InitErrorDetails(type=problem, loc=(name,), input=value)
            for name, value in self.thresholds.items()
            if (problem := _threshold_problem(name, value))
        ]
        if wrong:
            raise ValidationError.from_exception_data("Stop", wrong)
        return self


def _threshold_problem(name: str, value: float) -> "str | PydanticCustomError | None":
    """The pydantic error of a threshold that no step can be compared with. Raises `InputError` for a measure that
    cannot be imported."""
    if name not in MEASURES:
        return "extra_forbidden"
    if not MEASURES[name].is_in_training:
        return PydanticCustomError("measure", "steps of training do not report this measure")
    low, high = MEASURES[name].range
    if low <= value <= high:
        return None
    limits = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
    return PydanticCustomError("threshold", "must be {limits}", {"limits": limits})


class Checkpoint(Section):
    every: int = Field(8, ge=1, le=MANY)
    """Steps between checkpoints."""

    keep: int = Field(2, ge=1, le=MANY)
    """Checkpoints to keep."""

    @property
    def kept(self) -> int:
        """At least two: one is deleted before the next is written, and a kill in between would lose the only one."""
        return max(2, self.keep)


class Engine(Section):
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train; auto uses GPUs if there are any."""

    precision: Literal["bf16", "fp32", "mixed"] = "bf16"
    """GPUs take bf16 only. mixed keeps weights and Adam's state in fp32, and computes and samples in bf16."""

    freeze_lower_layers: int = Field(0, ge=0, le=100_000)
    """CPU only: the embeddings and the lowest N layers are not trained."""

    cpu_kv_cache_gib: float = Field(1.0, gt=0, le=MANY)
    """CPU only: vLLM's cache of keys and values during training, in GiB; all of it is in memory from the start."""

    head_on_action_tokens: bool = True
    """Compute logits only where a trained token is predicted; the result is the same, with less memory and time."""

    nodes: int = Field(1, ge=1, le=10_000)
    """Nodes with GPUs for the trained model. More than one need a Ray cluster (ray_address)."""

    gpus: int = Field(1, ge=1, le=100_000)
    """GPUs per node for the trained model, and as many each for reference model and critic unless colocated."""

    gpu_memory: float | None = Field(None, ge=1, le=MANY)
    """Memory per GPU in GB (10^9 bytes), from which settings that are not set are derived; the driver's if not set."""

    vllm_engines: int | None = Field(None, ge=1, le=100_000)
    """vLLM engines for the rollouts. None: with colocate as many as the GPUs of the trained model hold, otherwise 1."""

    tensor_parallel: int = Field(1, ge=1, le=100_000)
    """GPUs per vLLM engine."""

    gpu_memory_utilization: Annotated[float, DERIVED] = Field(0.6, gt=0, le=1)
    """Share of a GPU's memory that vLLM may use."""

    colocate: Annotated[bool, DERIVED] = False
    """Trained model, reference model, critic and vLLM share the same GPUs."""

    async_steps: int = Field(0, ge=0, le=1000)
    """Steps that rollouts may run ahead of training: a step trains on episodes of weights that are up to this many
    updates old (`staleness`). More than 0 needs GPUs for vLLM alone (colocate = false)."""

    partial_rollouts: bool = False
    """With async_steps: send weights to vLLM while episodes are running, whose later tokens then come from newer
    weights; false lets the episodes of a step end first."""

    zero_stage: Annotated[int, DERIVED] = Field(2, ge=0, le=3)
    """DeepSpeed ZeRO stage."""

    gradient_checkpointing: Annotated[bool, DERIVED] = False
    """Recompute activations: takes less memory and more time."""

    gradient_accumulation: Literal["bf16", "fp32"] | None = None
    """GPUs only: dtype in which gradients of micro-batches are added up; fp32 needs ZeRO stage 3 (at 2, DeepSpeed
    accepts it and adds up in bf16). If not set: fp32 at stage 3, otherwise bf16."""

    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_4"] = "sdpa"
    """Attention implementation of the trainer. flash_attention_4 comes with the GPU environment; flash_attention_2 has
    to be compiled (package flash-attn)."""

    packing: bool = False
    """Leave out the padding between the trajectories of a pass; on GPUs it needs attention = "flash_attention_4" or
    "flash_attention_2". rl.dynamic_batch always does."""

    adam_offload: Annotated[bool, DERIVED] = False
    """GPUs only: keep gradients and Adam's state in host memory and update the weights there; takes less GPU memory and
    more time. Needs ZeRO stage 1, 2 or 3."""

    reference_offload: Annotated[bool, DERIVED] = False
    """GPUs only: keep the reference model in host memory between its passes; needs ZeRO stage 3."""

    ray_address: str | None = None
    """Address of an existing Ray cluster: HOST:PORT, or "auto" on one of its nodes. If not set, the cluster of the Ray
    job (`ray job submit`) that runs the command, or else a local one that is started."""

    vllm_kl_limit: float | None = Field(None, gt=0, le=MANY)
    """Largest |vllm_kl|; above it the run stops, because rollouts no longer come from the trained weights. If not set:
    1e-3 for fp32, 1e-2 for bf16 and mixed; on GPUs, where no run has measured it, 1e-2 with a warning only."""

    @field_validator("ray_address", mode="after")
    @classmethod
    def address_of_a_cluster(cls, value: str | None) -> str | None:
        if value and value != "auto" and not re.fullmatch(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}", value):
            raise PydanticCustomError(
                "ray_address", 'must be HOST:PORT, as `ray start --head` prints it, or "auto"; ray:// is not supported'
            )
        return value or None


class Evaluation(Section):
    questions: int = Field(200, ge=0, le=MANY)
    """Held-out questions to evaluate on after each stage; 0 for none."""


def _switch(value: Any) -> Any:
    """A tracker's table: true is one without keys, false none."""
    return ({} if value else None) if isinstance(value, bool) else value


class Tracking(Section):
    """Trackers in addition to TensorBoard (see docs/training.md): true, or a table such as [tracking.wandb]."""

    model_config = ConfigDict(extra="allow")  # trackers of other packages

    wandb: Annotated[Wandb | None, BeforeValidator(_switch)] = None
    """Weights & Biases: project, entity, mode, group, tags. The key comes from WANDB_API_KEY or `wandb login`."""

    trackio: Annotated[Trackio | None, BeforeValidator(_switch)] = None
    """Trackio: project, group, space_id."""

    @property
    def trackers(self) -> dict[str, TrackerSettings]:
        """Those that are on, by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        others = {name: _tracker(name, table) for name, table in (self.model_extra or {}).items()}
        return {name: tracker for name, tracker in {**named, **others}.items() if tracker is not None}

    @model_validator(mode="after")
    def tables_fit_the_trackers_of_other_packages(self) -> "Tracking":
        others = (self.model_extra or {}).items()
        if problems := [problem for name, table in others for problem in _problems(name, table)]:
            raise ValidationError.from_exception_data("Tracking", problems)
        return self


def _tracker(name: str, table: Any) -> TrackerSettings | None:
    """The tracker of another package. Raises `InputError` for an unknown name, `ValidationError` for wrong keys."""
    kind, keys = TRACKERS.require(name), _switch(table)
    return None if keys is None else kind.model_validate(keys)


def _problems(name: str, table: Any) -> Iterator[InitErrorDetails]:
    try:
        _tracker(name, table)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            kind = PydanticCustomError(found["type"], found["msg"])
            yield InitErrorDetails(type=kind, loc=(name, *found["loc"]), input=found["input"])
    except InputError as error:
        kind = PydanticCustomError("tracker", "{error}", {"error": str(error)})
        yield InitErrorDetails(type=kind, loc=(name,), input=table)


class Settings(Section):
    """One stage, fully resolved."""

    name: str = ""
    """The run's folder in `output`; the stage's name if empty."""

    output: str = "runs"
    """Folder for all runs."""

    seed: int = Field(7, ge=0, le=LARGEST_SEED)
    """Random seed, 0 to 2147483647."""

    model: Model = Model()
    data: Data = Data()
    retrieval: Retrieval = Retrieval()
    episode: Episode = Episode()
    reward: Reward = Reward()
    rl: RL = RL()
    sft: Sft = Sft()
    lora: Lora = Lora()
    stop: Stop = Stop()
    checkpoint: Checkpoint = Checkpoint()
    engine: Engine = Engine()
    tracking: Tracking = Tracking()
    evaluation: Evaluation = Evaluation()

    @field_validator("name", mode="after")
    @classmethod
    def one_folder(cls, value: str) -> str:
        if "/" in value or value in (".", ".."):
            raise PydanticCustomError(
                "name", "must be the name of one folder, without a slash; set output for its parent"
            )
        if len(value.encode()) > LONGEST_NAME:
            raise PydanticCustomError("name", f"must not be longer than {LONGEST_NAME} bytes")
        return value

    @property
    def tokens_per_pass(self) -> int:
        """The most tokens in a forward and backward pass of RL, on each device."""
        return self.rl.max_tokens_per_gpu or self.rl.micro_batch_size * self.episode.max_context

    @field_validator("output", mode="after")
    @classmethod
    def some_folder(cls, value: str) -> str:
        if not value.strip():
            raise PydanticCustomError("output", 'must be a folder; "." is the current one')
        return value

    @model_validator(mode="after")
    def turn_fits_context(self) -> "Settings":
        if self.episode.max_new_tokens >= self.episode.max_context:
            raise ValueError(
                f"episode.max_new_tokens = {self.episode.max_new_tokens} leaves no space for a question in "
                f"episode.max_context = {self.episode.max_context}"
            )
        return self


def derived_keys(settings: Settings) -> tuple[str, ...]:
    """The settings that follow from model and GPUs if they are not set, and are not set here: "engine.zero_stage"."""
    sections = ((name, getattr(settings, name)) for name in Settings.model_fields)
    return tuple(
        f"{name}.{key}"
        for name, section in sections
        if isinstance(section, Section)
        for key, field in type(section).model_fields.items()
        if DERIVED in field.metadata and key not in section.model_fields_set
    )


def replaced(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with other values ("rl.steps" -> 4), which are not checked."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=changed) for name, changed in sections.items()}
    )


def presets() -> list[str]:
    """Valid names for `--preset`."""
    folder = resources.files("r1searcher.config") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(
    stage: Stage,
    file: Path | None = None,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Resolve the settings of one stage. `overrides` maps dotted keys to values ("rl.steps" -> 4).

    Raises `InputError` with every wrong key at once: the key, its value, and the valid values.
    """
    merged: dict[str, Any] = {}
    if preset is not None:
        if preset not in presets():
            raise InputError(f"there is no preset {preset!r}; choose one of {', '.join(presets())}")
        text = (resources.files("r1searcher.config") / "presets" / f"{preset}.toml").read_text("utf-8")
        _merge(merged, _for_stage(tomllib.loads(text), stage))
    if file is not None:
        if not file.exists():
            raise InputError(f"there is no settings file {file}; `r1s init {file}` writes one to start from")
        _merge(merged, _for_stage(read_toml(file, "the settings file"), stage))
    _merge(merged, _nested(overrides or {}))
    return _checked(merged, str(file) if file else f"preset {preset}" if preset else "command line")


def read_resolved(file: Path) -> Settings:
    """The settings in a run folder: those of one stage, without its tables. Raises `InputError`."""
    return _checked(read_toml(file, "the settings file"), str(file))


def _checked(values: Mapping[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, source, Settings, more=_further_keys(values))) from None


def _for_stage(table: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """The shared settings, overridden by the stage's own. `[sft]` has both its section and its overrides."""
    shared = {key: value for key, value in table.items() if key not in STAGES}
    own = table.get(stage, {})
    if not isinstance(own, dict):
        return {**shared, stage: own}
    if stage == "sft":
        fields = {key: value for key, value in own.items() if key in Sft.model_fields}
        own = {key: value for key, value in own.items() if key not in Sft.model_fields}
        shared["sft"] = fields
    _merge(shared, own)
    return shared


def _nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as tables of tables."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        *path, last = key.split(".")
        table = nested
        for name in path:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise InputError(f"--set {key}={short(value)}: {name} is a value, not a section")
        table[last] = value
    return nested


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    _forget_engine(base.get("retrieval"), over.get("retrieval"))
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _forget_engine(before: Any, now: Any) -> None:
    """A search engine is replaced as a whole: keys of the one before would not fit another one."""
    if isinstance(before, dict) and isinstance(now, dict) and ({"url", "kind"} & now.keys()):
        for key in before.keys() - {"retry_timeout_s"}:
            del before[key]


def _further_keys(values: Mapping[str, Any]) -> Iterable[str]:
    """What the kind of search engine adds to `[retrieval]`, other trackers to `[tracking]`, measures to `[stop]`."""
    retrieval, tracking = values.get("retrieval"), values.get("tracking")
    kind = retrieval.get("kind") if isinstance(retrieval, dict) else None
    if isinstance(kind, str) and kind in RETRIEVERS:
        yield from keys_of(RETRIEVERS[kind], "retrieval.")
    for name in tracking if isinstance(tracking, dict) else ():
        if name in TRACKERS:
            yield from keys_of(TRACKERS[name], f"tracking.{name}.")
    not_in_training = {name for name in MEASURES.builtin if not MEASURES[name].is_in_training}
    yield from (f"stop.{name}" for name in MEASURES if name not in not_in_training)
