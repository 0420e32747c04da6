"""`editorbot study`: learn on one folder of annotated songs, judge on another, over several seeds."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from editorbot_core.base.console import named_values, run_command, say
from editorbot_core.base.devices import resolve_device
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import home_folder
from editorbot_core.base.progress import Progress, ProgressBars
from editorbot_core.config import get_default_config, overridden
from editorbot_core.songs.library import ingest, load_songs
from editorbot_core.songs.song import Song
from editorbot_core.training.study import run_study


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="editorbot study",
        description="Learn on one folder of annotated songs, judge on another, over several seeds; write the table.",
    )
    add = parser.add_argument
    add("--train", type=Path, required=True, metavar="FOLDER", help="songs to learn from")
    add("--test", type=Path, required=True, metavar="FOLDER", help="songs to judge on, used for nothing else")
    add("--seeds", type=int, default=3, metavar="N", help="how often everything is learned anew (default: 3)")
    add("--rounds", type=int, default=2, metavar="N", help="rounds of collecting, comparing and learning (default: 2)")
    add("--ratio", type=float, nargs="+", default=[0.5], help="target lengths over song length (default: 0.5)")
    add("--only", default="", metavar="TEXT", help="only test files whose name contains this, such as .band.")
    add("--output", type=Path, default=Path("results/study"), help="where results go (default: results/study)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, such as ppo.n_steps=4096")
    add("--device", default="auto", help="cuda, cuda:N or cpu (default: cuda if there is one, else cpu)")
    return parser


def _songs(folder: Path, progress: Progress, only: str = "") -> list[Song]:
    if not folder.is_dir():
        raise ParameterError(f"{folder}: no such folder; name one that holds songs")
    store = home_folder() / "study"
    records = [record for record in ingest(folder, store, progress=progress) if only in Path(record.path).name]
    for record in records:
        if not record.accepted:
            say(f"left out: {record.path}: {record.reason}")
    songs = load_songs(records, store)
    if not songs:
        raise ParameterError(f"{folder}: none of its {len(records)} files can be used as a song")
    return songs


def _run(arguments: argparse.Namespace) -> None:
    config = overridden(get_default_config(), named_values(arguments.set))
    bars = ProgressBars()
    try:
        study = run_study(
            _songs(arguments.train, bars),
            _songs(arguments.test, bars, arguments.only),
            config=config,
            seeds=range(arguments.seeds),
            n_rounds=arguments.rounds,
            ratios=arguments.ratio,
            output=arguments.output,
            device=resolve_device(arguments.device),
            progress=bars,
        )
    finally:
        bars.close()
    say(study.markdown())
    say(f"written to {arguments.output}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))
