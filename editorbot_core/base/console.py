"""How every command ends: exit status 0, 1 for a fault, 2 for wrong use, 130 for Ctrl-C, and never a traceback for
an error that was foreseen.
"""

import sys
from collections.abc import Callable, Iterable

from editorbot_core.base.errors import EditorBotError, ParameterError


def run_command(body: Callable[[], int | None]) -> int:
    """Run `body` and turn what it raises into an exit status and one line on standard error."""
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


def say(line: str = "") -> None:
    """Write one line of a command's result to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def named_values(items: Iterable[str]) -> dict[str, str]:
    """What `--set NAME=VALUE`, given any number of times, says.

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
