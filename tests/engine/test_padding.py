"""The order of trajectories inside an update, with the engine's own buffer and loss."""

from types import SimpleNamespace
from typing import Any

import pytest

from r1searcher.engine.openrlhf.patches import padding
from tests.engine.test_cpu import patched, pristine  # noqa: F401  # a fixture

pytestmark = pytest.mark.training
torch = pytest.importorskip("torch")
pytest.importorskip("openrlhf")
pytest.importorskip("vllm")

UPDATE, MICRO, EPISODES = 8, 2, 20


@pytest.fixture
def buffer():
    """Trajectories of 5 to 60 tokens, whose id is their first token."""
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.replay_buffer import NaiveReplayBuffer

    torch.manual_seed(0)
    made = NaiveReplayBuffer(MICRO)
    for number in range(EPISODES):
        length = int(torch.randint(5, 60, ()))
        tokens = torch.cat([torch.tensor([number]), torch.randint(0, 96, (length - 1,))])
        actions = (torch.rand(length - 1) < 0.5).long()
        made.items.append(
            Experience(
                sequences=tokens,
                attention_mask=torch.ones_like(tokens),
                action_mask=actions,
                advantages=torch.randn(length - 1),
                total_length=torch.tensor(length),
            )
        )
    made.update = UPDATE
    return made


def batches(loader, buffer):
    torch.manual_seed(7)
    return list(
        loader(buffer, batch_size=MICRO, shuffle=True, drop_last=True, pin_memory=False, collate_fn=buffer.collate_fn)
    )


def updates(found):
    """The ids of the trajectories of each update, in order; the last one is incomplete."""
    ids = [number for batch in found for number in batch.sequences[:, 0].tolist()]
    return [ids[start : start + UPDATE] for start in range(0, len(ids), UPDATE)]


def test_an_update_has_the_same_trajectories_as_before_shortest_first(buffer):
    from openrlhf.trainer.ray import ppo_actor

    stock, ours = (
        batches(loader, buffer)
        for loader in (pristine("openrlhf.trainer.ray.ppo_actor").DataLoader, ppo_actor.DataLoader)
    )
    assert [sorted(update) for update in updates(ours)] == [sorted(update) for update in updates(stock)]
    assert updates(ours) != updates(stock)
    assert [len(update) for update in updates(ours)] == [8, 8, 4]
    for update in updates(ours)[:2]:
        lengths = [int(buffer.items[number].total_length) for number in update]
        assert lengths == sorted(lengths)
    assert sum(batch.sequences.numel() for batch in ours) < sum(batch.sequences.numel() for batch in stock)


def test_an_update_has_the_same_loss_whatever_the_order_of_its_trajectories(buffer):
    """The engine divides by the trained tokens of the whole update; here a token's loss is its advantage."""
    from openrlhf.models.loss import aggregate_loss
    from openrlhf.trainer.ray import ppo_actor
    from openrlhf.utils.loss_utils import iter_grad_accum_global_norm

    def losses(loader):
        micro = iter_grad_accum_global_norm(batches(loader, buffer), object(), UPDATE // MICRO, lambda e: e.action_mask)
        each = [
            float(aggregate_loss(e.advantages, e.action_mask, batch_num_tokens=i["batch_num_tokens"])) for e, i in micro
        ]
        return [sum(each[start : start + UPDATE // MICRO]) for start in (0, UPDATE // MICRO)]

    ours, stock = losses(ppo_actor.DataLoader), losses(pristine("openrlhf.trainer.ray.ppo_actor").DataLoader)
    assert ours == pytest.approx(stock, rel=1e-5)


@pytest.mark.parametrize(("module", "trainer"), [("ppo_actor", "ActorPPOTrainer"), ("ppo_critic", "CriticPPOTrainer")])
def test_a_trainer_tells_its_buffer_the_size_of_an_update(buffer, module, trainer):
    import importlib

    found = importlib.import_module(f"openrlhf.trainer.ray.{module}")
    strategy = SimpleNamespace(accumulated_gradient=3, ring_attn_group=None)
    args = SimpleNamespace(
        train=SimpleNamespace(dynamic_batch_enable=False), ds=SimpleNamespace(tensor_parallel_size=1)
    )
    here = SimpleNamespace(
        strategy=strategy, args=args, replay_buffer=buffer, dataloader_pin_memory=False, max_epochs=0
    )
    getattr(found, trainer).ppo_train(here, *([0.0] if module == "ppo_actor" else []))
    assert buffer.update == 3 * MICRO


def test_packed_trajectories_keep_their_random_order(buffer):
    from openrlhf.trainer.ray import ppo_actor

    buffer.packing_samples = True
    loader = ppo_actor.DataLoader(buffer, batch_size=MICRO, shuffle=True, collate_fn=buffer.collate_fn)
    assert not isinstance(loader.sampler, padding.UpdatesByLength)


def maker_of(micro: int, trainers: int) -> Any:
    """What the engine's experience maker reads of its arguments to split the rollouts of a step."""
    args = SimpleNamespace(
        actor=SimpleNamespace(num_nodes=1, num_gpus_per_node=trainers),
        train=SimpleNamespace(dynamic_batch_enable=False),
        ds=SimpleNamespace(packing_samples=False),
        rollout=SimpleNamespace(micro_batch_size=micro),
    )
    return SimpleNamespace(args=args, tokenizer=SimpleNamespace(pad_token_id=0))


def rollouts(buffer: Any) -> list[Any]:
    """Rollouts as the engine's workers return them: batches of one."""
    from openrlhf.trainer.ppo_utils.experience import Experience

    return [
        Experience(
            sequences=item.sequences[None], total_length=item.total_length[None], rewards=item.total_length[None]
        )
        for item in buffer.items
    ]


def test_forward_passes_have_trajectories_of_similar_length_and_know_their_places(buffer):
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    samples = rollouts(buffer)
    batches = RemoteExperienceMaker.split_rollout_samples(maker_of(4, 1), samples)
    lengths = [int(length) for batch in batches for length in batch.total_length]
    assert lengths == sorted(int(sample.total_length) for sample in samples)
    assert [len(batch.index) for batch in batches] == [4] * 5
    for batch in batches:
        assert batch.index == batch.sequences[:, 0].tolist()  # the ids are the places
    several = RemoteExperienceMaker.split_rollout_samples(maker_of(4, 2), samples)
    assert [number for batch in several for number in batch.index] == list(range(EPISODES))
