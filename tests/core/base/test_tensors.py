"""A `.pt` file comes back as it was, or not at all."""

from pathlib import Path

import pytest
import torch

from editorbot_core.base.errors import FormatError
from editorbot_core.base.tensors import digest_path, load_tensors, save_tensors


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    save_tensors(path, {"weights": torch.arange(512.0), "nested": {"name": "a", "values": [1, 2.5, None, True]}})
    return path


def test_round_trip(saved: Path) -> None:
    payload = load_tensors(saved)
    torch.testing.assert_close(payload["weights"], torch.arange(512.0), rtol=0, atol=0)
    assert payload["nested"] == {"name": "a", "values": [1, 2.5, None, True]}


def test_files_load_with_weights_only(saved: Path) -> None:
    assert set(torch.load(saved, weights_only=True)) == {"weights", "nested"}


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.9])
def test_one_flipped_bit_is_refused(saved: Path, position: float) -> None:
    content = bytearray(saved.read_bytes())
    content[int(position * len(content))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(FormatError, match="damaged"):
        load_tensors(saved)


def test_a_truncated_file_without_a_digest_is_refused(saved: Path) -> None:
    digest_path(saved).unlink()
    saved.write_bytes(saved.read_bytes()[:-200])
    with pytest.raises(FormatError, match="not a readable"):
        load_tensors(saved)


class _Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_pickle_is_never_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pt"
    torch.save({"weights": _Hostile()}, path)
    with pytest.raises(FormatError, match="not a readable"):
        load_tensors(path)
    assert not Path("executed").exists()


class _Version(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", _Version("2.0")])
def test_only_tensors_and_plain_values_are_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(FormatError, match="only tensors and plain values"):
        save_tensors(tmp_path / "model.pt", {"value": value})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        load_tensors(tmp_path / "model.pt")
