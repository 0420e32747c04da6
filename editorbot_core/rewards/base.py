"""The type of all rewards: a function from a batch of n edits to scores, float32 (n,), which can be added."""

from collections.abc import Callable

import torch

from editorbot_core.editing.batches import EditBatch

RewardFunction = Callable[[EditBatch], torch.Tensor]
