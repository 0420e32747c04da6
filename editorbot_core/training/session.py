"""One training run: its songs, its reward model, its state, and what it writes down."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from editorbot_core.base.devices import Process
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.home import corrections_folder, home_folder
from editorbot_core.base.progress import Progress
from editorbot_core.base.tensors import load_tensors, module_digest, save_tensors
from editorbot_core.config import Config, config_to_dict
from editorbot_core.editing.batches import SongBatch, collate
from editorbot_core.policy.dpo import init_dpo, train_dpo
from editorbot_core.policy.dpo_state import DPOState
from editorbot_core.policy.files import policy_payload
from editorbot_core.policy.network import Policy
from editorbot_core.policy.ppo import init_ppo, train_ppo
from editorbot_core.policy.ppo_state import PPOState
from editorbot_core.policy.warm_start import warm_start
from editorbot_core.preferences.pairs import PairBatch, pair_batch
from editorbot_core.rewards.mixing import RewardPair, reward_pair
from editorbot_core.songs.library import prepare_songs
from editorbot_core.songs.song import Song, songs_digest
from editorbot_core.songs.splits import split_songs
from editorbot_core.training.history import TrainingHistory, line
from editorbot_core.training.judge import HeldOutJudge
from editorbot_core.training.reward_source import FromRegistry, RewardSource, find_reward_model, training_preferences

KIND = "editorbot.training/1"
MIN_SONGS = 3
_KEYS = {
    *("kind", "algorithm", "total_steps", "config", "data_digest", "reward_digest", "versions"),
    *("state", "generators", "policy", "history", "next_save"),
}
State = PPOState | DPOState


@dataclass(frozen=True)
class TrainingResult:
    """What a training run made.

    Attributes:
        policy_best: Weights that were best on held-out songs.
        policy_final: Weights at the end.
        history: Lists of equal length, by metric.
        history_path: The same as JSON.
        log_path: The text log.
        best_score: Mean total reward of the best policy on held-out songs; None if nothing was judged.
        reference_score: The same of the warm start.
        steps: Beats decided.
    """

    policy_best: Path
    policy_final: Path
    history: Mapping[str, list[float | int | None]]
    history_path: Path
    log_path: Path
    best_score: float | None
    reference_score: float | None
    steps: int


def training_folder(data_dir: Path) -> Path:
    """`data_dir/train` if there is one, else `data_dir`.

    Raises:
        ParameterError: If the folder does not exist.
    """
    if not data_dir.is_dir():
        raise ParameterError(f"--data_dir {data_dir}: no such folder; name one that holds songs")
    return data_dir / "train" if (data_dir / "train").is_dir() else data_dir


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


@dataclass(frozen=True)
class Session:
    """What stays the same during one training run."""

    config: Config
    total_steps: int
    device: str
    process: Process
    output_dir: Path
    log: Logger
    progress: Progress | None

    @property
    def models(self) -> Path:
        """Folder of weights."""
        return self.output_dir / "models"

    @property
    def logs(self) -> Path:
        """Folder of the log and the history."""
        return self.output_dir / "logs"


@dataclass(frozen=True)
class Material:
    """What is learned from: the songs of this process, all training songs, held-out songs, rewards and pairs."""

    shard: list[Song]
    training: list[Song]
    held_out: list[Song]
    source: RewardSource
    batch: SongBatch
    rewards: RewardPair
    pairs: PairBatch | None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a training checkpoint holds.

    Raises:
        FormatError: If the file is missing, damaged, of another kind, or lacks a piece.
    """
    payload = load_tensors(path)
    if payload.get("kind") != KIND:
        raise FormatError(
            f"{path}: not a training checkpoint: kind is {payload.get('kind')!r}, expected {KIND!r}; "
            "name a models/checkpoint_<step>.pt"
        )
    if set(payload) != _KEYS:
        raise FormatError(f"{path}: missing {sorted(_KEYS - set(payload))}, unknown {sorted(set(payload) - _KEYS)}")
    return payload


def _load_songs(folder: Path, session: Session) -> tuple[list[Song], list[Song]]:
    """Training and held-out songs."""
    config = session.config
    songs, records = prepare_songs(
        folder,
        home_folder(),
        corrections=corrections_folder(home_folder()),
        tracker=config.tracker,
        separator=config.separator,
        report=session.log.warning,
        n_processes=config.n_workers,
        progress=session.progress,
    )
    if len(songs) < MIN_SONGS:
        raise ParameterError(
            f"{folder}: only {len(songs)} of its files can be used as songs; training needs at least "
            f"{MIN_SONGS}: two to learn from and one held out"
        )
    parts = split_songs({r.track_id: r.work for r in records}, eval_fraction=config.eval_fraction, seed=config.seed)
    training = [song for song in songs if parts[song.track_id] == "train"]
    held_out = [song for song in songs if parts[song.track_id] == "eval"]
    session.log.info("songs: %d to learn from, %d held out", len(training), len(held_out))
    return training, held_out


