"""The song library: which songs there are, and their features, computed once per content.

A *store* is a folder. `features/` and `structure/` hold a file per accepted song, named by its track id: the first 16
hexadecimal digits of the SHA-256 of the audio file. `library.json` is an index: a file whose size and modification time
are in it is not opened, and a file whose digest is in it is not analysed. All three can be deleted at any time, since
they only save work, and an interrupted analysis continues where it stopped. `corrections/` holds people's corrections
of beats (`analysis.beats.corrections`), which cannot be made again; only a corrected song is analysed again. No path in
a store contains the name of an audio file.
"""

import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from editorbot_core.analysis.beats.annotations import find_annotation, load_annotation
from editorbot_core.analysis.beats.corrections import CORRECTION, correction_version, load_correction
from editorbot_core.analysis.beats.grid import Units
from editorbot_core.analysis.beats.trackers import tracker_version
from editorbot_core.analysis.dsp.separators import separator_version
from editorbot_core.analysis.features.extraction import analyse
from editorbot_core.analysis.features.table import EXTRACTOR_VERSION, BeatFeatures, read_features
from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER
from editorbot_core.analysis.structure.network import STRUCTURE_MODEL
from editorbot_core.analysis.structure.read import STRUCTURE_VERSION, read_structure
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.analysis.weights import weights_digest
from editorbot_core.audio.files import check_audio_file, find_audio, sha256_audio
from editorbot_core.base.errors import AudioError, FormatError, ParameterError
from editorbot_core.base.files import (
    atomic_path,
    digest,
    path_to_text,
    read_json,
    sweep_temporaries,
    text_to_path,
    write_json,
)
from editorbot_core.base.home import corrections_folder
from editorbot_core.base.progress import Progress
from editorbot_core.songs.ingestion import Analysis, AnalysisPool, features_path
from editorbot_core.songs.song import Song, content_digest


def remembered_structure(path: Path, key: str, read: Callable[[], Structure]) -> Structure:
    """The structure stored at `path` if it was stored under `key`; otherwise the result of `read`, which is stored."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return Structure(kept["phrase_start"], kept["phase"], kept["cluster"], float(kept["confidence"]))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, ParameterError):
        # Missing or damaged: the structure is read again.
        pass
    structure = read()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            key=key,
            phrase_start=structure.phrase_start,
            phase=structure.phase,
            cluster=structure.cluster,
            confidence=structure.confidence,
        )
    return structure


# Songs whose grid has at least this confidence are edited in bars, others in beats.
BAR_CONFIDENCE = 0.25
_SCHEMA = "editorbot.library/1"
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class SongRecord:
    """One audio file.

    Attributes:
        track_id: First 16 digits of `sha256`, or "" where the file could not be read.
        sha256: Digest of the file.
        path: Where it is, as text (see `base.files.path_to_text`).
        duration_s: Length, s; this and all numbers below are 0 if the file was rejected.
        sample_rate: Hz.
        n_channels: Number of channels.
        loudness_db: Integrated loudness, LUFS.
        n_beats: Beats found.
        tempo: Beats per minute.
        grid_confidence: Confidence of the beats, in [0, 1].
        status: "accepted" or "rejected".
        reason: Why it was rejected, or "".
        grid_source: "tracker", or "correction" if a person corrected the beats.
        annotated: True if there is an annotation beside the file.
        work: Id of the composition, shared by its recordings: the annotation's id, else the track id.
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
    grid_source: str
    annotated: bool
    work: str

    @property
    def accepted(self) -> bool:
        """True if the song can be used."""
        return self.status == "accepted"


