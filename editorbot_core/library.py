"""The song library: which songs there are, and their features, computed once per content.

A *store* is a folder that holds `features/<track_id>.parquet` per accepted song and `library.json`, an index that saves
work: a file whose size and modification time it knows is not opened, a file whose bytes it knows is not analysed. Both
can be deleted at any time, and an analysis that was interrupted goes on where it stopped. A track id is the first 16
hexadecimal digits of the SHA-256 of the file; names are data and appear in no path.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from editorbot_core.analysing import Analysis, AnalysisPool, features_path
from editorbot_core.annotations import find_annotation, load_annotation
from editorbot_core.audio import find_audio, path_to_text, text_to_path
from editorbot_core.edits import Units
from editorbot_core.errors import FormatError, ParameterError
from editorbot_core.features import EXTRACTOR_VERSION, BeatFeatures, analyse, read_features
from editorbot_core.files import read_json, sweep_temporaries, write_json
from editorbot_core.progress import Progress
from editorbot_core.songs import Song
from editorbot_core.structure import estimate_structure
from editorbot_core.tracking import TRACKER

BAR_CONFIDENCE = 0.25
"""Grids that are trusted at least this far are edited in bars, others in beats."""

_SCHEMA = "editorbot.library/1"
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class SongRecord:
    """One audio file.

    Attributes:
        track_id: First 16 digits of `sha256`, or "" where the file could not be read.
        sha256: Digest of the file.
        path: Where it is, as text that can be stored (see `audio.path_to_text`).
        duration_s: Length, s; this and all numbers below are 0 where the file was rejected.
        sample_rate: Hz.
        n_channels: Number of channels.
        loudness_db: Integrated loudness, LUFS.
        n_beats: Beats found.
        tempo: Beats per minute.
        grid_confidence: How far to trust the beats, in [0, 1].
        status: "accepted" or "rejected".
        reason: Why it was rejected, or "".
        annotated: True if an annotation lies beside it.
    """

    track_id: str
    sha256: str
    path: str
    duration_s: float
    sample_rate: int
    n_channels: int
    loudness_db: float
    n_beats: int
    tempo: float
    grid_confidence: float
    status: str
    reason: str
    annotated: bool

    @property
    def accepted(self) -> bool:
        """True if the song can be used."""
        return self.status == "accepted"


class _Index:
    """What is known about files, by path; kept on disk as `library.json`."""

    def __init__(self, store: Path) -> None:
        self._path = store / "library.json"
        self._store = store
        self._version = f"{EXTRACTOR_VERSION}/{TRACKER}"
        self._files: dict[str, dict[str, Any]] = {}
        self._saved_at = time.monotonic()
        if self._path.exists():
            try:
                document = read_json(self._path)
                if (document["schema"], document["version"]) == (_SCHEMA, self._version):
                    self._files = {str(path): dict(entry) for path, entry in document["files"].items()}
            except (FormatError, KeyError, TypeError, ValueError, AttributeError):
                # The index only saves work; what it held is found again from the files.
                self._files = {}

    def known(self, path: Path, status: os.stat_result) -> Analysis | None:
        """What was found out about this file, if it has not changed and its features are still there."""
        entry = self._files.get(path_to_text(path))
        if entry is None or (entry.get("size"), entry.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
            return None
        try:
            analysis = Analysis(**{f.name: entry[f.name] for f in fields(Analysis)})
        except KeyError:
            return None
        if analysis.reason:
            return analysis if analysis.lasting else None
        return analysis if features_path(self._store, analysis.sha256).exists() else None

    def add(self, path: Path, status: os.stat_result, analysis: Analysis) -> None:
        """Remember what was found out; written to disk now and then."""
        entry = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, **asdict(analysis)}
        self._files[path_to_text(path)] = entry
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def keep_only(self, folder: Path, present: Sequence[Path]) -> None:
        """Forget files below `folder` that are gone."""
        names = {path_to_text(path) for path in present}
        below = path_to_text(folder) + os.sep
        self._files = {
            name: entry for name, entry in self._files.items() if not name.startswith(below) or name in names
        }

    def save(self) -> None:
        """Write the index."""
        write_json(self._path, {"schema": _SCHEMA, "version": self._version, "files": self._files})
        self._saved_at = time.monotonic()


def ingest(
    folder: Path | str, store: Path, *, n_processes: int | None = None, progress: Progress | None = None
) -> list[SongRecord]:
    """Analyse the audio files below `folder` that are new or have changed.

    A file that cannot be used is rejected with a reason and harms no other; of files with the same bytes the first is
    used. Interrupted, it keeps what was finished.

    Args:
        folder: Where the songs are; sub-folders included, hidden files not.
        store: Folder for features and index.
        n_processes: Songs analysed at a time; None for one per processor.
        progress: Called as progress("analyse songs", done, total).

    Returns:
        A record per file, sorted by path.

    Raises:
        ParameterError: If `folder` is not a folder.
    """
    folder, store = text_to_path(folder).absolute(), Path(store).absolute()
    paths = find_audio(folder)
    (store / "features").mkdir(parents=True, exist_ok=True)
    sweep_temporaries(store)
    index = _Index(store)
    index.keep_only(folder, paths)
    analyses: dict[Path, Analysis] = {}
    waiting: dict[Path, os.stat_result] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            analyses[path] = Analysis(reason=f"cannot be opened: {error.strerror}")
            continue
        known = index.known(path, status)
        if known is None:
            waiting[path] = status
        else:
            analyses[path] = known
    if progress is not None:
        progress("analyse songs", len(analyses), len(paths))
    try:
        _analyse_all(waiting, store, index, analyses, n_processes=n_processes, progress=progress)
    finally:
        index.save()
    return _records(paths, analyses)


def _analyse_all(
    waiting: dict[Path, os.stat_result],
    store: Path,
    index: _Index,
    analyses: dict[Path, Analysis],
    *,
    n_processes: int | None,
    progress: Progress | None,
) -> None:
    """Analyse the waiting files in a pool and add the results to the index and to `analyses`."""
    if not waiting:
        return
    total = len(waiting) + len(analyses)
    n_workers = max(1, min(n_processes or os.cpu_count() or 1, len(waiting)))
    with ThreadPoolExecutor(n_workers) as threads, AnalysisPool(n_workers, store) as pool:
        try:
            futures: dict[Future[Analysis], Path] = {threads.submit(pool.analyse, path): path for path in waiting}
            for future in as_completed(futures):
                path = futures[future]
                analyses[path] = future.result()
                index.add(path, waiting[path], analyses[path])
                if progress is not None:
                    progress("analyse songs", len(analyses), total)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _records(paths: Sequence[Path], analyses: dict[Path, Analysis]) -> list[SongRecord]:
    first_with: dict[str, Path] = {}
    records = []
    for path in paths:
        analysis = analyses[path]
        reason = analysis.reason
        if not reason:
            first = first_with.setdefault(analysis.sha256, path)
            if first != path:
                reason = f"duplicate of {path_to_text(first)}"
        records.append(
            SongRecord(
                track_id=analysis.sha256[:16],
                sha256=analysis.sha256,
                path=path_to_text(path),
                duration_s=analysis.duration_s,
                sample_rate=analysis.sample_rate,
                n_channels=analysis.n_channels,
                loudness_db=analysis.loudness_db,
                n_beats=analysis.n_beats,
                tempo=analysis.tempo,
                grid_confidence=analysis.grid_confidence,
                status="rejected" if reason else "accepted",
                reason=reason,
                annotated=find_annotation(path) is not None,
            )
        )
    return records


def _song(path: Path, sha256: str, features: BeatFeatures) -> Song:
    """A song with its units (bars if the grid is trusted, else beats), its structure and its annotation."""
    trusted = features.grid.confidence >= BAR_CONFIDENCE
    units = Units.bars(features.grid) if trusted else Units.beats(features.n_beats)
    annotation_path = find_annotation(path)
    return Song(
        track_id=sha256[:16],
        path=path_to_text(path),
        sha256=sha256,
        features=features,
        units=units,
        structure=estimate_structure(features.values, units),
        annotation=load_annotation(annotation_path) if annotation_path else None,
    )


def analyse_song(path: Path | str) -> Song:
    """One file, analysed now and not remembered, ready to be edited.

    Raises:
        AudioError: If the file cannot be used as a song.
        FormatError: If the annotation beside it is damaged.
    """
    analysed = analyse(path)
    return _song(Path(path), analysed.sha256, analysed.features)


def load_song(record: SongRecord, store: Path) -> Song:
    """One accepted song, ready to be edited: bars as units if the grid is trusted, else beats.

    Raises:
        ParameterError: If the record was rejected.
        FormatError: If the stored features are missing, damaged or of another file, or the annotation is damaged.
    """
    if not record.accepted:
        raise ParameterError(f"{record.path} was rejected: {record.reason}")
    path = features_path(store, record.sha256)
    stored = read_features(path)
    if stored.metadata.get("sha256") != record.sha256:
        raise FormatError(f"{path}: features of another file; ingest the songs again")
    features = stored.features
    return _song(text_to_path(record.path), record.sha256, features)


def load_songs(records: Sequence[SongRecord], store: Path) -> list[Song]:
    """The accepted songs among `records`, in order."""
    return [load_song(record, store) for record in records if record.accepted]


def split_songs(track_ids: Sequence[str], *, eval_fraction: float = 0.25, seed: int = 0) -> dict[str, str]:
    """Assign every song to "train" or "eval" by a hash of its id, so that adding a song moves no other.

    Where the hash puts all songs on one side, the one nearest to the other side moves: there is always at least one of
    each.

    Args:
        track_ids: Ids; repeated ones count once.
        eval_fraction: Expected share of evaluation songs, in (0, 1).
        seed: Another seed, another split.

    Raises:
        ParameterError: If there are fewer than two songs, or `eval_fraction` is out of range.
    """
    unique = sorted(set(track_ids))
    if len(unique) < 2:
        raise ParameterError(f"a split into training and evaluation needs at least 2 songs; got {len(unique)}")
    if not 0.0 < eval_fraction < 1.0:
        raise ParameterError(f"eval_fraction must be between 0 and 1; got {eval_fraction}")
    places = {
        track_id: int.from_bytes(hashlib.sha256(f"{seed}:{track_id}".encode()).digest()[:8], "big") / 2.0**64
        for track_id in unique
    }
    in_order = sorted(unique, key=lambda track_id: places[track_id])
    split = {track_id: "eval" if places[track_id] < eval_fraction else "train" for track_id in unique}
    split[in_order[0]] = "eval"
    split[in_order[-1]] = "train"
    return split
