"""The names of beat trackers and stem separators, and the options that choose them.

Nothing here loads a tracker or a separator, so that names can be checked before anything heavy is imported.
"""

import argparse
from importlib.metadata import PackageNotFoundError, version

from editorbot_core.base.errors import ParameterError

DEFAULT_TRACKER = "semi-markov"
TRACKERS = (DEFAULT_TRACKER, "librosa", "beat_this")

DEFAULT_SEPARATOR = "masks"
SEPARATORS = (DEFAULT_SEPARATOR, "demucs")

_INSTALL = {
    "librosa": "pip install librosa",
    "beat_this": "pip install https://github.com/CPJKU/beat_this/archive/main.zip",
    "demucs": "pip install 'editorbot[demucs]'",
}


def add_tracker(parser: argparse.ArgumentParser, *, default: str | None = DEFAULT_TRACKER) -> None:
    """Add `--tracker`; with `default` None, a name that is not given is left to the configuration."""
    text = f"finds the beats, unless `editorbot grid` corrected them (default: {DEFAULT_TRACKER})"
    parser.add_argument("--tracker", choices=TRACKERS, default=default, help=text)


def add_separator(parser: argparse.ArgumentParser, *, default: str | None = DEFAULT_SEPARATOR) -> None:
    """Add `--separator`; with `default` None, a name that is not given is left to the configuration."""
    text = f"divides songs into stems; the same in training and editing (default: {DEFAULT_SEPARATOR})"
    parser.add_argument("--separator", choices=SEPARATORS, default=default, help=text)


def check_tracker(name: str) -> str:
    """The version of the package behind a beat tracker; "" for our own.

    Raises:
        ParameterError: If there is no such tracker, or its package is not installed.
    """
    return _check("tracker", name, TRACKERS)


def check_separator(name: str) -> str:
    """The version of the package behind a stem separator; "" for our own.

    Raises:
        ParameterError: If there is no such separator, or its package is not installed.
    """
    return _check("separator", name, SEPARATORS)


def _check(kind: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ParameterError(f"{kind} must be one of {', '.join(names)}, got {name!r}")
    if name == names[0]:
        return ""
    try:
        return version(name)
    except PackageNotFoundError as error:
        raise ParameterError(
            f"{kind} {name!r} needs the package {name}, which is not installed: {_INSTALL[name]}, or use "
            f"{kind} {names[0]!r}"
        ) from error