class _Index:
    """Results of earlier analyses by path; stored as `library.json`."""

    def __init__(self, store: Path, *, corrections: Path, tracker: str, separator: str) -> None:
        self._path = store / "library.json"
        self._store = store
        stems = separator_version(separator)
        self._version = EXTRACTOR_VERSION + (f" {stems}" if separator != DEFAULT_SEPARATOR else "")
        self._corrections = corrections
        self._tracker_version = tracker_version(tracker)
        self._files: dict[str, dict[str, Any]] = {}
        self._saved_at = time.monotonic()
        if self._path.exists():
            try:
                document = read_json(self._path)
                if (document["schema"], document["version"]) == (_SCHEMA, self._version):
                    self._files = {str(path): dict(entry) for path, entry in document["files"].items()}
            except (FormatError, KeyError, TypeError, ValueError, AttributeError):
                # The index only saves work: without it the files are analysed again.
                self._files = {}

    def known(self, path: Path, status: os.stat_result) -> Analysis | None:
        """The stored result of a file whose bytes, correction and tracker are unchanged and whose features exist."""
        entry = self._files.get(path_to_text(path))
        if entry is None or (entry.get("size"), entry.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
            return None
        try:
            analysis = Analysis(**{f.name: entry[f.name] for f in fields(Analysis)})
        except KeyError:
            return None
        version = correction_version(self._corrections, analysis.sha256) or self._tracker_version
        if analysis.sha256 and analysis.grid_version != version:
            return None
        if analysis.reason:
            return analysis if analysis.lasting else None
        return analysis if features_path(self._store, analysis.sha256).exists() else None

    def add(self, path: Path, status: os.stat_result, analysis: Analysis) -> None:
        """Add a result; the index is written every few seconds."""
        entry = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, **asdict(analysis)}
        self._files[path_to_text(path)] = entry
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def keep_only(self, folder: Path, present: Sequence[Path]) -> None:
        """Remove the entries of files below `folder` that no longer exist."""
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
    folder: Path | str,
    store: Path,
    *,
    n_processes: int | None = None,
    tracker: str = DEFAULT_TRACKER,
    separator: str = DEFAULT_SEPARATOR,
    corrections: Path | None = None,
    progress: Progress | None = None,
) -> list[SongRecord]:
    """Analyse the audio files below `folder` that are new or have changed.

    A file that cannot be used is rejected with a reason and does not affect the others; of files with the same bytes
    the first is used. If interrupted, finished songs are kept.

    Args:
        folder: Folder with the songs; sub-folders are included, hidden files are not.
        store: Folder for features and index.
        n_processes: Songs analysed at a time; None for one per processor.
        tracker: Which tracker finds the beats, one of `analysis.names.TRACKERS`.
        separator: What divides songs into stems, one of `analysis.names.SEPARATORS`.
        corrections: Folder of people's corrections of grids; None for the one in `store`.
        progress: Called as progress("analyse songs", done, total).

    Returns:
        A record per file, sorted by path.

    Raises:
        ParameterError: If `folder` is not a folder, or the tracker or separator is unknown or not installed.
    """
    folder, store = text_to_path(folder).absolute(), Path(store).absolute()
    corrections = (corrections or corrections_folder(store)).absolute()
    paths = find_audio(folder)
    (store / "features").mkdir(parents=True, exist_ok=True)
    sweep_temporaries(store)
    index = _Index(store, corrections=corrections, tracker=tracker, separator=separator)
    index.keep_only(folder, paths)
    analyses: dict[Path, Analysis] = {}
    waiting: dict[Path, os.stat_result] = {}
    for path in paths:
        try:
            check_audio_file(path)
            status = path.stat()
        except (AudioError, OSError) as error:
            reason = str(error).removeprefix(f"{path_to_text(path)}: ")
            analyses[path] = Analysis(reason=reason)
            continue
        known = index.known(path, status)
        if known is None:
            waiting[path] = status
        else:
            analyses[path] = known
    if progress is not None:
        progress("analyse songs", len(analyses), len(paths))
    try:
        n_workers = max(1, min(n_processes or os.cpu_count() or 1, len(waiting)))
        start = partial(AnalysisPool, n_workers, store, corrections=corrections, tracker=tracker, separator=separator)
        _analyse_all(waiting, start, index, analyses, n_workers=n_workers, progress=progress)
    finally:
        index.save()
    return _records(paths, analyses)


def _analyse_all(
    waiting: dict[Path, os.stat_result],
    start: Callable[[], AnalysisPool],
    index: _Index,
    analyses: dict[Path, Analysis],
    *,
    n_workers: int,
    progress: Progress | None,
) -> None:
    """Analyse the waiting files in a pool and add the results to the index and to `analyses`."""
    if not waiting:
        return
    total = len(waiting) + len(analyses)
    with ThreadPoolExecutor(n_workers) as threads, start() as pool:
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
        annotation_path = find_annotation(path)
        work = analysis.sha256[:16]
        if annotation_path is not None and not reason:
            try:
                work = load_annotation(annotation_path).track_id
            except FormatError as error:
                reason = f"{error}; repair it or move it away"
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
                grid_source=CORRECTION if analysis.grid_version.startswith(f"{CORRECTION}-") else "tracker",
                annotated=annotation_path is not None,
                work=work,
            )
        )
    return records


def _song(path: Path, sha256: str, features: BeatFeatures, *, store: Path | None = None) -> Song:
    """A song with its units (bars if the grid is trusted, else beats), its structure and its annotation.

    With a store, the structure is computed once and stored there.
    """
    trusted = features.grid.confidence >= BAR_CONFIDENCE
    units = Units.bars(features.grid) if trusted else Units.beats(features.n_beats)
    annotation_path = find_annotation(path)
    annotation = load_annotation(annotation_path) if annotation_path else None
    work = annotation.track_id if annotation else ""

    def read() -> Structure:
        return read_structure(features, units, work=work)

    if store is None:
        structure = read()
    else:
        key = digest([weights_digest(STRUCTURE_MODEL), STRUCTURE_VERSION, work, content_digest(features), trusted])
        structure = remembered_structure(store / "structure" / f"{sha256[:16]}.npz", key, read)
    return Song(
        track_id=sha256[:16],
        path=path_to_text(path),
        sha256=sha256,
        features=features,
        units=units,
        structure=structure,
        annotation=annotation,
    )


