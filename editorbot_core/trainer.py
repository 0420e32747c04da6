"""Training from the command line: a folder of songs in, a policy out, resumable at any checkpoint.

Songs are analysed and split into training and held-out songs; a reward model is loaded or trained; a policy is
warm-started by imitation and then improved by PPO or DPO. One step is one beat decided in a rollout.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editorbot_core.analysis.names import check_separator, check_tracker
from editorbot_core.base.console import (
    add_device,
    add_set,
    check_device,
    check_file,
    check_folder,
    command_line,
    named_values,
    say,
)
from editorbot_core.base.errors import EditorBotError, ParameterError
from editorbot_core.config import REGISTRY_SCHEME, Config, config_from_dict, get_default_config, overridden

if TYPE_CHECKING:
    from editorbot_core.base.progress import Progress
    from editorbot_core.training.reward_source import FromRegistry
    from editorbot_core.training.session import Recorder, Session, State, TrainingResult


class RLHFTrainer:
    """Trains a policy on a folder of songs.

    Args:
        config: The configuration.
        output_dir: `models/` and `logs/` are written here.
        from_registry: Downloads registered reward models.
        progress: Called as progress(stage, done, total).
        log_level: Lowest level of messages that are shown.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        output_dir: Path | str = ".",
        from_registry: "FromRegistry | None" = None,
        progress: "Progress | None" = None,
        log_level: str = "INFO",
    ) -> None:
        self.config = config or get_default_config()
        self.output_dir = Path(output_dir)
        self.log_level = log_level
        self._from_registry = from_registry
        self._progress = progress

    def train(
        self,
        data_dir: Path | str,
        total_timesteps: int | None = None,
        *,
        checkpoint: Path | str | None = None,
        reward_model: str | None = None,
    ) -> "TrainingResult":
        """Train until `total_timesteps` beats were decided.

        Args:
            data_dir: Folder with songs in `train/` or directly inside.
            total_timesteps: Total beats; by default the configuration's, or the checkpoint's.
            checkpoint: A checkpoint to resume from, bit for bit; its configuration is used.
            reward_model: A `.pt` file or `models:/` URI; for the default see `training.reward_source`.

        Raises:
            ParameterError: If a folder, file or value that was named cannot be used.
            FormatError: If a file is damaged, or a checkpoint belongs to other songs or another reward model.
        """
        import torch

        from editorbot_core.base.devices import join_processes, local_device
        from editorbot_core.training.history import close_log, open_log
        from editorbot_core.training.session import (
            Recorder,
            Session,
            improve,
            load_material,
            new_state,
            read_checkpoint,
            resumed_state,
            training_folder,
        )

        folder = training_folder(Path(data_dir))
        resumed = read_checkpoint(Path(checkpoint)) if checkpoint is not None else None
        config = self.config if resumed is None else config_from_dict(resumed["config"])
        default_steps = config.total_steps if resumed is None else int(resumed["total_steps"])
        total_steps = default_steps if total_timesteps is None else total_timesteps
        if total_steps < 1:
            raise ParameterError(f"--total_steps must be at least 1, got {total_steps}")
        device = local_device(self.config.device)
        process = join_processes(device)
        log_path = self.output_dir / "logs" / "training.log"
        log = open_log(log_path if process.leads else None, level=self.log_level)
        progress = self._progress if process.leads else None
        session = Session(config, total_steps, device, process, self.output_dir, log, progress)
        try:
            log.info("device: %s%s", device, "" if torch.cuda.is_available() else " (there is no CUDA device)")
            material = load_material(session, folder, reward_model, self._from_registry)
            recorder = Recorder(session, material, resumed)
            state = new_state(session, material) if resumed is None else resumed_state(resumed, session, material)
            improve(state, session, material, recorder)
            return self._finish(state, session, recorder, log_path)
        finally:
            close_log(log)

    @staticmethod
    def _finish(state: "State", session: "Session", recorder: "Recorder", log_path: Path) -> "TrainingResult":
        from editorbot_core.policy.files import save_policy
        from editorbot_core.training.session import TrainingResult

        best, final = session.models / "policy_best.pt", session.models / "policy_final.pt"
        if session.process.leads:
            save_policy(best, state.selection.best_policy(state.policy), model=recorder.model)
            save_policy(final, state.policy, model=recorder.model)
            recorder.history.save(recorder.history_path)
        if state.stopped:
            session.log.info("stopped early: %s", state.stopped)
        first = state.selection.first
        result = TrainingResult(
            policy_best=best,
            policy_final=final,
            history=recorder.history.columns(),
            history_path=recorder.history_path,
            log_path=log_path,
            best_score=state.selection.best_score,
            reference_score=first.score if first is not None else None,
            steps=state.step,
        )
        session.log.info("held-out reward: best %s, warm start %s", result.best_score, result.reference_score)
        return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    default = get_default_config()
    parser.description = "Train a policy that edits music, by reinforcement learning from human feedback."
    parser.epilog = "CUDA_VISIBLE_DEVICES chooses GPUs; several: torchrun --nproc_per_node=N train_rlhf.py ..."
    add = parser.add_argument
    add("--data_dir", type=Path, required=True, help="folder with songs in train/ or directly inside")
    add("--checkpoint", type=Path, help="go on from this checkpoint exactly as if training had never stopped")
    add("--reward_model", help="a .pt file or models:/<name>@<alias> (default: found or trained, see docs)")
    add("--total_steps", type=int, help=f"beats decided in rollouts (default: {default.total_steps})")
    add("--algorithm", choices=("ppo", "dpo"), help=f"default: {default.algorithm}")
    add_device(parser)
    add("--save_interval", type=int, help=f"steps between checkpoints (default: {default.save_interval})")
    add("--log_level", choices=("DEBUG", "INFO", "WARNING"), default="INFO", help="default: INFO")
    add("--seed", type=int, help=f"seed of everything random (default: {default.seed})")
    add("--batch_size", type=int, help=f"beats per iteration, ppo.n_steps (default: {default.ppo.n_steps})")
    add(
        "--target",
        type=float,
        help=f"length to be judged at, as a share of the song (default: {default.eval_ratios[0]})",
    )
    add("--output_dir", type=Path, default=Path(), help="models/ and logs/ are written here (default: .)")
    add_set(parser)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes, by dotted name."""
    named = {
        "total_steps": arguments.total_steps,
        "algorithm": arguments.algorithm,
        "save_interval": arguments.save_interval,
        "seed": arguments.seed,
        "ppo.n_steps": arguments.batch_size,
        "eval_ratios": None if arguments.target is None else (arguments.target,),
    }
    settings = {name: value for name, value in named.items() if value is not None}
    settings |= named_values(arguments.set)
    if arguments.checkpoint is not None:
        changed = sorted(set(settings) - {"total_steps"})
        if changed:
            raise ParameterError(f"--checkpoint brings its own {', '.join(changed)}; leave those flags out")
    return settings


def run(arguments: argparse.Namespace, *, from_registry: "FromRegistry | None" = None) -> None:
    """Check the arguments, then train; `from_registry` fetches registered reward models."""
    config = overridden(get_default_config(), {**_settings(arguments), "device": arguments.device})
    check_device(config.device)
    check_tracker(config.tracker)
    check_separator(config.separator)
    check_folder(arguments.data_dir, "--data_dir")
    if arguments.checkpoint is not None:
        check_file(arguments.checkpoint, "--checkpoint")
    if arguments.reward_model is not None and not arguments.reward_model.startswith(REGISTRY_SCHEME):
        check_file(Path(arguments.reward_model), "--reward_model")
    import torch

    from editorbot_core.base.progress import ProgressBars

    options = {"output_dir": arguments.output_dir, "from_registry": from_registry, "log_level": arguments.log_level}
    named = {"checkpoint": arguments.checkpoint, "reward_model": arguments.reward_model}
    try:
        with ProgressBars() as bars:
            trainer = RLHFTrainer(config, progress=bars, **options)
            result = trainer.train(arguments.data_dir, arguments.total_steps, **named)
    except torch.OutOfMemoryError as error:
        raise EditorBotError(
            "the device ran out of memory: lower --batch_size (ppo.n_steps) and --set reward.pairs_per_song=...; "
            f"more ppo.accumulation_steps need less memory too ({error})"
        ) from error
    say(f"best    {result.policy_best}")
    say(f"last    {result.policy_final}")
    say(f"history {result.history_path}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m editorbot_core.trainer`, which knows no registry; returns its exit status."""
    return command_line(add_arguments, run, prog="python -m editorbot_core.trainer", argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
