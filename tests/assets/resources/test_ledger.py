"""Promotion: paired, honest about ties, and written down."""

from pathlib import Path

import pytest

from assets.resources.ledger import export_weights, last_champion, ledger_path, record_decision
from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import load_tensors, save_tensors


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