def analyse_song(
    path: Path | str,
    *,
    corrections: Path | None = None,
    tracker: str = DEFAULT_TRACKER,
    separator: str = DEFAULT_SEPARATOR,
) -> Song:
    """One file as a song, analysed without a store.

    Args:
        path: The audio file.
        corrections: Folder of people's corrections, which override the tracker; None for no corrections.
        tracker: Which tracker finds the beats, one of `analysis.names.TRACKERS`.
        separator: What divides the song into stems, one of `analysis.names.SEPARATORS`.

    Raises:
        AudioError: If the file cannot be used as a song.
        FormatError: If its correction, or the annotation beside it, is damaged.
        ParameterError: If the tracker or separator is unknown or not installed.
    """
    correction = load_correction(corrections, sha256_audio(path)) if corrections else None
    analysed = analyse(path, grid=correction.grid if correction else None, tracker=tracker, separator=separator)
    if correction and correction.sha256 != analysed.sha256:
        raise AudioError(f"{path_to_text(path)}: the file was changed while it was read; try again")
    return _song(Path(path), analysed.sha256, analysed.features)


def load_song(record: SongRecord, store: Path, *, corrections: Path | None = None) -> Song:
    """One accepted song; its units are bars if the confidence of the grid is at least `BAR_CONFIDENCE`, else beats.

    Args:
        record: The song, from `ingest`.
        store: Folder of its features.
        corrections: Folder of people's corrections of grids; None for the one in `store`.

    Raises:
        ParameterError: If the record was rejected.
        FormatError: If the stored features are missing, damaged, of another file or older than the correction of the
            beats, or the annotation is damaged.
    """
    if not record.accepted:
        raise ParameterError(f"{record.path} was rejected: {record.reason}")
    path = features_path(store, record.sha256)
    stored = read_features(path)
    if stored.metadata.get("sha256") != record.sha256:
        raise FormatError(f"{path}: features of another file; ingest the songs again")
    corrected = stored.metadata.get("tracker") == CORRECTION
    version = correction_version(corrections or corrections_folder(Path(store)), record.sha256)
    if version != (stored.metadata.get("grid_version") if corrected else ""):
        raise FormatError(
            f"{record.path}: a person corrected its beats after they were analysed; ingest the songs again"
        )
    return _song(text_to_path(record.path), record.sha256, stored.features, store=store)


def load_songs(records: Sequence[SongRecord], store: Path, *, corrections: Path | None = None) -> list[Song]:
    """The accepted songs among `records`, in order; the arguments are those of `load_song`."""
    return [load_song(record, store, corrections=corrections) for record in records if record.accepted]


class PreparedSongs(NamedTuple):
    """The songs of a folder that can be used, and their records, one for one."""

    songs: list[Song]
    records: list[SongRecord]


def prepare_songs(
    folder: Path | str,
    store: Path,
    *,
    corrections: Path,
    tracker: str,
    separator: str,
    report: Callable[[str], None],
    only: str = "",
    n_processes: int | None = None,
    progress: Progress | None = None,
) -> PreparedSongs:
    """Analyse what is new in `folder`, report what is left out, and load the rest: the way from a folder to songs.

    Args:
        folder: Where the songs are.
        store: Folder for features and index.
        corrections: Folder of people's corrections of grids, which always override the tracker.
        tracker: Which tracker finds beats, see `analysis.names`.
        separator: What divides songs into stems, see `analysis.names`.
        report: Receives a line for every file that is left out, with the reason.
        only: Only files whose name contains this text.
        n_processes: Songs analysed at a time; None for one per processor.
        progress: Called as progress("analyse songs", done, total).

    Raises:
        ParameterError: If there is no such folder, or none of its files can be used.
    """
    records = ingest(
        folder,
        store,
        n_processes=n_processes,
        tracker=tracker,
        separator=separator,
        corrections=corrections,
        progress=progress,
    )
    records = [record for record in records if only in Path(record.path).name]
    for record in records:
        if not record.accepted:
            report(f"left out: {record.path}: {record.reason}")
    accepted = [record for record in records if record.accepted]
    if not accepted:
        raise ParameterError(f"{path_to_text(folder)}: none of its {len(records)} files can be used as a song")
    return PreparedSongs(load_songs(accepted, store, corrections=corrections), accepted)
