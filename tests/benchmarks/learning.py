"""The environment, proximal policy optimisation and the reward model, in one thread, on synthetic songs."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch

from editorbot_core.analysis.features.columns import FEATURE_INDEX
from editorbot_core.editing.batches import EditBatch, SongBatch, collate
from editorbot_core.editing.edits import CUT
from editorbot_core.policy.config import PPOConfig
from editorbot_core.policy.environment import BeatEditingEnv
from editorbot_core.policy.gymnasium_adapter import gymnasium_env
from editorbot_core.policy.network import Policy
from editorbot_core.policy.ppo import init_ppo, train_ppo
from editorbot_core.policy.ppo_state import PPOState
from editorbot_core.policy.rollout import sample_edits
from editorbot_core.preferences.pairs import PairBatch
from editorbot_core.rewards import training
from editorbot_core.rewards.base import RewardFunction
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.dense import dense_reward
from editorbot_core.rewards.mixing import RewardPair
from editorbot_core.rewards.model import RewardModel
from editorbot_core.songs.song import Song
from tests.benchmarks.plain_environment import PlainSongEnv
from tests.benchmarks.registry import Bench, Row, at_least, benchmark, taking_turns
from tests.core.conftest import make_song, sides

_N_SONGS, _N_BARS = 8, 48
_N_ROUNDS = 3
_TARGET_RANGE = (0.35, 0.95)
_FOREVER = 10**12


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _songs(n_songs: int = _N_SONGS, *, first: int = 0) -> list[Song]:
    return [make_song(first + i, n_bars=_N_BARS) for i in range(n_songs)]


def _draw(n: int, n_songs: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Songs in turn and uniform targets for n episodes."""
    low, high = _TARGET_RANGE
    return torch.arange(n) % n_songs, low + (high - low) * torch.rand(n, generator=generator)


def _random_edits(songs: SongBatch, n: int, generator: torch.Generator) -> EditBatch:
    """Edits of random allowed decisions, all stepped together."""
    env = BeatEditingEnv(songs)
    env.reset(*_draw(n, songs.n_songs, generator))
    for _ in range(env.n_steps):
        allowed = env.allowed_actions()
        chances = torch.rand(allowed.shape, generator=generator).masked_fill_(~allowed, -1.0)
        env.step(chances.argmax(1), validate=False)
    return env.edits


def _no_reward(edits: EditBatch) -> torch.Tensor:
    return torch.zeros_like(edits.target_ratio)


