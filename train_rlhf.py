"""Train a policy on a folder of songs: `python train_rlhf.py --data_dir ./training_data`; `--help` tells the rest."""

import sys

from editorbot_core.trainer import RLHFTrainer
from pipelines.commands.train import main

__all__ = ["RLHFTrainer"]

if __name__ == "__main__":
    sys.exit(main())
