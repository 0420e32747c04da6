"""Pairs and answers as assets: of which songs, asked of whom, and nothing twice. Songs are made, not analysed."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import torch

from assets.preferences import TEST_SHARE, answers_of, edit_pairs, preferences
from assets.resources.home import Home
from assets.resources.memo import latest_materialization, metadata_value
from editorbot_core.policy.config import PolicyConfig
from editorbot_core.policy.files import save_policy
from editorbot_core.policy.network import Policy
from editorbot_core.preferences.pair_files import pairs_path, read_pairs
from editorbot_core.preferences.store import PreferenceStore
from editorbot_core.songs.song import Song
from pipelines.definitions import silent
from pipelines.io_managers import ParquetTables
from tests.core.conftest import make_song

# Four songs to learn from and two to judge on.
PARTS = ("train",) * 4 + ("eval",) * 2
N_PAIRS = 8


@dg.asset(io_manager_key="tables")
def song_library() -> pd.DataFrame:
    """What the assets read of the library: songs and their parts."""
    return pd.DataFrame({"track_id": [f"{i:016x}" for i in range(len(PARTS))], "part": PARTS})


@dg.asset
def beat_features() -> None:
    """Stands in for the files of features."""


@dg.asset
def reference_policy(home: Home) -> dg.MaterializeResult:
    """A policy that has learned nothing."""
    path = home.models / "reference.pt"
    torch.manual_seed(0)
    policy = Policy(PolicyConfig(width=16, hidden=32, pair_width=8, n_layers=1, n_heads=2))
    return dg.MaterializeResult(metadata={"weights": str(path), "sha256": save_policy(path, policy, model={})})


class Chain:
    """Materializes the assets in one home."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.home, self.instance = Home(folder=str(home), settings={"n_pairs": str(N_PAIRS)}), instance
        self.songs = [make_song(i, n_bars=16, annotated=True, estimated=True) for i in range(len(PARTS))]

    def songs_of(self, home: Home, library: pd.DataFrame, part: str | None = None) -> list[Song]:
        """In place of `assets.songs.songs_of`."""
        return [song for song, of in zip(self.songs, PARTS, strict=True) if part in (None, of)]

    def make(self, *assets: dg.AssetsDefinition) -> None:
        """Materialize `assets`, which read what was materialized before; all of them if none is named."""
        every = [song_library, beat_features, reference_policy, edit_pairs, preferences]
        resources = {"home": self.home, "tables": ParquetTables(folder=self.home.folder), "progress": silent}
        done = dg.materialize(every, instance=self.instance, resources=resources, selection=list(assets) or None)
        assert done.success

    def said(self, asset: dg.AssetsDefinition, name: str) -> object:
        """A metadata value of the last materialization of `asset`."""
        return metadata_value(latest_materialization(self.instance, asset.key.path[-1]), name)

    def table(self, asset: dg.AssetsDefinition) -> pd.DataFrame:
        """The table of `asset`."""
        return self.home.tables.read(asset.key.path[-1])


@pytest.fixture
def chain(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Pairs and answers, materialized once."""
    chain = Chain(tmp_path / "home", instance)
    monkeypatch.setattr("assets.preferences.songs_of", chain.songs_of)
    chain.make()
    return chain


def test_pairs_are_of_songs_of_their_part_and_fewer_of_those_to_judge_on(chain: Chain) -> None:
    table = chain.table(edit_pairs)
    of = dict(zip((song.track_id for song in chain.songs), PARTS, strict=True))
    assert (table["part"] == table["track_id"].map(of)).all()
    assert table["part"].value_counts().to_dict() == {"train": 4 * N_PAIRS, "eval": 2 * round(TEST_SHARE * N_PAIRS)}
    assert table["pair_id"].is_unique
    waiting = {queued.pair.pair_id for queued in read_pairs(pairs_path(chain.home.path))}
    assert waiting == set(table.loc[table["part"] == "train", "pair_id"])


def test_the_listener_answers_every_pair_once(chain: Chain) -> None:
    answers = chain.table(preferences)
    assert len(answers) == len(chain.table(edit_pairs)) == chain.said(preferences, "n_bootstrap")
    assert (set(answers["source"]), chain.said(preferences, "n_person")) == ({"bootstrap"}, 0)
    decided = answers["label"] != 0.5
    assert chain.said(preferences, "n_train_decided") == (decided & (answers["part"] == "train")).sum()
    chain.make(edit_pairs, preferences)
    assert (chain.said(edit_pairs, "reused"), chain.said(preferences, "reused")) == (True, True)
    pd.testing.assert_frame_equal(chain.table(preferences), answers)


def test_an_answer_of_a_person_is_seen_at_once_and_learned_from_in_its_part(chain: Chain) -> None:
    for part in ("train", "eval"):
        of_part = {song.track_id for song in chain.songs_of(chain.home, chain.table(song_library), part)}
        asked = {answer.track_id for answer in answers_of(chain.home, chain.table(preferences), part)}
        assert asked and asked <= of_part
    trained_on = answers_of(chain.home, chain.table(preferences), "train")[0]
    with PreferenceStore(chain.home.database_url) as store:
        store.add(replace(trained_on, source="person", rater="ana", answer_id="ana-1"))
        store.add(
            replace(trained_on, a=_of_another_song(trained_on.a), b=_of_another_song(trained_on.b), answer_id="x")
        )
    chain.make(preferences)
    assert not chain.said(preferences, "reused")
    assert (chain.said(preferences, "n_person"), chain.said(preferences, "n_new_bootstrap")) == (1, 0)
    # Answers about songs that are not in the library are counted, and stay out of the table.
    assert chain.said(preferences, "n_of_other_songs") == 1
    table = chain.table(preferences)
    assert "ana-1" in {answer.answer_id for answer in answers_of(chain.home, table, "train")}
    assert "ana-1" not in {answer.answer_id for answer in answers_of(chain.home, table, "eval")}
    assert "x" not in set(table["answer_id"])


def _of_another_song(edl):
    return replace(edl, track_id="f" * 16, source_sha256="f" * 64)
