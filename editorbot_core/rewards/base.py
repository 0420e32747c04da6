"""The type of all rewards: a function from a batch of n edits to scores, float32 (n,), which can be added."""

from collections.abc import Callable
from typing import Protocol

import torch

from editorbot_core.editing.batches import EditBatch

RewardFunction = Callable[[EditBatch], torch.Tensor]


class Reward(Protocol):
    """A callable that scores edits."""

    def __call__(self, edits: EditBatch) -> torch.Tensor:
        """Scores of the edits, float32 (n,)."""
        ...
