"""The exceptions EditorBot raises on purpose.

Every message says what was expected, what was found, and what to do. `exit_status` is the status of a command that
ends with the error: 2 where the input or the flags were wrong, 1 where something broke.
"""


class EditorBotError(Exception):
    """Root of every error raised on purpose."""

    exit_status = 1


class ParameterError(EditorBotError, ValueError):
    """A value, shape, flag or path given by the caller is not usable."""

    exit_status = 2


class AudioError(EditorBotError):
    """A file could not be used as audio; the message names the file and the reason."""

    exit_status = 2


class FormatError(EditorBotError):
    """A file that EditorBot reads (model, checkpoint, EDL, annotation, features) is damaged or not of its format."""

    exit_status = 2


class StoreError(EditorBotError):
    """A database or the registry could not be read or written."""


class GateError(EditorBotError):
    """A quality gate was not met, so the next stage was not run."""
