"""An ensemble is its members, and a file is exactly what was saved or refused."""

from dataclasses import replace

import pytest
import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import save_tensors
from editorbot_core.rewards.learned import RewardEnsemble, load_reward, saturated_share
from tests.core.rewards.conftest import SMALL, some_edits


def test_the_ensemble_is_its_members(songs):
    torch.manual_seed(0)
    ensemble = RewardEnsemble(replace(SMALL, n_members=3, pessimism=0.5)).eval()
    edits = some_edits(songs)
    by_member = ensemble.score_members(edits)
    assert by_member.shape == (3, 60)
    assert torch.allclose(ensemble(edits), by_member.mean(0) - 0.5 * by_member.std(0, correction=0), atol=1e-6)
    assert torch.equal(ensemble.score_members(edits, states=ensemble.encode(edits.songs)), by_member)


def test_an_ensemble_comes_back_as_it_was_saved(tmp_path, songs):
    torch.manual_seed(0)
    ensemble = RewardEnsemble(SMALL, metrics={"rm/nll": 0.3}, model={"name": "reward", "version": 4}).eval()
    ensemble.temperature.fill_(0.7)
    ensemble.save(tmp_path / "reward.pt")
    loaded = load_reward(tmp_path / "reward.pt")
    edits = some_edits(songs)
    assert torch.equal(loaded.score_members(edits), ensemble.score_members(edits))
    assert (loaded.config, loaded.metrics, loaded.model) == (SMALL, ensemble.metrics, ensemble.model)
    assert float(loaded.temperature) == pytest.approx(0.7) and not loaded.training
    raw = torch.load(tmp_path / "reward.pt", weights_only=True)
    assert raw["kind"] == "editorbot.reward_model/2"


def _damage(payload, what):
    member = payload["members"][0]
    if what == "kind":
        payload["kind"] = "editorbot.policy/1"
    elif what == "a key":
        del payload["metrics"]
    elif what == "an unknown key":
        payload["extra"] = 1
    elif what == "features":
        payload["feature_names"][0] = "loudness"
    elif what == "an unknown setting":
        payload["config"]["wings"] = 2
    elif what == "a huge setting":
        payload["config"]["hidden"] = 1_000_000
    elif what == "members":
        payload["members"].pop()
    elif what == "a weight":
        del member["song_start"]
    elif what == "a shape":
        member["song_start"] = member["song_start"][:3].clone()
    elif what == "a type":
        member["song_start"] = member["song_start"].double()
    elif what == "NaN":
        member["song_start"][0] = float("nan")
    elif what == "scale":
        member["feature_scale"][3] = 0.0
    elif what == "temperature":
        payload["temperature"] = 0.0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("kind", "not a reward model"),
        ("a key", "missing or unknown"),
        ("an unknown key", "missing or unknown"),
        ("features", "other features"),
        ("an unknown setting", "unusable configuration"),
        ("a huge setting", "hidden must be in"),
        ("members", "2 members expected, got 1"),
        ("a weight", "missing or unknown weights: song_start"),
        ("a shape", "song_start must be torch.float32"),
        ("a type", "song_start must be torch.float32"),
        ("NaN", "not finite"),
        ("scale", "feature_scale must be positive"),
        ("temperature", "temperature must be"),
    ],
)
def test_a_file_that_is_not_exactly_a_reward_model_is_refused(tmp_path, what, message):
    payload = RewardEnsemble(SMALL).payload()
    RewardEnsemble.from_payload(payload, source="before")
    _damage(payload, what)
    save_tensors(tmp_path / "reward.pt", payload)
    with pytest.raises(FormatError, match=message):
        load_reward(tmp_path / "reward.pt")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "reward.pt"
    RewardEnsemble(SMALL).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        load_reward(path)


def test_saturation_is_the_share_near_either_end():
    assert saturated_share(torch.tensor([9.95, -9.91, 9.89, 0.0])) == 0.5
    assert saturated_share(torch.zeros(0)) == 0.0