def load_material(session: Session, folder: Path, named: str | None, from_registry: FromRegistry | None) -> Material:
    """Songs, reward model and pairs of a run; what is missing is analysed or trained."""
    config, process = session.config, session.process
    training, held_out = _load_songs(folder, session)

    def find() -> RewardSource:
        return find_reward_model(
            named,
            config=config,
            songs=training,
            output_dir=session.output_dir,
            device=session.device,
            log=session.log,
            from_registry=from_registry,
            progress=session.progress,
        )

    # One process trains what is missing; the others then find it.
    source = find() if process.leads else None
    if process.n_processes > 1:
        distributed.barrier()
    source = source or find()
    shard = training[process.rank :: process.n_processes]
    if not shard:
        raise ParameterError(f"{process.n_processes} processes but only {len(training)} training songs")
    pairs = None
    if config.algorithm == "dpo":
        answers = training_preferences(
            shard, pairs_per_song=config.n_pairs, seed=config.seed, progress=session.progress
        )
        pairs = pair_batch(answers, shard).to(session.device)
    batch = collate(shard).to(session.device)
    return Material(shard, training, held_out, source, batch, reward_pair(source.ensemble, batch), pairs)


def resumed_state(resumed: Mapping[str, Any], session: Session, material: Material) -> State:
    """The state that a checkpoint holds, if it belongs to these songs and this reward model."""
    if resumed["data_digest"] != songs_digest(material.training):
        raise FormatError("--checkpoint: it was trained on other songs, beats or features than those in --data_dir")
    if resumed["reward_digest"] != module_digest(material.source.ensemble):
        raise FormatError(
            f"--checkpoint: it was trained with another reward model than {material.source.origin}; name that one "
            "with --reward_model"
        )
    generators, process = resumed["generators"], session.process
    if len(generators) != process.n_processes:
        raise FormatError(f"--checkpoint: it was written by {len(generators)} processes; start as many")
    own = {**resumed["state"], "generator": generators[process.rank]}
    kind = PPOState if session.config.algorithm == "ppo" else DPOState
    state = kind.from_state_dict(own, device=session.device)
    session.log.info("resumed at step %d", state.step)
    return state


def new_state(session: Session, material: Material) -> State:
    """The state before the first update: a policy that imitates the exhaustive search for joins."""
    config = session.config
    torch.manual_seed(config.seed)
    policy = warm_start(
        Policy(config.policy),
        material.training,
        config=config.warm_start,
        seed=config.seed,
        device=session.device,
        log=lambda metrics, step: session.log.debug("warm start %d: %s", step, metrics),
        progress=session.progress,
    )
    if session.process.n_processes > 1:
        for value in policy.state_dict().values():
            distributed.broadcast(value, src=0)
    seed = config.seed + session.process.rank
    if material.pairs is not None:
        return init_dpo(policy, material.pairs, config=config.dpo, seed=seed)
    return init_ppo(policy, material.batch, material.rewards, config=config.ppo, seed=seed)


def _all_generators(state: State, process: Process) -> list[torch.Tensor]:
    """The generator state of every process, in the order of their ranks."""
    own = state.generator.get_state()
    if process.n_processes == 1:
        return [own]
    on_device = own.to(state.policy.device)
    gathered = [torch.empty_like(on_device) for _ in range(process.n_processes)]
    distributed.all_gather(gathered, on_device)
    return [value.cpu() for value in gathered]


class Recorder:
    """Writes the log, the history and the checkpoints of a run."""

    def __init__(self, session: Session, material: Material, resumed: Mapping[str, Any] | None) -> None:
        self._session = session
        self._material = material
        self.history = TrainingHistory(resumed["history"] if resumed is not None else None)
        self.history_path = session.logs / "training_history.json"
        self.model = {
            "name": f"editorbot-{session.config.algorithm}",
            "version": "local",
            "reward_model": material.source.origin,
        }
        self._next_save = int(resumed["next_save"]) if resumed is not None else session.config.save_interval

    def record(self, metrics: dict[str, float], step: int) -> None:
        """A row of the history and a line of the log."""
        row: dict[str, float | int] = {**metrics, "step": step, "episode": int(metrics["episode"])}
        self.history.append(row)
        self._session.log.info(line(row))

    def checkpoint(self, state: State) -> None:
        """Save everything if `save_interval` beats were decided since the last time."""
        session, material = self._session, self._material
        if state.step < self._next_save:
            return
        interval = session.config.save_interval
        self._next_save = (state.step // interval + 1) * interval
        generators = _all_generators(state, session.process)
        if not session.process.leads:
            return
        save_tensors(
            session.models / f"checkpoint_{state.step}.pt",
            {
                "kind": KIND,
                "algorithm": session.config.algorithm,
                "total_steps": session.total_steps,
                "config": config_to_dict(session.config),
                "data_digest": songs_digest(material.training),
                "reward_digest": module_digest(material.source.ensemble),
                "versions": _versions(),
                "state": state.state_dict(),
                "generators": generators,
                "policy": policy_payload(state.policy, model=self.model),
                "history": self.history.columns(),
                "next_save": self._next_save,
            },
        )
        self.history.save(self.history_path)
        session.log.info("checkpoint at step %d", state.step)


def improve(state: State, session: Session, material: Material, recorder: Recorder) -> None:
    """Train until the steps are done; `state` is changed in place."""
    judge = HeldOutJudge(
        material.held_out, material.source.ensemble, ratios=session.config.eval_ratios, device=session.device
    )
    if isinstance(state, PPOState):
        train_ppo(
            state,
            material.batch,
            material.rewards,
            total_steps=session.total_steps,
            evaluate=judge,
            after_iteration=recorder.checkpoint,
            log=recorder.record,
            progress=session.progress,
        )
    else:
        assert material.pairs is not None
        train_dpo(
            state,
            material.pairs,
            songs=material.batch,
            rewards=material.rewards,
            total_steps=session.total_steps,
            evaluate=judge,
            after_iteration=recorder.checkpoint,
            log=recorder.record,
            progress=session.progress,
        )
