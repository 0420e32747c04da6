"""Where local results live, and which addresses the environment changes."""

import re
from pathlib import Path

import pytest

from editorbot_core.base.home import DEFAULT_HOME, database_url, home_folder


@pytest.mark.parametrize("unset", ["", None])
def test_without_the_variable_it_is_a_hidden_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unset: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    if unset is None:
        monkeypatch.delenv("EDITORBOT_HOME")
    else:
        monkeypatch.setenv("EDITORBOT_HOME", unset)
    assert home_folder() == tmp_path.resolve() / DEFAULT_HOME
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_absolute_and_the_tilde_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITORBOT_HOME", "results")
    assert home_folder() == tmp_path.resolve() / "results"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDITORBOT_HOME", "~/music")
    assert home_folder() == tmp_path.resolve() / "music"


def test_preferences_are_stored_at_home_unless_an_address_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_url() == f"sqlite:///{home_folder() / 'preferences.db'}"
    monkeypatch.setenv("EDITORBOT_DATABASE_URL", "postgresql://host/ratings")
    assert database_url() == "postgresql://host/ratings"


def test_no_other_module_reads_the_variables() -> None:
    """What a variable says is one function of `base.home`; environments of started services are written, not read."""
    root = Path(__file__).resolve().parents[3]
    sources = [path for top in ("editorbot_core", "assets", "pipelines") for path in (root / top).rglob("*.py")]
    reading = re.compile(r"""(environ(\.get\(|\[)|getenv\()\s*["']EDITORBOT_""")
    readers = [str(path.relative_to(root)) for path in sources if reading.search(path.read_text())]
    assert readers == ["editorbot_core/base/home.py"]
