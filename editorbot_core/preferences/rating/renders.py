"""Edits as audio files for the rating page: rendered when a pair is shown, and cached by the digest of the edit.

The name of a file is that digest (`queue.edit_key`) and contains nothing that a browser sends. Beside the audio there
is a small JSON file with the data that the page draws; it is written last, so that the audio is complete if it exists.
"""

import os
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from editorbot_core.audio.clip import AudioClip
from editorbot_core.audio.files import open_audio, write_audio
from editorbot_core.audio.render import join_times, render_edit
from editorbot_core.base.errors import AudioError, FormatError
from editorbot_core.base.files import path_to_text, read_json, sweep_temporaries, text_to_path, write_json
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.preferences.rating.queue import edit_key

N_PEAKS = 240
DEFAULT_MAX_BYTES = 2 * 2**30
_SCHEMA = "editorbot.rating_render/1"
_SUFFIX = ".wav"


@dataclass(frozen=True)
class PlayableEdit:
    """What the page shows of one edit.

    Attributes:
        audio_id: Digest of the edit; names the audio.
        duration_s: Length of the audio, s.
        joins_s: Times of the joins, s from the start of the edit, rising.
        peaks: Largest absolute sample in each of 240 equal parts of the edit, as a percentage of the largest of all.
    """

    audio_id: str
    duration_s: float
    joins_s: tuple[float, ...]
    peaks: tuple[int, ...]


class RenderCache:
    """Renders edits into one folder, and deletes the least recently used when it grows beyond `max_bytes`.

    One edit is rendered at a time; calls from several threads wait for each other.
    """

    def __init__(self, folder: Path | str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._refused: dict[tuple[str | int, ...], str] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(self._folder)

    def audio_path(self, audio_id: str) -> Path:
        """Path of the audio of that id; it exists once it has been rendered."""
        return self._folder / f"{audio_id}{_SUFFIX}"

    def get(self, *edits: EditDecisionList) -> tuple[PlayableEdit, ...]:
        """The rendered edits of one song, from the folder or made now; the song is decoded at most once.

        Raises:
            AudioError: If the source is needed and missing, has changed since the edits were made, or does not decode.
            ParameterError: If the segments do not fit the source.
        """
        source: AudioClip | None = None
        rendered = []
        with self._lock:
            for edl in edits:
                audio_id = edit_key(edl)
                found = self._load(audio_id)
                if found is None:
                    source = source or self._read_source(edl)
                    found = self._make(edl, audio_id, source)
                else:
                    os.utime(self.audio_path(audio_id))
                rendered.append(found)
            self._prune(keep={edit.audio_id for edit in rendered})
        return tuple(rendered)

    def _make(self, edl: EditDecisionList, audio_id: str, source: AudioClip) -> PlayableEdit:
        segments, clip = render_edit(source, edl.segments)
        rendered = PlayableEdit(
            audio_id=audio_id,
            duration_s=round(clip.duration_s, 3),
            joins_s=tuple(round(float(time_s), 3) for time_s in join_times(segments)),
            peaks=_peaks(clip),
        )
        write_audio(self.audio_path(audio_id), clip)
        write_json(self._sidecar(audio_id), {"schema": _SCHEMA, **asdict(rendered)}, indent=None)
        return rendered

    def _read_source(self, edl: EditDecisionList) -> AudioClip:
        """The song, if its bytes are still those that the edit was made of.

        A file that was refused is not read again until it changes, since many pairs may be of one song.
        """
        name = song_name(edl)
        if not edl.source_path or not edl.source_sha256:
            raise AudioError(f"“{name}”: the edit names no source file; run `make run` to propose pairs again")
        try:
            status = text_to_path(edl.source_path).stat()
        except (OSError, ValueError) as error:
            raise AudioError(
                f"“{name}” is no longer where it was; put the song back, or run `make run` to propose pairs again"
            ) from error
        state = (edl.source_path, edl.source_sha256, status.st_ino, status.st_size, status.st_mtime_ns)
        if state in self._refused:
            raise AudioError(self._refused[state])
        try:
            with open_audio(edl.source_path) as stream:
                if stream.sha256 != edl.source_sha256:
                    raise AudioError(
                        f"“{name}” has changed since this pair was made; run `make run` to propose pairs again"
                    )
                return AudioClip(np.ascontiguousarray(np.concatenate(list(stream)).T), stream.sample_rate)
        except AudioError as error:
            self._refused[state] = str(error)
            raise

    def _load(self, audio_id: str) -> PlayableEdit | None:
        if not self._sidecar(audio_id).is_file() or not self.audio_path(audio_id).is_file():
            return None
        try:
            return _parse(read_json(self._sidecar(audio_id), max_bytes=2**20), audio_id)
        except FormatError:
            # An entry that cannot be read is rendered again.
            return None

    def _sidecar(self, audio_id: str) -> Path:
        return self._folder / f"{audio_id}.json"

    def _prune(self, *, keep: Collection[str]) -> None:
        entries = []
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if not path.name.startswith("."):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if total <= self._max_bytes:
                return
            if path.stem not in keep:
                self._sidecar(path.stem).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                total -= size


def song_name(edl: EditDecisionList) -> str:
    """The name of the song to show: its file name without the suffix."""
    return path_to_text(Path(edl.source_path).stem or edl.track_id or "song")[:200]


def _peaks(clip: AudioClip) -> tuple[int, ...]:
    loudest = np.abs(clip.samples).max(axis=0)
    edges = np.linspace(0, len(loudest), N_PEAKS, endpoint=False).astype(np.int64)
    # A clip shorter than 240 samples repeats edges; reduceat then returns the sample itself.
    peaks = np.maximum.reduceat(loudest, edges)
    highest = float(peaks.max())
    return tuple(round(100 * float(peak) / highest) if highest > 0 else 0 for peak in peaks)


def _parse(document: Any, audio_id: str) -> PlayableEdit:
    try:
        rendered = PlayableEdit(
            audio_id=str(document["audio_id"]),
            duration_s=float(document["duration_s"]),
            joins_s=tuple(float(join) for join in document["joins_s"]),
            peaks=tuple(int(peak) for peak in document["peaks"]),
        )
        if document["schema"] != _SCHEMA or rendered.audio_id != audio_id or len(rendered.peaks) != N_PEAKS:
            raise FormatError(f"{audio_id}: not a description of this edit")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{audio_id}: {error}") from error
    return rendered
