"""The command `python -m editorbot_core.evaluation`: judge a policy against the baselines on a folder of songs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from editorbot_core.analysis.names import add_separator, add_tracker, check_separator, check_tracker
from editorbot_core.base.console import (
    add_device,
    check_count,
    check_device,
    check_file,
    check_folder,
    check_ratios,
    command_line,
    say,
)
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import corrections_folder, home_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Judge a policy against the baselines on a folder of songs; print a table, write JSON and plots."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, type=Path, help="policy or training checkpoint (.pt)")
    add("--test_dir", required=True, type=Path, help="folder with songs, annotations beside them where there are any")
    add("--ratio", type=float, nargs="+", default=[0.5], help="target lengths over song length (default: 0.5)")
    add("--output_dir", type=Path, default=Path("results"), help="where results go (default: results)")
    add("--candidates", type=int, default=1, help="edits sampled per song, the reward model picks one (default: 1)")
    add("--reward_model", type=Path, help="reward model (.pt): picks among --candidates, and guides a search")
    add("--rendered", action="store_true", help="also render every edit and count clicks; slower")
    add_tracker(parser)
    add_separator(parser)
    add_device(parser)
    add("--n_workers", type=int, default=2, help="processes that analyse songs (default: 2)")


def _check(arguments: argparse.Namespace) -> None:
    check_count("--candidates", arguments.candidates)
    check_count("--n_workers", arguments.n_workers)
    if arguments.candidates > 1 and arguments.reward_model is None:
        raise ParameterError("--candidates needs --reward_model FILE, which picks the best of them")
    check_ratios("--ratio", arguments.ratio)
    check_device(arguments.device)
    check_tracker(arguments.tracker)
    check_separator(arguments.separator)
    check_folder(arguments.test_dir, "--test_dir")
    check_file(arguments.checkpoint, "--checkpoint")
    if arguments.reward_model is not None:
        check_file(arguments.reward_model, "--reward_model")


def run(arguments: argparse.Namespace) -> None:
    """Analyse the songs, let every editor edit them, and write the report."""
    _check(arguments)
    from editorbot_core.base.devices import resolve_device
    from editorbot_core.base.progress import ProgressBars
    from editorbot_core.editing.baselines import BASELINES
    from editorbot_core.evaluation.evaluate import evaluate
    from editorbot_core.evaluation.report import write_evaluation
    from editorbot_core.policy.editors import policy_editor
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward
    from editorbot_core.songs.library import prepare_songs

    device = resolve_device(arguments.device)
    loaded = load_policy(arguments.checkpoint, device)
    reward = None if arguments.reward_model is None else load_reward(arguments.reward_model, device=device)
    with ProgressBars() as bars:
        songs, _ = prepare_songs(
            arguments.test_dir,
            home_folder() / "evaluation",
            corrections=corrections_folder(home_folder()),
            tracker=arguments.tracker,
            separator=arguments.separator,
            report=say,
            n_processes=arguments.n_workers,
            progress=bars,
        )
        policy = policy_editor(loaded.policy, n_candidates=arguments.candidates, reward=reward, device=device)
        editors = {**BASELINES, "policy": policy}
        if reward is not None:
            editors["guided_search"] = policy_editor(loaded.policy, reward=reward, guided=True, device=device)
        evaluation = evaluate(editors, songs, ratios=arguments.ratio, rendered=arguments.rendered, progress=bars)
    say(evaluation.text())
    for editor in [name for name in editors if name not in BASELINES]:
        for other in (*BASELINES, "policy"):
            if other != editor:
                share, low, high, _ = evaluation.wins(editor, other)
                say(f"{editor} better than {other} in {100 * share:.0f} % ({100 * low:.0f}-{100 * high:.0f} %)")
    write_evaluation(arguments.output_dir, evaluation)
    say(f"written to {arguments.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m editorbot_core.evaluation`; returns its exit status."""
    return command_line(add_arguments, run, prog="python -m editorbot_core.evaluation", argv=argv)


if __name__ == "__main__":
    raise SystemExit(main())
