"""What `make` does that no other test runs."""

import subprocess
from pathlib import Path

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"


def test_clean_spares_what_people_said(tmp_path: Path) -> None:
    home = tmp_path / ".editorbot"
    for name in ("corrections", "models", "dagster"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text("x")
    (home / "preferences.db").write_text("answers")
    (tmp_path / ".venv").mkdir()
    done = subprocess.run(
        ["make", "-f", str(MAKEFILE), "clean"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert left == {"preferences.db", "corrections/file"}
    assert not (tmp_path / ".venv").exists()
    assert "preferences.db" in done.stdout


def test_clean_leaves_nothing_where_nobody_said_anything(tmp_path: Path) -> None:
    (tmp_path / ".editorbot" / "models").mkdir(parents=True)
    subprocess.run(["make", "-f", str(MAKEFILE), "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert list(tmp_path.iterdir()) == []
