"""Promotion: paired, honest about ties, and written down."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.promotion import (
    Gain,
    export_weights,
    is_better,
    last_champion,
    ledger_path,
    paired_gain,
    record_decision,
)
from assets.registry import Promotion
from editorbot_core.checkpoint import load_tensors, save_tensors
from editorbot_core.errors import FormatError, ParameterError

RULES = Promotion(min_quality_gain=0.0, min_gain_probability=0.8)


def _rows(**quality: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"track_id": f"song{i}", "editor": editor, "quality": value}
            for editor, values in quality.items()
            for i, value in enumerate(values)
        ]
    )


def test_gain_is_paired_by_song() -> None:
    # Songs differ by 30 points, editors by one: only pairing shows it.
    easy = np.linspace(40, 70, 8)
    gain = paired_gain(_rows(new=list(easy + 1), old=list(easy)), "new", "old")
    assert gain.mean == pytest.approx(1.0)
    assert gain.probability == 1.0
    assert gain.n_songs == 8
    assert is_better(gain, RULES)


def test_equal_editors_are_no_gain() -> None:
    gain = paired_gain(_rows(new=[50.0, 60.0], old=[50.0, 60.0]), "new", "old")
    assert gain == Gain(0.0, 0.5, 2)
    assert not is_better(gain, RULES)


def test_exchanging_the_editors_mirrors_the_gain() -> None:
    rows = _rows(new=[50.0, 61.0, 44.0], old=[52.0, 55.0, 47.0])
    forth, back = paired_gain(rows, "new", "old"), paired_gain(rows, "old", "new")
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.probability == pytest.approx(1 - back.probability)


def test_a_doubtful_gain_is_not_enough() -> None:
    assert not is_better(Gain(2.0, 0.79, 4), RULES)
    assert is_better(Gain(2.0, 0.8, 4), RULES)
    assert not is_better(Gain(-0.1, 0.9, 4), RULES)


def test_an_editor_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ParameterError, match="'other'"):
        paired_gain(_rows(new=[50.0]), "new", "other")


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
