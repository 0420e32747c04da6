"""The command `python -m editorbot_core.evaluation`: judge a policy against the baselines on a folder of songs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER, SEPARATORS, TRACKERS
from editorbot_core.base.console import run_command, say
from editorbot_core.base.errors import AudioError, ParameterError
from editorbot_core.base.home import corrections_folder, home_folder
from editorbot_core.base.progress import ProgressBars
from editorbot_core.editing.baselines import BASELINES
from editorbot_core.evaluation.evaluate import evaluate
from editorbot_core.evaluation.report import write_evaluation


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m editorbot_core.evaluation",
        description="Judge a policy against the baselines on a folder of songs; print a table, write JSON and plots.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, type=Path, help="policy or training checkpoint (.pt)")
    add("--test_dir", required=True, type=Path, help="folder with songs, annotations beside them where there are any")
    add("--ratio", type=float, nargs="+", default=[0.5], help="target lengths over song length (default: 0.5)")
    add("--output_dir", type=Path, default=Path("results"), help="where results go (default: results)")
    add("--candidates", type=int, default=1, help="edits sampled per song, the reward model picks one (default: 1)")
    add("--reward_model", type=Path, help="reward model (.pt): picks among --candidates, and guides a search")
    add("--rendered", action="store_true", help="also render every edit and count clicks; slower")
    add("--tracker", choices=TRACKERS, default=DEFAULT_TRACKER, help=f"finds the beats (default: {DEFAULT_TRACKER})")
    stems = f"divides songs into stems; as in training (default: {DEFAULT_SEPARATOR})"
    add("--separator", choices=SEPARATORS, default=DEFAULT_SEPARATOR, help=stems)
    add("--device", default="auto", help="cuda, cuda:N or cpu (default: cuda if there is one, else cpu)")
    add("--n_workers", type=int, default=2, help="processes that analyse songs (default: 2)")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    """The body of the command."""
    # Editors can be evaluated without songs on disk or a policy; only the command needs these.
    from editorbot_core.base.devices import resolve_device
    from editorbot_core.policy.editors import policy_editor
    from editorbot_core.policy.files import load_policy
    from editorbot_core.rewards.learned import load_reward
    from editorbot_core.songs.library import ingest, load_songs

    if arguments.candidates < 1:
        raise ParameterError(f"--candidates must be at least 1; got {arguments.candidates}")
    if arguments.candidates > 1 and arguments.reward_model is None:
        raise ParameterError("--candidates needs --reward_model FILE, which picks the best of them")
    if not arguments.test_dir.is_dir():
        raise ParameterError(f"--test_dir {arguments.test_dir}: no such folder; name one that holds songs")
    device = resolve_device(arguments.device)
    loaded = load_policy(arguments.checkpoint, device)
    reward = None if arguments.reward_model is None else load_reward(arguments.reward_model, device=device)
    bars = ProgressBars()
    store = home_folder() / "evaluation"
    corrections = corrections_folder(home_folder())
    records = ingest(
        arguments.test_dir,
        store,
        n_processes=arguments.n_workers,
        tracker=arguments.tracker,
        separator=arguments.separator,
        corrections=corrections,
        progress=bars,
    )
    for record in records:
        if record.status != "accepted":
            say(f"left out: {record.path}: {record.reason}")
    songs = load_songs(records, store, corrections=corrections)
    if not songs:
        raise AudioError(f"--test_dir {arguments.test_dir}: none of its {len(records)} files can be used as a song")
    policy = policy_editor(loaded.policy, n_candidates=arguments.candidates, reward=reward, device=device)
    editors = {**BASELINES, "policy": policy}
    if reward is not None:
        editors["guided_search"] = policy_editor(loaded.policy, reward=reward, guided=True, device=device)
    try:
        evaluation = evaluate(editors, songs, ratios=arguments.ratio, rendered=arguments.rendered, progress=bars)
    finally:
        bars.close()
    say(evaluation.text())
    for other in BASELINES:
        share, low, high, _ = evaluation.wins("policy", other)
        say(f"policy better than {other} in {100 * share:.0f} % of songs ({100 * low:.0f}-{100 * high:.0f} %)")
    if reward is not None:
        for other in (*BASELINES, "policy"):
            share, low, high, _ = evaluation.wins("guided_search", other)
            say(f"guided_search better than {other} in {100 * share:.0f} % ({100 * low:.0f}-{100 * high:.0f} %)")
    write_evaluation(arguments.output_dir, evaluation)
    say(f"written to {arguments.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m editorbot_core.evaluation`; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
