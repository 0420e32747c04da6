"""The command `editorbot study`: train on one folder of annotated songs, evaluate on another, over several seeds."""

import argparse
from pathlib import Path

from editorbot_core.analysis.names import check_separator, check_tracker
from editorbot_core.base.console import (
    add_device,
    add_set,
    check_count,
    check_device,
    check_folder,
    check_ratios,
    named_values,
    say,
)
from editorbot_core.base.home import corrections_folder, home_folder
from editorbot_core.config import get_default_config, overridden


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Learn on one folder of annotated songs, judge on another, over several seeds; write the table."
    )
    add = parser.add_argument
    add("--train", type=Path, required=True, metavar="FOLDER", help="songs to train on")
    add("--test", type=Path, required=True, metavar="FOLDER", help="songs to evaluate on, used for nothing else")
    add("--seeds", type=int, default=3, metavar="N", help="number of trainings, each with its own seed (default: 3)")
    add("--rounds", type=int, default=2, metavar="N", help="rounds of collecting, comparing and learning (default: 2)")
    add("--ratio", type=float, nargs="+", default=[0.5], help="target lengths over song length (default: 0.5)")
    add("--only", default="", metavar="TEXT", help="only test files whose name contains this, such as .band.")
    add("--output", type=Path, default=Path("results/study"), help="where results go (default: results/study)")
    add_set(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> None:
    """Analyse both folders, learn and judge, print the table."""
    check_count("--seeds", arguments.seeds)
    check_count("--rounds", arguments.rounds)
    check_ratios("--ratio", arguments.ratio)
    check_device(arguments.device)
    config = overridden(get_default_config(), named_values(arguments.set))
    check_tracker(config.tracker)
    check_separator(config.separator)
    check_folder(arguments.train, "--train")
    check_folder(arguments.test, "--test")
    from editorbot_core.base.devices import resolve_device
    from editorbot_core.base.progress import ProgressBars
    from editorbot_core.songs.library import prepare_songs
    from editorbot_core.training.study import run_study

    device = resolve_device(arguments.device)
    with ProgressBars() as bars:
        train, test = (
            prepare_songs(
                folder,
                home_folder() / "study",
                corrections=corrections_folder(home_folder()),
                tracker=config.tracker,
                separator=config.separator,
                report=say,
                only=only,
                n_processes=config.n_workers,
                progress=bars,
            ).songs
            for folder, only in ((arguments.train, ""), (arguments.test, arguments.only))
        )
        study = run_study(
            train,
            test,
            config=config,
            seeds=range(arguments.seeds),
            n_rounds=arguments.rounds,
            ratios=arguments.ratio,
            output=arguments.output,
            device=device,
            progress=bars,
        )
    say(study.markdown())
    say(f"written to {arguments.output}")
