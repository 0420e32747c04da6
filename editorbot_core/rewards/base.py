"""What every reward is.

A reward scores edits in batches: `(EditBatch) -> scores (n,)`, so that *combined* is a sum.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from editorbot_core.editing.batches import EditBatch

RewardFunction = Callable[[EditBatch], torch.Tensor]


class Reward(Protocol):
    """Anything that scores edits."""

    def __call__(self, edits: EditBatch) -> torch.Tensor:
        """Scores of the edits, float32 (n,)."""
        ...
