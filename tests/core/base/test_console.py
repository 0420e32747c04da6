"""How commands end, and what `--set` means."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from editorbot_core.base.console import (
    add_device,
    add_ports,
    add_set,
    check_count,
    check_device,
    check_file,
    check_folder,
    check_ports,
    check_ratios,
    command_line,
    named_values,
    run_command,
    say,
)
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


def test_a_command_line_is_parsed_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        add_set(parser)
        add_device(parser)
        add_ports(parser, port=8000)

    def run(arguments: argparse.Namespace) -> int:
        say(f"{named_values(arguments.set)} {arguments.device} {arguments.port}")
        return 3

    assert command_line(add_arguments, run, prog="x", argv=["--set", "a=1", "--set", "b=2", "--port", "1"]) == 3
    assert capsys.readouterr().out == "{'a': '1', 'b': '2'} auto 1\n"
    with pytest.raises(SystemExit) as caught:
        command_line(add_arguments, run, prog="x", argv=["--nothing"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_device("tpu"), "--device must be cpu, cuda or cuda:N; got 'tpu'"),
        (lambda: check_ports(one=8000, two=8000), "--one, --two must differ"),
        (lambda: check_ports(port=0), "--port must be between 1 and 65535; got 0"),
        (lambda: check_ports(port=65_536), "--port must be between 1 and 65535; got 65536"),
        (lambda: check_count("--n", 0), "--n must be at least 1; got 0"),
        (lambda: check_ratios("--ratio", [0.5, 0.0]), "above 0 and at most 4; got 0.5 0"),
        (lambda: check_ratios("--ratio", [4.1]), "above 0 and at most 4; got 4.1"),
        (lambda: check_ratios("--ratio", [0.5, 0.7, 0.5]), "takes different shares .* got 0.5 0.7 0.5"),
        (lambda: check_ratios("--ratio", [float("nan")]), "got nan"),
        (lambda: check_file(Path("none.pt"), "--checkpoint"), "^--checkpoint none.pt: no such file$"),
        (lambda: check_folder(Path("none"), holds="answers"), "^none: no such folder; name one that holds answers$"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_name_of_its_flag(check: Callable[[], object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        check()


def test_what_can_be_meant_passes(tmp_path: Path) -> None:
    assert [check_device(name) for name in ("auto", "cpu", "cuda", "cuda:12")] == ["auto", "cpu", "cuda", "cuda:12"]
    check_ports(port=1, other=65_535)
    check_count("--n", 1)
    check_ratios("--ratio", [0.001, 1.0, 4.0])
    (tmp_path / "file").touch()
    check_file(tmp_path / "file")
    check_folder(tmp_path)
