"""`editorbot train`, also `python train_rlhf.py`: train a policy on a folder of songs, without the pipeline."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from editorbot_core import trainer
from editorbot_core.base.console import command_line

add_arguments = trainer.add_arguments


def _from_registry(uri: str | None) -> Path | None:
    """Weights of a registered reward model; imported late, because MLflow is slow to import and seldom needed."""
    from assets.resources.registry import registry
    from assets.resources.tracking import download_registered_weights

    names = registry()
    return download_registered_weights(uri or f"models:/{names.reward_name}@{names.champion}")


def run(arguments: argparse.Namespace) -> None:
    """Train, with the registry at hand."""
    trainer.run(arguments, from_registry=_from_registry)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `train_rlhf.py`; returns its exit status."""
    return command_line(add_arguments, run, prog="train_rlhf.py", argv=argv)
