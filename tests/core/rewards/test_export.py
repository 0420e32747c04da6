"""The reward model as other programs run it scores as the ensemble does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.rewards.export import reward_export
from editorbot_core.rewards.learned import RewardEnsemble
from tests.core.rewards.conftest import SMALL, beat_form, some_edits


@pytest.fixture
def ensemble(tmp_path: Path) -> RewardEnsemble:
    torch.manual_seed(0)
    ensemble = RewardEnsemble(replace(SMALL, n_members=3)).eval()
    ensemble.save(tmp_path / "reward.pt")
    return ensemble


def test_the_examples_give_the_output(ensemble: RewardEnsemble, tmp_path: Path) -> None:
    export = reward_export(tmp_path / "reward.pt")
    assert list(export.examples) == ["features", "actions", "target", "unit_id"]
    assert {len(tensor) for tensor in export.examples.values()} == {2}
    assert torch.equal(export.module(*export.examples.values()), export.output)
    assert not export.output.requires_grad


def test_it_is_the_mean_over_the_members(ensemble: RewardEnsemble, tmp_path: Path, songs) -> None:
    form = beat_form(some_edits(songs, n=5))
    inputs = [form[name] for name in ("features", "actions", "target", "unit_id")]
    with torch.no_grad():
        mean = torch.stack([member(*inputs) for member in ensemble.members]).mean(0)
    torch.testing.assert_close(reward_export(tmp_path / "reward.pt").module(*inputs), mean)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        reward_export(tmp_path / "none.pt")
