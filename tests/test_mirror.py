"""The tests mirror the tree: whoever changes `songs/splits.py` finds its laws in `tests/core/songs/test_splits.py`."""

from pathlib import Path

TESTS = Path(__file__).parent
CORE = TESTS.parent / "editorbot_core"

EXCEPTIONS = frozenset(
    {
        # Types alone.
        "rewards/base.py",
        # Commands and front doors: tests/test_commands.py and tests/test_rlhf_integration.py.
        "infer.py",
        "trainer.py",
        # Rooms that learning replaces; tested as a whole in test_rounds.py, test_study.py and the two files above.
        "training/judge.py",
        "training/reward_source.py",
        "training/session.py",
    }
)


def test_every_module_has_a_test_of_its_name() -> None:
    modules = [path.relative_to(CORE) for path in CORE.rglob("*.py") if path.name != "__init__.py"]
    tested = {str(path) for path in modules if (TESTS / "core" / path.with_name(f"test_{path.name}")).is_file()}
    untested = {str(path) for path in modules} - tested
    assert untested - EXCEPTIONS == set(), "modules without a test of their name"
    assert EXCEPTIONS - untested == set(), "exceptions that have a test, or that are gone"
    assert len(EXCEPTIONS) == 6
