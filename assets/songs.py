"""Songs, their split into training and held-out songs, and their features per beat.

A song is assigned to one part, `train` or `eval`, when it is first seen, and the parts are stored. Songs of `eval` are
used for evaluation only.
"""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from assets.resources.figures import table_metadata
from assets.resources.home import Home
from assets.resources.memo import Memo
from assets.resources.tables import table_version
from editorbot_core.base.files import digest, sha256_file
from editorbot_core.base.progress import Progress
from editorbot_core.songs.splits import assign_parts

if TYPE_CHECKING:
    from editorbot_core.songs.library import SongRecord
    from editorbot_core.songs.song import Song


def records_of(library: pd.DataFrame, part: str | None = None) -> "list[SongRecord]":
    """The accepted songs of the library, all or those of one part."""
    from editorbot_core.songs.library import SongRecord

    chosen = library[library["status"] == "accepted"]
    if part is not None:
        chosen = chosen[chosen["part"] == part]
    names = [field.name for field in fields(SongRecord)]
    return [SongRecord(**{str(name): value for name, value in row.items()}) for row in chosen[names].to_dict("records")]


def songs_of(home: Home, library: pd.DataFrame, part: str | None = None) -> "list[Song]":
    """The accepted songs, all or those of one part, with features and structure."""
    from editorbot_core.songs.library import load_songs

    return load_songs(records_of(library, part), home.path)


@dg.asset(group_name="ingestion", io_manager_key="tables", kinds={"parquet"})
def song_library(
    context: dg.AssetExecutionContext, home: Home, progress: dg.ResourceParam[Progress]
) -> dg.MaterializeResult[pd.DataFrame]:
    """A row per song: content id, path, duration, loudness, tempo, part, who found its beats (a tracker, or a person
    who corrected them), and the reason if it was rejected.
    """
    from editorbot_core.songs.library import ingest

    config = home.config()
    folder = home.songs_folder(progress)
    records = ingest(
        folder,
        home.path,
        n_processes=config.n_workers,
        tracker=config.tracker,
        separator=config.separator,
        progress=progress,
    )
    accepted = {record.track_id: record.work for record in records if record.status == "accepted"}
    parts = assign_parts(home.state / "parts.json", accepted, eval_fraction=config.eval_fraction, seed=config.seed)
    frame = pd.DataFrame([{**asdict(record), "part": parts.get(record.track_id, "")} for record in records])
    rejected = frame[frame["status"] != "accepted"]
    for row in rejected.to_dict("records"):
        context.log.warning(f"left out: {row['path']}: {row['reason']}")
    memo = Memo(context, home, other={"table": table_version(frame)})
    if memo.unchanged:
        return memo.again(value=frame)
    return memo.made(
        table_version(frame),
        {
            "folder": str(folder),
            "n_accepted": len(accepted),
            "n_rejected": len(rejected),
            "n_corrected_grids": int(((frame["status"] == "accepted") & (frame["grid_source"] == "correction")).sum()),
            "n_train": sum(part == "train" for part in parts.values()),
            "n_eval": sum(part == "eval" for part in parts.values()),
            "minutes": round(float(frame.loc[frame["status"] == "accepted", "duration_s"].sum()) / 60, 1),
        },
        value=frame,
    )


@dg.asset(group_name="features", kinds={"parquet"})
def beat_features(context: dg.AssetExecutionContext, home: Home, song_library: pd.DataFrame) -> dg.MaterializeResult:
    """Beats, bars, structure and 121 features per beat of every accepted song, a Parquet file each."""
    import numpy as np

    from editorbot_core.analysis.features.columns import N_FEATURES
    from editorbot_core.songs.ingestion import features_path

    files = {record.track_id: features_path(home.path, record.sha256) for record in records_of(song_library)}
    present = {track_id: sha256_file(path) for track_id, path in sorted(files.items())}
    version = digest(present)[:32]
    memo = Memo(context, home, other={"files": version})
    if memo.unchanged:
        return memo.again()
    songs = songs_of(home, song_library)
    values = np.concatenate([song.features.values for song in songs])
    summary = [
        {
            "track_id": song.track_id,
            "beats": song.grid.n_beats,
            "bars": song.units.n_units,
            "tempo": song.grid.tempo,
            "grid_confidence": song.grid.confidence,
            "weakest_region": min(region.confidence for region in song.grid.regions),
            "structure_confidence": song.structure.confidence,
            "materials": len(set(song.structure.cluster.tolist())),
        }
        for song in songs
    ]
    return memo.made(
        version,
        {
            "folder": str(home.path / "features"),
            "n_songs": len(songs),
            "n_beats": len(values),
            "n_features": int(values.shape[1]),
            "expected_features": N_FEATURES,
            "n_not_finite": int((~np.isfinite(values)).sum()),
            "n_constant": int((values.std(0) == 0).sum()),
            "songs": table_metadata(summary),
        },
    )
