"""The console: how commands parse their arguments, what they print, and how they end.

A command is a module with `add_arguments(parser)` and `run(arguments)`. Exit status 0, 1 for a fault, 2 for wrong use,
130 for Ctrl-C, and never a traceback for an error that was foreseen. Nothing here imports more than the standard
library: `--help` and refusals are quick only if commands import what is heavy after their arguments were checked.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from editorbot_core.base.errors import EditorBotError, ParameterError


def run_command(body: Callable[[], int | None]) -> int:
    """Exit status of `body`; an expected error becomes its status and one line on standard error."""
    try:
        return body() or 0
    except EditorBotError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues from what is already there\n")
        return 130
    except BrokenPipeError:
        return 1


def command_line(
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int | None],
    *,
    prog: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv` (by default the process's arguments) as one command, run it, and return its exit status."""
    parser = argparse.ArgumentParser(prog=prog)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: run(arguments))


def say(line: str = "") -> None:
    """Write one line of a command's result to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add `--set NAME=VALUE`, which may be given any number of times; `named_values` reads it."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting, such as ppo.n_steps=4096"
    )


def named_values(items: Iterable[str]) -> dict[str, str]:
    """The settings that `--set NAME=VALUE` gives.

    Raises:
        ParameterError: If an item has no equals sign.
    """
    values: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise ParameterError(f"--set takes NAME=VALUE, got {item!r}")
        values[name] = value
    return values


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`; `check_device` checks it, and `devices.resolve_device` looks whether it is there."""
    parser.add_argument(
        "--device", default="auto", help="cuda, cuda:N or cpu (default: cuda if there is one, else cpu)"
    )


def check_device(name: str) -> str:
    """`name`, if it is the name of a device.

    Raises:
        ParameterError: If it is not.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise ParameterError(f"--device must be cpu, cuda or cuda:N; got {name!r}")
    return name


def add_ports(parser: argparse.ArgumentParser, **ports: int) -> None:
    """Add a flag for every port, by its name and default; `check_ports` checks them."""
    for name, default in ports.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="PORT", help=f"default: {default}")


def check_ports(**ports: int) -> None:
    """Refuse what cannot be a port, and the same port twice.

    Raises:
        ParameterError: If a port is not in 1-65535, or two are the same.
    """
    for name, port in ports.items():
        if not 1 <= port <= 65_535:
            raise ParameterError(f"--{name} must be between 1 and 65535; got {port}")
    if len(set(ports.values())) < len(ports):
        raise ParameterError(f"{', '.join(f'--{name}' for name in ports)} must differ; got {list(ports.values())}")


def check_count(flag: str, value: int) -> None:
    """Refuse a count that is not positive.

    Raises:
        ParameterError: If `value` is below 1.
    """
    if value < 1:
        raise ParameterError(f"{flag} must be at least 1; got {value}")


def check_ratios(flag: str, ratios: Sequence[float]) -> None:
    """Refuse target lengths that cannot be asked for.

    Raises:
        ParameterError: If a share of the song's length is not above 0 and at most 4, or is given twice.
    """
    if not all(0 < ratio <= 4 for ratio in ratios) or len(set(ratios)) < len(ratios):
        given = " ".join(f"{ratio:g}" for ratio in ratios)
        raise ParameterError(f"{flag} takes different shares of the song's length, above 0 and at most 4; got {given}")


def check_file(path: Path, flag: str = "") -> None:
    """Refuse a path at which there is no file.

    Raises:
        ParameterError: Naming `flag`, if there is one, and the path.
    """
    if not path.is_file():
        raise ParameterError(f"{flag} {path}: no such file".strip())


def check_folder(path: Path, flag: str = "", *, holds: str = "songs") -> None:
    """Refuse a path at which there is no folder.

    Raises:
        ParameterError: Naming `flag`, if there is one, the path, and what the folder should hold.
    """
    if not path.is_dir():
        raise ParameterError(f"{flag} {path}: no such folder; name one that holds {holds}".strip())