def _vector(making: Callable[[Song], gymnasium.Env], songs: Sequence[Song]) -> Any:
    """stable-baselines3's vector of one environment per song."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([partial(making, song) for song in songs])


# The adapter steps a batch of one, which tensors are slow at; the plain class is what it could be at best in Python.
_ALTERNATIVES: dict[str, Callable[[Song], gymnasium.Env]] = {
    "adapter": partial(gymnasium_env, reward=dense_reward, target_range=_TARGET_RANGE),
    "plain": partial(PlainSongEnv, target_range=_TARGET_RANGE),
}
_NAMES = {"adapter": "Gymnasium adapter", "plain": "plain Gymnasium class"}


def _step_vector(vector: Any, n_steps: int, rng: np.random.Generator) -> None:
    vector.reset()
    masks = np.stack([info["action_mask"] for info in vector.reset_infos])
    for _ in range(n_steps):
        actions = np.where(masks, rng.random(masks.shape), -1.0).argmax(1)
        _, _, done, infos = vector.step(actions)
        fresh = [reset if over else info for over, info, reset in zip(done, infos, vector.reset_infos, strict=True)]
        masks = np.stack([info["action_mask"] for info in fresh])


def _rates(what: str, unit: str, other: str, ours: list[float], theirs: list[float], least: float | None = None) -> Row:
    """Medians over rounds of two rates, and of their ratio in the same round."""
    ratio = float(np.median(np.divide(ours, theirs)))
    target = at_least(ratio, least) if least else {}
    details = {"ours": ours, "theirs": theirs}
    return Row(what, float(np.median(ours)), unit, other, float(np.median(theirs)), ratio, **target, details=details)


@benchmark("environment")
def environment(bench: Bench) -> Sequence[Row]:
    """Random allowed decisions, scored by the dense reward: the batch against one Gymnasium environment per song."""
    n_episodes, n_passes = 1_024, 4
    songs = _songs()
    batch = collate(songs)
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    functions: dict[str, Callable[[], object]] = {
        "ours": lambda: dense_reward(_random_edits(batch, n_episodes, generator)),
        "one": lambda: dense_reward(_random_edits(batch, 1, generator)),
    }
    for name, making in _ALTERNATIVES.items():
        functions[name] = partial(_step_vector, _vector(making, songs), n_passes * _N_BARS, rng)
    steps = {"ours": n_episodes * _N_BARS, "one": _N_BARS}
    steps |= dict.fromkeys(_ALTERNATIVES, n_passes * _N_BARS * _N_SONGS)
    rates: dict[str, list[float]] = {name: [] for name in functions}
    with _one_thread():
        for function in functions.values():
            function()
        for i in range(_N_ROUNDS):
            bench.say(f"round {i + 1} of {_N_ROUNDS}")
            times = taking_turns(functions, ["ours", "one", "adapter", "ours", "one", "plain", "ours", "one"])
            for name, found in times.items():
                rates[name].append(steps[name] / found.median)
    what, unit = f"decide, mask and score, {n_episodes} episodes", "unit steps/s"
    return [
        _rates(what, unit, f"{_NAMES['adapter']}, DummyVecEnv", rates["ours"], rates["adapter"], 60.0),
        _rates(what, unit, f"{_NAMES['plain']}, DummyVecEnv", rates["ours"], rates["plain"]),
        _rates("the same, 1 episode", unit, f"{_NAMES['plain']}, DummyVecEnv", rates["one"], rates["plain"]),
    ]


class _Counting:
    """A reward that counts the units of the edits that it scores."""

    def __init__(self, reward: RewardFunction) -> None:
        self.n_units = 0
        self._reward = reward

    def __call__(self, edits: EditBatch) -> torch.Tensor:
        self.n_units += int(edits.unit_mask.sum())
        return self._reward(edits)


@benchmark("ppo")
def ppo(bench: Bench) -> Sequence[Row]:
    """Sampling, reward and update: `train_ppo` against stable-baselines3 with the same rollouts, epochs and parts."""
    import stable_baselines3

    songs = _songs()
    batch = collate(songs)
    # As many beats an iteration as the pipeline decides.
    config = PPOConfig(n_steps=32_768)
    reward = _Counting(dense_reward)
    rewards = RewardPair(reward, _no_reward)
    with _one_thread():
        torch.manual_seed(0)
        policy = Policy()
        policy.fit_statistics(batch)
        state = init_ppo(policy.eval(), batch, rewards, config=config)
        reward.n_units = 0
        train_ppo(state, batch, rewards, total_steps=_FOREVER, max_iterations=1)
        per_iteration = reward.n_units
        width = policy.config.hidden
        n_parts = min(config.n_minibatches, per_iteration // (_N_BARS * config.samples_per_song))
        others = {
            name: stable_baselines3.PPO(
                "MlpPolicy",
                _vector(making, songs),
                n_steps=per_iteration // _N_SONGS,
                batch_size=per_iteration // n_parts,
                n_epochs=config.epochs,
                gamma=1.0,
                learning_rate=config.learning_rate,
                ent_coef=config.ent_coef,
                policy_kwargs={"net_arch": [width, width]},
                seed=0,
                device="cpu",
            )
            for name, making in _ALTERNATIVES.items()
        }
        rates: dict[str, list[float]] = {"ours": [], **{name: [] for name in others}}
        for i in range(_N_ROUNDS):
            bench.say(f"round {i + 1} of {_N_ROUNDS}")
            reward.n_units = 0
            start = time.perf_counter()
            train_ppo(state, batch, rewards, total_steps=_FOREVER, max_iterations=state.iteration + 6)
            rates["ours"].append(reward.n_units / (time.perf_counter() - start))
            for name, other in others.items():
                start = time.perf_counter()
                other.learn(per_iteration, reset_num_timesteps=i == 0)
                rates[name].append(per_iteration / (time.perf_counter() - start))
    what, unit = "sample, score and update", "unit steps/s"
    rows = [
        _rates(what, unit, f"stable-baselines3, {_NAMES['adapter']}", rates["ours"], rates["adapter"], 10.0),
        _rates(what, unit, f"stable-baselines3, {_NAMES['plain']}", rates["ours"], rates["plain"]),
    ]
    rows[0].details.update(
        units_per_iteration=per_iteration,
        epochs=config.epochs,
        batch_size=per_iteration // n_parts,
        parameters={
            "ours": sum(p.numel() for p in policy.parameters()),
            "theirs": sum(p.numel() for p in others["plain"].policy.parameters()),
        },
    )
    return rows


def _random_pairs(songs: SongBatch, n_per_song: int) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    n = n_per_song * songs.n_songs
    a, b = (_random_edits(songs, n, generator) for _ in range(2))
    return PairBatch(
        songs=songs,
        song_index=a.song_index,
        actions_a=a.actions,
        actions_b=b.actions,
        target_ratio=a.target_ratio,
        label=(torch.rand(n, generator=generator) < 0.5).float(),
        confidence=torch.ones(n),
        strength=torch.full((n,), 2),
        source_index=torch.arange(n),
        n_refused=0,
    )


def _plain_step(
    model: RewardModel,
    scale: training.AnswerThresholds,
    optimizer: torch.optim.Optimizer,
    pairs: PairBatch,
    at_once: int,
) -> float:
    """One update on all pairs in which every side of every pair is a padded row of its own; the loss."""
    config, total = model.config, 0.0
    optimizer.zero_grad(set_to_none=True)
    for rows in torch.arange(len(pairs)).split(at_once):
        part = pairs.select(rows)
        scores = []
        for side in sides(part):
            songs = side.songs.select(side.song_index)
            own = EditBatch(songs, torch.arange(len(rows)), side.actions, side.target_ratio)
            scores.append(model.score(model.encode(songs), own))
        loss = training.preference_loss(
            *scores,
            part.label,
            part.strength,
            part.confidence,
            thresholds=scale(),
            temperature=config.training_temperature,
            label_smoothing=config.label_smoothing,
            centring=config.centring,
        ).sum() / len(pairs)
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_norm)
    optimizer.step()
    return total


@benchmark("reward_training")
def reward_training(bench: Bench) -> Sequence[Row]:
    """One update of the reward model on the pairs of one song: encoded once, or once for every side of every pair."""
    n_pairs = 16
    # Nothing random, one member and one update of the head, so that both take the same step.
    config = RewardConfig(
        n_members=1, head_updates=1, pairs_per_song=n_pairs, dropout=0.0, noise=0.0, structure_dropout=0.0
    )
    pairs = _random_pairs(collate(_songs(1)), n_pairs)
    rng = np.random.default_rng(0)
    weight = torch.ones((1, 1))
    with _one_thread():
        models, scale = {}, training.AnswerThresholds()
        for name in ("ours", "theirs"):
            torch.manual_seed(0)
            model = RewardModel(config).train()
            models[name] = model, scale, torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
        losses: dict[str, list[float]] = {name: [] for name in models}

        def ours() -> None:
            model, scale, optimizer = models["ours"]
            chunk = np.zeros(1, dtype=np.int64)
            losses["ours"].append(training._step([model], [scale], [optimizer], pairs, chunk, weight, config, rng))

        def theirs() -> None:
            losses["theirs"].append(_plain_step(*models["theirs"], pairs, at_once=8))

        functions = {"ours": ours, "theirs": theirs}
        ours()
        theirs()
        rates: dict[str, list[float]] = {name: [] for name in functions}
        for i in range(_N_ROUNDS):
            bench.say(f"round {i + 1} of {_N_ROUNDS}")
            for name, found in taking_turns(functions, ["ours", "theirs", "ours", "ours"]).items():
                rates[name].append(n_pairs / found.median)
    row = _rates(
        f"one update, {n_pairs} pairs of a song", "pairs/s", "a song encoded per side", rates["ours"], rates["theirs"]
    )
    # The weights are the same before the second update only if the first was the same.
    row.details.update(losses={name: found[:2] for name, found in losses.items()})
    return [row]


def _loudness(edits: EditBatch) -> torch.Tensor:
    """Mean loudness of the beats of the units that are kept, standardised: simple, and new songs have it too."""
    songs = edits.songs
    sums = torch.zeros((songs.n_songs, songs.n_units + 1))
    sums.scatter_add_(1, songs.unit_id, songs.features[..., FEATURE_INDEX["rms"]])
    means = sums[:, :-1] / (songs.last_beat - songs.first_beat + 1)
    kept = ((edits.actions != CUT) & edits.unit_mask).float()
    return (means[edits.song_index] * kept).sum(1) / kept.sum(1)


@benchmark("plateau")
def plateau(bench: Bench) -> Sequence[Row]:
    """Processor time of training until 90 % of the gain on held-out songs that a fixed budget brings.

    The dense reward will not do: without structure that the sound tells of, it does not rise on synthetic songs.
    Edits are sampled, because the likeliest ones change in leaps that are no learning.
    """
    total_steps, every = 2**20, 4
    train, held_out = collate(_songs(24)), collate(_songs(8, first=1_000))
    rewards = RewardPair(_loudness, _no_reward)
    # The best edits are far from a reference that is not trained, so the KL is given room.
    config = PPOConfig(learning_rate=2e-3, kl_target=2.0)
    index, targets = _draw(256, held_out.n_songs, torch.Generator().manual_seed(1))

    def judged(policy: Policy) -> float:
        generator = torch.Generator().manual_seed(2)
        rollout = sample_edits(policy, held_out, song_index=index, target_ratio=targets, generator=generator)
        return float(_loudness(rollout.edits).mean())

    with _one_thread():
        torch.manual_seed(0)
        policy = Policy()
        policy.fit_statistics(train)
        curve = [(0.0, judged(policy.eval()))]
        judging_s = 0.0
        start = time.process_time()

        def after_iteration(state: PPOState) -> None:
            nonlocal judging_s
            if state.iteration % every:
                return
            now = time.process_time()
            curve.append((now - start - judging_s, judged(state.policy)))
            judging_s += time.process_time() - now
            bench.say(f"{state.step / total_steps:.0%} of the budget: {curve[-1][1]:.3f}")

        train_ppo(
            init_ppo(policy, train, rewards, config=config, seed=0),
            train,
            rewards,
            total_steps=total_steps,
            after_iteration=after_iteration,
        )
    first, best = curve[0][1], max(score for _, score in curve)
    seconds = next(at for at, score in curve if score >= first + 0.9 * (best - first))
    # On a curve that still rises, the time says how long the budget was and not how fast the plateau is reached.
    n = len(curve) // 4
    before, after = (float(np.mean([score for _, score in part])) for part in (curve[-2 * n : -n], curve[-n:]))
    flat = after - before < 0.05 * (best - first)
    details = {"reference": first, "best": best, "flat": flat, "budget_s": curve[-1][0], "curve": curve}
    what = f"90 % of the gain {first:.3f} to {best:.3f} on new songs" + ("" if flat else " (STILL RISING at the end)")
    return [Row(what, seconds, "CPU s", details=details)]
