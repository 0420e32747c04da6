"""The reward model as MLflow stores it for other programs: one pure function of tensors, for `torch.export`.

A row is an edit. The pipeline itself loads the `.pt` weights that are logged beside it. Policies are registered with
those weights alone: an edit is decided unit by unit under a mask, which is not a single pure function.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from editorbot_core.rewards.learned import RewardEnsemble, load_reward
from editorbot_core.rewards.model import N_INPUT_FEATURES

N_EXAMPLE_EDITS = 2
N_EXAMPLE_BEATS = 32
BEATS_PER_UNIT = 4


class Export(NamedTuple):
    """The module to export, with example inputs to trace it on.

    Attributes:
        module: Module whose forward takes the examples in order.
        examples: Tensors by name, two rows each.
        output: Output of the module for the examples.
    """

    module: torch.nn.Module
    examples: Mapping[str, torch.Tensor]
    output: torch.Tensor


class _MeanScore(torch.nn.Module):
    """Mean score over the members."""

    def __init__(self, ensemble: RewardEnsemble) -> None:
        super().__init__()
        self.members = ensemble.members
        self.heard = [float(member.get_buffer("heard_share")) > 0 for member in ensemble.members]

    def forward(
        self, features: torch.Tensor, actions: torch.Tensor, target: torch.Tensor, unit_id: torch.Tensor
    ) -> torch.Tensor:
        """Scores (n,) of features (n, T, 125), actions (n, T), target (n,), unit_id (n, T)."""
        scores = [
            member(features, actions, target, unit_id, heard_counts=heard)
            for member, heard in zip(self.members, self.heard, strict=True)
        ]
        return torch.stack(scores).mean(0)


def reward_export(weights: Path) -> Export:
    """The mean score over the members of the ensemble in a `.pt` file.

    Raises:
        FormatError: If the file is damaged or no reward model.
    """
    n, n_beats = N_EXAMPLE_EDITS, N_EXAMPLE_BEATS
    generator = torch.Generator().manual_seed(0)
    unit_id = (torch.arange(n_beats) // BEATS_PER_UNIT).repeat(n, 1)
    actions = torch.randint(0, 2, (n, n_beats // BEATS_PER_UNIT), generator=generator)
    actions[:, 0] = 0
    module = _MeanScore(load_reward(weights)).eval().requires_grad_(False)
    examples = {
        "features": torch.randn((n, n_beats, N_INPUT_FEATURES), generator=generator),
        "actions": actions.gather(1, unit_id),
        "target": torch.full((n,), 0.5),
        "unit_id": unit_id,
    }
    with torch.no_grad():
        output = module(*examples.values())
    return Export(module, examples, output)
