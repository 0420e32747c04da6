"""Promotion: paired, honest about ties, and written down."""

from pathlib import Path

import pytest

from assets.resources.ledger import Challenge, decide, export_weights, last_champion, ledger_path, record_decision
from assets.resources.registry import Promotion
from editorbot_core.base.errors import FormatError, GateError
from editorbot_core.base.tensors import load_tensors, save_tensors
from editorbot_core.evaluation.comparison import Gain


def test_the_ledger_only_grows(tmp_path: Path) -> None:
    assert last_champion(tmp_path) is None
    record_decision(tmp_path, "promoted", version="1")
    before = ledger_path(tmp_path).read_bytes()
    record_decision(tmp_path, "kept", version="1", reason="no gain")
    assert ledger_path(tmp_path).read_bytes().startswith(before)
    assert (last_champion(tmp_path) or {})["action"] == "kept"


def test_exported_weights_carry_their_digest(tmp_path: Path) -> None:
    import torch

    source, target = tmp_path / "a.pt", tmp_path / "out" / "champion.pt"
    save_tensors(source, {"w": torch.arange(3)})
    export_weights(source, target)
    assert torch.equal(load_tensors(target)["w"], torch.arange(3))
    save_tensors(source, {"w": torch.arange(4)})
    export_weights(source, target)
    assert torch.equal(load_tensors(target)["w"], torch.arange(4))
    damaged = bytearray(target.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    target.write_bytes(bytes(damaged))
    with pytest.raises(FormatError, match="damaged"):
        load_tensors(target)


RULES = Promotion(min_quality_gain=0.0, min_gain_probability=0.8)


def _challenge(gain: float, probability: float) -> Challenge:
    return Challenge("ppo_policy", "new", "champion", "old", Gain(gain, probability, 6))


@pytest.mark.parametrize(
    ("champion", "gain", "probability", "winner"),
    [
        ("old", 2.0, 0.9, "challenger"),
        ("old", 2.0, 0.7, "champion"),
        ("old", -1.0, 0.9, "champion"),
        ("old", 0.0, 1.0, "champion"),
        ("dpo", 2.0, 0.9, "challenger"),
        ("new", 9.0, 1.0, "champion"),
        (None, 2.0, 0.9, "challenger"),
        (None, 2.0, 0.7, "reference"),
    ],
)
def test_the_challenger_wins_only_where_it_is_surely_better(
    champion: str | None, gain: float, probability: float, winner: str
) -> None:
    decision = decide(champion, _challenge(gain, probability), contenders={"warm", "new", "dpo"}, rules=RULES)
    assert decision.winner == winner
    assert decision.reason


def test_a_champion_that_nobody_was_compared_with_stops_the_decision() -> None:
    with pytest.raises(GateError, match="changed since the evaluation"):
        decide("somebody", _challenge(9.0, 1.0), contenders={"warm", "new", "dpo"}, rules=RULES)


def test_the_reason_has_the_figures() -> None:
    reason = decide("old", _challenge(2.5, 0.7), contenders=(), rules=RULES).reason
    for text in ("ppo_policy", "+2.50", "champion", "70%", "80%"):
        assert text in reason
