"""The tests mirror the tree: whoever changes `songs/splits.py` finds its laws in `tests/core/songs/test_splits.py`."""

from pathlib import Path

TESTS = Path(__file__).parent
CORE = TESTS.parent / "editorbot_core"
# Modules whose behaviour is tested where it is used; in rooms that the next work replaces, or without a law of their own.
EXCEPTIONS = frozenset({})


def test_every_module_has_a_test_of_its_name() -> None:
    modules = {str(path.relative_to(CORE)): path for path in CORE.rglob("*.py") if path.name != "__init__.py"}
    untested = {
        name for name, path in modules.items() if not (TESTS / "core" / name).with_name(f"test_{path.name}").is_file()
    }
    assert untested == EXCEPTIONS
    assert len(EXCEPTIONS) == 0
