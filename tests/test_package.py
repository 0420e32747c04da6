"""A built package holds what the library reads beside its code; an editable install would hide that it does not."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_file_of_the_library_is_code_or_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["editorbot_core"]
    core = ROOT / "editorbot_core"
    files = [path.relative_to(core) for path in core.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    data = [path for path in files if path.suffix != ".py"]
    assert {path.name for path in data} >= {"index.html", "app.js", "SHA256SUMS", "structure.npz"}
    left_out = [str(path) for path in data if not any(fnmatch(str(path), pattern) for pattern in patterns)]
    assert left_out == []
    assert all((core / path.parent / "__init__.py").is_file() for path in files if path.suffix == ".py")
