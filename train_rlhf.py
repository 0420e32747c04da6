"""Train a policy on a folder of songs: `python train_rlhf.py --data_dir ./training_data`; `--help` tells the rest."""

import sys
from pathlib import Path

from editorbot_core.trainer import RLHFTrainer, main

__all__ = ["RLHFTrainer"]


def _from_registry(uri: str | None) -> Path | None:
    """Weights of a registered reward model; imported late, because MLflow is slow to import and seldom needed."""
    from assets.resources.registry import registry
    from assets.resources.tracking import download_registered_weights

    names = registry()
    return download_registered_weights(uri or f"models:/{names.reward_name}@{names.champion}")


if __name__ == "__main__":
    sys.exit(main(from_registry=_from_registry))
