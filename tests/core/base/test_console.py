"""How commands end, and what `--set` means."""

import pytest

from editorbot_core.base.console import named_values, run_command, say
from editorbot_core.base.errors import GateError, ParameterError


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ParameterError("--length must be positive"), 2, "error: --length must be positive\n"),
        (GateError("too few answers"), 1, "error: too few answers\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues from what is already there\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_an_error_that_was_foreseen_is_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(lambda: _raise(error)) == status
    assert capsys.readouterr() == ("", line)


def test_an_error_that_was_not_foreseen_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: _raise(ZeroDivisionError()))


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_that_ends_by_itself_says_its_status(returned: int | None, status: int) -> None:
    assert run_command(lambda: returned) == status


def test_results_are_lines_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say()
    assert capsys.readouterr() == ("one\n\n", "")


def test_values_are_named_and_the_last_of_a_name_counts() -> None:
    assert named_values([]) == {}
    assert named_values(["a=1", "b.c=x=y", "d=", "a=2"]) == {"a": "2", "b.c": "x=y", "d": ""}
    with pytest.raises(ParameterError, match="NAME=VALUE, got 'seed'"):
        named_values(["seed"])
