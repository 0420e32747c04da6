"""The version of the code, by which results are reused or made again."""

from pathlib import Path

import assets
import editorbot_core
from editorbot_core.base.files import source_files


def test_the_version_of_the_code_covers_the_library_and_all_of_assets() -> None:
    roots = [Path(root) for package in (editorbot_core, assets) for root in package.__path__]
    covered = {str(path.relative_to(root.parent)) for path in source_files(editorbot_core, assets) for root in roots
               if path.is_relative_to(root)}  # fmt: skip
    expected = {
        "assets/models.py",
        "assets/resources/home.py",
        "editorbot_core/policy/ppo.py",
        "editorbot_core/config.py",
    }
    assert expected <= covered
    assert len(covered) == sum(len(list(root.rglob("*.py"))) for root in roots)
