"""The study behind the table of results: learn on one folder of songs, judge on another, over several seeds.

The songs of the second folder are used for nothing else, and every editor edits every one of them once per seed and
target. What varies with the seed (warm start, pairs, answers, reward model, policy) is averaged per song before songs
are compared, so that intervals are over songs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import editorbot_core
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import digest, read_json, source_digest, write_json, write_text
from editorbot_core.base.progress import Progress
from editorbot_core.config import Config, config_to_dict
from editorbot_core.editing.baselines import BASELINES, Editor
from editorbot_core.evaluation.comparison import WinRate, win_rate
from editorbot_core.evaluation.evaluate import SUMMARY_COLUMNS, evaluate
from editorbot_core.policy.editors import policy_editor, sampling_editor
from editorbot_core.policy.files import load_policy, save_policy
from editorbot_core.policy.network import Policy
from editorbot_core.rewards.learned import RewardEnsemble, load_reward
from editorbot_core.songs.song import Song, songs_digest
from editorbot_core.training.rounds import learn_in_rounds, reward_on_songs, sampled_edits

OPPONENTS = ("dp_bars", "one_cut", "search_acoustic", "search_structure", "warm_start", "warm_start_sampled")
LEARNED = ("warm_start", "warm_start_sampled", "ppo", "ppo_sampled", "guided_search")
_SHOWN = (
    "quality",
    "bar_position_continues",
    "four_bar_continues",
    "phrase_both_sides",
    "smoothness",
    "coverage",
    "length_error",
    "joins_per_minute",
)

# Pairs per song, and edits of the policy per song and target, that the reward model is tested on.
_TEST_PAIRS, _OWN_EDITS = 40, 8


@dataclass(frozen=True)
class Study:
    """What a study found.

    Attributes:
        rows: A row per song x target x editor x seed, see `evaluation.evaluate.Evaluation`; baselines have seed -1.
        rewards: Per seed, how well the reward model orders pairs of the test songs.
        n_train: Training songs.
        n_pairs: Answers the last reward model of each seed was trained on.
    """

    rows: pd.DataFrame
    rewards: list[dict[str, float]]
    n_train: int
    n_pairs: list[int]

    def summary(self, ratio: float) -> pd.DataFrame:
        """Mean of every metric per editor at one target, over songs and seeds."""
        rows = self.rows[self.rows["target_ratio"] == ratio]
        return rows.groupby("editor", sort=False)[list(SUMMARY_COLUMNS)].mean()

    def wins(self, editor: str, against: str, ratio: float) -> WinRate:
        """How often `editor` has the higher quality, song by song, over all seeds."""
        rows = self.rows[self.rows["target_ratio"] == ratio]
        quality = rows.pivot_table(index=["seed", "track_id"], columns="editor", values="quality")

        def column(name: str) -> pd.DataFrame:
            values = quality[name].dropna().unstack("seed")
            return values if values.shape[1] > 1 else pd.concat([values[values.columns[0]]] * n_seeds, axis=1)

        n_seeds = max(len(self.rewards), 1)
        return win_rate(column(editor).to_numpy() - column(against).to_numpy())

    def markdown(self) -> str:
        """Everything as tables for a README."""
        parts = []
        n_songs = self.rows["track_id"].nunique()
        for ratio in sorted(self.rows["target_ratio"].unique()):
            table = self.summary(ratio)
            head = [SUMMARY_COLUMNS[name][0] for name in _SHOWN]
            lines = [
                f"{n_songs} songs at {ratio:g} of their length, learned on {self.n_train} others, "
                f"{len(self.rewards)} seeds:",
                "",
                "| editor | " + " | ".join(head) + " |",
                "|---|" + "---:|" * len(head),
            ]
            for editor, values in table[list(_SHOWN)].iterrows():
                cells = []
                for name in _SHOWN:
                    _, factor, decimals = SUMMARY_COLUMNS[name]
                    cells.append("-" if not np.isfinite(values[name]) else f"{values[name] * factor:.{decimals}f}")
                lines.append(f"| {editor} | " + " | ".join(cells) + " |")
            lines += ["", "| wins (ties half, 95 % interval) | " + " | ".join(OPPONENTS) + " |"]
            lines.append("|---|" + "---:|" * len(OPPONENTS))
            for editor in LEARNED:
                if editor in OPPONENTS:
                    continue
                cells = ["{:.2f} ({:.2f}-{:.2f})".format(*self.wins(editor, other, ratio)[:3]) for other in OPPONENTS]
                lines.append(f"| {editor} | " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
        head = sorted({name for reward in self.rewards for name in reward})
        lines = [
            "| reward model on the test songs | " + " | ".join(f"seed {i}" for i in range(len(self.rewards))) + " |"
        ]
        lines.append("|---|" + "---:|" * len(self.rewards))
        for name in head:
            lines.append(
                f"| {name} | " + " | ".join(f"{reward.get(name, np.nan):.3f}" for reward in self.rewards) + " |"
            )
        return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


class LearnedModels(NamedTuple):
    """What one seed learned, as it was saved."""

    policy: Policy
    reference: Policy
    ensemble: RewardEnsemble
    n_answers: int


def _judge_reward(learned: LearnedModels, test: Sequence[Song], seed: int) -> dict[str, float]:
    found: dict[str, float] = {}
    n_pairs = _TEST_PAIRS * len(test)
    own = sampled_edits(learned.policy, test, seed=seed, per_ratio=_OWN_EDITS)
    for name, edits in (("", None), ("on-policy ", own)):
        metrics = reward_on_songs(learned.ensemble, test, n_pairs=n_pairs, seed=seed, policy_edits=edits)
        # A policy that makes the same edit again and again leaves nothing to compare.
        if not metrics:
            continue
        found |= {f"{name}{key}": metrics[key] for key in ("acc", "ceiling", "ece", "saturated_frac", "n_pairs")}
        found[f"{name}share of ceiling"] = metrics["acc"] / metrics["ceiling"]
    return found


def _learned(
    folder: Path, train: Sequence[Song], config: Config, n_rounds: int, *, device: str, progress: Progress | None
) -> LearnedModels:
    """The models of one seed: those in `folder` if songs, settings and code are the same, else learned."""
    key = digest([config_to_dict(config), n_rounds, songs_digest(train), source_digest(editorbot_core)])
    done = folder / "learned.json"
    paths = [folder / name for name in ("policy.pt", "warm_start.pt", "reward.pt")]
    if not (done.is_file() and read_json(done).get("key") == key):
        learned = learn_in_rounds(train, config=config, n_rounds=n_rounds, device=device, progress=progress)
        for path, policy, name in (
            (paths[0], learned.policy, "editorbot-policy"),
            (paths[1], learned.reference, "warm-start"),
        ):
            save_policy(path, policy, model={"name": name, "version": f"seed{config.seed}"})
        learned.ensemble.save(paths[2])
        write_json(done, {"key": key, "n_answers": len(learned.answers), "rounds": list(learned.rounds)})
    return LearnedModels(
        policy=load_policy(paths[0], device).policy,
        reference=load_policy(paths[1], device).policy,
        ensemble=load_reward(paths[2], device=device),
        n_answers=int(read_json(done)["n_answers"]),
    )


def run_study(
    train: Sequence[Song],
    test: Sequence[Song],
    *,
    config: Config,
    seeds: Sequence[int],
    n_rounds: int,
    ratios: Sequence[float],
    output: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Study:
    """Learn on `train` once per seed, judge on `test`, write models, rows and tables to `output`.

    Models that are in `output` already, from the same songs, settings and code, are not learned again.

    Raises:
        ParameterError: If a song is in both, or there is no seed.
    """

    def works(songs: Sequence[Song]) -> set[str]:
        return {song.annotation.track_id if song.annotation else song.track_id for song in songs}

    both = works(train) & works(test)
    if both or not seeds:
        raise ParameterError(f"{len(both)} works are in both folders; a test song must be new" if both else "no seeds")
    frames, rewards, n_pairs = [], [], []
    baselines = evaluate(BASELINES, test, ratios=ratios, progress=progress).rows
    frames.append(baselines.assign(seed=-1))
    for seed in seeds:
        folder = output / f"seed{seed}"
        learned = _learned(folder, train, replace(config, seed=seed), n_rounds, device=device, progress=progress)
        rewards.append(_judge_reward(learned, test, seed))
        n_pairs.append(learned.n_answers)
        editors: dict[str, Editor] = {
            "warm_start": policy_editor(learned.reference, device=device),
            "warm_start_sampled": sampling_editor(learned.reference, seed=seed, device=device),
            "ppo": policy_editor(learned.policy, device=device),
            "ppo_sampled": sampling_editor(learned.policy, seed=seed, device=device),
            "guided_search": policy_editor(
                learned.policy, reward=learned.ensemble, guided=True, seed=seed, device=device
            ),
        }
        frames.append(evaluate(editors, test, ratios=ratios, progress=progress).rows.assign(seed=seed))
        study = Study(pd.concat(frames, ignore_index=True), rewards, len(train), n_pairs)
        write_study(output, study)
    return study


def write_study(output: Path, study: Study) -> None:
    """Write `study.md`, `study.csv` and `study.json`."""
    write_text(output / "study.md", study.markdown())
    write_text(output / "study.csv", study.rows.to_csv(index=False))
    ratios = sorted(study.rows["target_ratio"].unique())
    document: dict[str, Any] = {
        "schema": "editorbot.study/1",
        "n_train_songs": study.n_train,
        "n_answers": study.n_pairs,
        "reward": study.rewards,
        "summary": {
            f"{ratio:g}": {
                str(editor): {str(k): float(v) for k, v in row.items() if np.isfinite(v)}
                for editor, row in study.summary(ratio).iterrows()
            }
            for ratio in ratios
        },
        "wins": {
            f"{ratio:g}": {e: {o: list(study.wins(e, o, ratio)[:3]) for o in OPPONENTS if o != e} for e in LEARNED}
            for ratio in ratios
        },
    }
    write_json(output / "study.json", document)
