"""The formats of audio files by their suffixes: which are looked for, and which can be written."""

from pathlib import Path

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import path_to_text

# fmt: off
AUDIO_SUFFIXES = frozenset((
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64",
    ".m4a", ".mp4", ".m4b", ".aac", ".wma", ".mka", ".mkv", ".webm", ".mov",
))

# fmt: on
# Container and sample format of what libsndfile writes; .m4a is written by FFmpeg.
SOUNDFILE_SUBTYPES = {
    ".wav": ("WAV", "PCM_24"),
    ".flac": ("FLAC", "PCM_24"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
WRITTEN_SUFFIXES = (*SOUNDFILE_SUBTYPES, ".m4a")


def check_output(path: Path) -> None:
    """Refuse a path whose suffix names no format that can be written.

    Raises:
        ParameterError: Naming the suffixes that can.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise ParameterError(
            f"{path_to_text(path)}: audio is written as {', '.join(WRITTEN_SUFFIXES)}; got {path.suffix!r}"
        )
