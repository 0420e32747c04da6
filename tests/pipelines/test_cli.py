"""The table of commands: every command has the same shape, and none is imported before it is asked for."""

import subprocess
import sys
from importlib import import_module

import pytest

from pipelines.cli import COMMANDS, main

HEAVY = ("numpy", "torch", "numba", "scipy", "pandas", "dagster", "mlflow", "matplotlib", "soundfile")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_shape(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(COMMANDS[name].module)
    assert callable(module.add_arguments)
    assert callable(module.run)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: editorbot {name}" in capsys.readouterr().out


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in shown
        assert command.help in shown


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--nonsense"]])
def test_what_is_no_command_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_no_command_imports_anything_heavy_before_its_arguments_are_checked() -> None:
    modules = ", ".join(command.module for command in COMMANDS.values())
    code = f"import sys, {modules}, train_rlhf; print(*(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
