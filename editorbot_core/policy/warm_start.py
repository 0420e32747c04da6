"""Warm start: the policy first imitates an exhaustive search for joins; the result is the KL and DPO reference.

The teacher meets the length and keeps start and end of the song, under random weights, so that the reference is a
spread of defensible edits and not one habit. Where a song has to grow, the teacher is dynamic programming.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from editorbot_core.base.errors import GateError
from editorbot_core.base.progress import Progress
from editorbot_core.editing.batches import EditBatch, collate, stack_actions
from editorbot_core.editing.edits import LOOP_2, LOOP_RATIO
from editorbot_core.editing.joins import SearchWeights
from editorbot_core.editing.search import search_edits
from editorbot_core.policy.config import WarmStartConfig
from editorbot_core.policy.environment import respects_mask
from editorbot_core.policy.network import Policy
from editorbot_core.policy.rollout import log_prob
from editorbot_core.policy.selection import augmented
from editorbot_core.songs.song import Song

Teacher = Callable[[Song, float, np.random.Generator], np.ndarray]


class Lessons(NamedTuple):
    """Edits of the teacher that the mask allows, and the share that it refused."""

    edits: EditBatch
    refused_frac: float


def search_teacher(song: Song, target_s: float, rng: np.random.Generator) -> np.ndarray:
    """The cheapest edit of one to three joins under random weights, int64 (n_units,); see `editing.search`."""
    return search_edits(song, target_s, weights=SearchWeights.sample(rng))[0].actions


def teacher_edits(
    songs: Sequence[Song],
    *,
    config: WarmStartConfig,
    rng: np.random.Generator,
    teacher: Teacher = search_teacher,
    progress: Progress | None = None,
) -> Lessons:
    """Let the teacher edit every song at random targets, spread evenly.

    Raises:
        GateError: If the mask refuses more than half of the edits.
    """
    low, high = config.target_range
    rows, index, ratios = [], [], []
    for i, song in enumerate(songs):
        spread = (np.arange(config.edits_per_song) + rng.random(config.edits_per_song)) / config.edits_per_song
        extended = rng.random(config.edits_per_song) < config.extended_frac
        targets = np.where(
            extended, LOOP_RATIO + spread * (config.extended_max - LOOP_RATIO), low + spread * (high - low)
        )
        for ratio in targets:
            rows.append(teacher(song, float(ratio) * song.duration, rng))
            index.append(i)
            ratios.append(ratio)
        if progress is not None:
            progress("teacher edits", i + 1, len(songs))
    batch = collate(songs)
    edits = EditBatch(
        batch,
        torch.tensor(index),
        stack_actions(rows, batch.n_units),
        torch.tensor(np.array(ratios), dtype=torch.float32),
    )
    usable = respects_mask(edits)
    refused = 1.0 - float(usable.float().mean())
    if refused > 0.5:
        raise GateError(f"the mask refuses {refused:.0%} of the teacher's edits; teacher and mask disagree on targets")
    return Lessons(
        EditBatch(batch, edits.song_index[usable], edits.actions[usable], edits.target_ratio[usable]), refused
    )


def imitation_loss(
    log_softmax: torch.Tensor,
    actions: torch.Tensor,
    habits: torch.Tensor,
    *,
    allowed: torch.Tensor,
    label_smoothing: float,
) -> torch.Tensor:
    """Masked cross-entropy with smoothed labels (Szegedy et al. 2016, section 7), per unit.

    Args:
        log_softmax: (..., 9), about -1e9 where forbidden.
        actions: int64 (...), the teacher's.
        habits: (9,), positive: how the smoothed mass is spread over the allowed actions.
        allowed: bool (..., 9).
        label_smoothing: The mass, in [0, 1).
    """
    spread = habits * allowed
    spread = spread / spread.sum(-1, keepdim=True)
    taught = log_softmax.gather(-1, actions[..., None])[..., 0]
    smoothed = (spread * log_softmax.masked_fill(~allowed, 0.0)).sum(-1)
    return -((1 - label_smoothing) * taught + label_smoothing * smoothed)


def warm_start(
    policy: Policy,
    songs: Sequence[Song],
    *,
    config: WarmStartConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    teacher: Teacher = search_teacher,
    log: Callable[[dict[str, float], int], None] | None = None,
    progress: Progress | None = None,
) -> Policy:
    """Fit feature statistics and imitate the teacher; returns the policy, trained in place, on `device`.

    Args:
        policy: A fresh policy.
        songs: Training songs.
        config: How.
        seed: Of targets, teacher and order of songs.
        device: Where to train.
        teacher: Makes the edits to imitate: song, target in seconds, generator to action ids per unit.
        log: Gets `warm/{loss, accuracy, refused_frac, step}` after every step.
        progress: Told about teacher edits and steps.
    """
    config = config or WarmStartConfig()
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device).manual_seed(seed)
    lessons = teacher_edits(songs, config=config, rng=rng, teacher=teacher, progress=progress)
    edits = lessons.edits.to(device)
    policy.to(device).train()
    policy.fit_statistics(edits.songs)
    habits = torch.ones(policy.to_logits.out_features, device=edits.actions.device)
    habits[LOOP_2:] = float(np.exp(policy.config.move_bias))
    optimiser = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.n_steps, eta_min=0.1 * config.learning_rate)
    queue: list[int] = []
    for step in range(config.n_steps):
        if len(queue) < min(config.batch_songs, len(songs)):
            queue += rng.permutation(len(songs)).tolist()
        chosen = torch.tensor(queue[: config.batch_songs], device=edits.actions.device)
        queue = queue[config.batch_songs :]
        rows = torch.isin(edits.song_index, chosen)
        if not bool(rows.any()):
            continue
        seen = augmented(
            edits.songs.select(chosen),
            policy,
            noise=config.feature_noise,
            dropout=config.feature_dropout,
            generator=generator,
        )
        place = torch.zeros(len(songs), dtype=torch.int64, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), device=chosen.device)
        batch = EditBatch(seen, place[edits.song_index[rows]], edits.actions[rows], edits.target_ratio[rows])
        result = log_prob(policy, batch)
        mask = result.unit_mask
        losses = imitation_loss(
            result.log_softmax[mask],
            batch.actions[mask],
            habits,
            allowed=result.allowed[mask],
            label_smoothing=config.label_smoothing,
        )
        loss = losses.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        optimiser.step()
        schedule.step()
        if log is not None:
            guess = result.log_softmax[mask].argmax(-1)
            log(
                {
                    "warm/loss": float(loss.detach()),
                    "warm/accuracy": float((guess == batch.actions[mask]).float().mean()),
                    "warm/refused_frac": lessons.refused_frac,
                },
                step + 1,
            )
        if progress is not None:
            progress("warm start", step + 1, config.n_steps)
    return policy.eval()
