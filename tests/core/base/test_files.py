"""Laws of the atomic writer and of digests."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from editorbot_core.base.errors import FormatError
from editorbot_core.base.files import (
    atomic_path,
    digest,
    read_json,
    sha256_file,
    source_digest,
    sweep_temporaries,
    write_bytes,
    write_json,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    target = tmp_path / "new" / "value.json"
    value = {"a": [1, 2.5, None], "name": "Ünïcode"}
    write_json(target, value)
    assert read_json(target) == value
    assert [path.name for path in target.parent.iterdir()] == ["value.json"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "value.bin"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_bytes(b"new, but only ha")
        raise RuntimeError("half way")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_temporary_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "song.wav") as temporary:
        assert temporary.suffix == ".wav"
        assert temporary.parent == tmp_path


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', "{", "[" * 100_000, "\xff"])
def test_what_is_not_strict_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=r"value\.json: not readable as JSON"):
        read_json(path)


def test_json_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("[" + "0," * 1000 + "0]")
    with pytest.raises(FormatError, match="at most 100 are read"):
        read_json(path, max_bytes=100)


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "value.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_only_stale_temporaries_are_swept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "fresh.bin") as temporary:
        stale = temporary.with_name(temporary.name.replace("fresh", "stale"))
        stale.touch()
        os.utime(stale, (0, 0))
        assert sweep_temporaries(tmp_path) == 1
        assert temporary.exists()
        assert not stale.exists()


def _package(folder: Path, files: dict[str, str]) -> ModuleType:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    package = ModuleType(folder.name)
    package.__path__ = [str(folder)]
    return package


def test_the_digest_of_source_covers_every_file_its_place_and_its_text(tmp_path: Path) -> None:
    files = {"__init__.py": "", "a.py": "x = 1", "inner/__init__.py": "", "inner/b.py": "y = 2"}
    digests = [source_digest(_package(tmp_path / "one" / "package", files))]
    assert source_digest(_package(tmp_path / "two" / "package", files)) == digests[0]
    for number, changed in enumerate(
        (
            {**files, "inner/b.py": "y = 3"},
            {**files, "c.py": ""},
            {"__init__.py": "", "b.py": "y = 2", "inner/__init__.py": "", "inner/a.py": "x = 1"},
        )
    ):
        digests.append(source_digest(_package(tmp_path / str(number) / "package", changed)))
    assert len(set(digests)) == 4
