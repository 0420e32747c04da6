"""The examples in the library's docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

import editorbot_core

ROOT = Path(editorbot_core.__path__[0])
# Modules are chosen by their text, so that collecting this file imports none of them.
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
