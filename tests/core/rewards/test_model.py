"""The reward model: songs of a batch do not touch each other, and both forms score alike."""

from dataclasses import replace

import pytest
import torch

from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT
from editorbot_core.rewards.model import SCORE_LIMIT, RewardModel, model_input
from tests.core.rewards.conftest import SMALL, beat_form, guessed_song, some_edits


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RewardModel(SMALL).eval()


def scores_of(model, edits):
    with torch.no_grad():
        return model.score(model.encode(edits.songs), edits)


@pytest.mark.parametrize("chunk", [500, 24])
def test_scores_do_not_depend_on_the_other_songs_of_a_batch(songs, chunk):
    torch.manual_seed(0)
    model = RewardModel(replace(SMALL, chunk_beats=chunk, overlap_beats=8)).eval()
    edits = some_edits(songs)
    together = scores_of(model, edits)
    for i, song in enumerate(songs):
        rows = edits.song_index == i
        n_units = song.units.n_units
        alone = EditBatch(
            collate([song]),
            torch.zeros(int(rows.sum()), dtype=torch.int64),
            edits.actions[rows][:, :n_units],
            edits.target_ratio[rows],
        )
        assert torch.allclose(scores_of(model, alone), together[rows], atol=1e-5)


def test_scores_are_finite_and_in_range_even_where_nothing_is_played(songs, model):
    edits = some_edits(songs)
    edits.actions[:5] = CUT
    for weight in model.parameters():
        weight.data.mul_(3.0)
    scores = scores_of(model, edits)
    assert torch.isfinite(scores).all() and scores.abs().max() <= SCORE_LIMIT


def test_the_beat_form_scores_like_the_batch_form(songs, model):
    edits = some_edits(songs)
    with torch.no_grad():
        assert torch.allclose(model(**beat_form(edits)), scores_of(model, edits), atol=1e-5)


def test_what_is_not_given_counts_as_not_known(songs, model):
    edits = some_edits(songs)
    hidden = replace(
        edits.songs,
        phrase_start=torch.zeros_like(edits.songs.phrase_start),
        phase=torch.zeros_like(edits.songs.phase),
        cluster=torch.full_like(edits.songs.cluster, -1),
    )
    form = beat_form(edits)
    with torch.no_grad():
        bare = model(form["features"], form["actions"], form["target"], form["unit_id"], form["beat_durations"])
    assert torch.allclose(bare, scores_of(model, replace(edits, songs=hidden)), atol=1e-5)
    assert not torch.allclose(bare, scores_of(model, edits), atol=1e-3)


def test_the_four_edit_features_and_the_target_are_looked_at(songs, model):
    form = beat_form(some_edits(songs))
    with torch.no_grad():
        before = model(**form)
        for column in range(N_FEATURES, N_FEATURES + 4):
            changed = form["features"].clone()
            changed[..., column] += 1.0
            assert not torch.allclose(model(**(form | {"features": changed})), before, atol=1e-4)
        assert not torch.allclose(model(**(form | {"target": form["target"] + 0.5})), before, atol=1e-4)


def test_model_input_describes_the_edit():
    song = guessed_song(3, 4)
    actions = torch.tensor([[0, 1, 2, 0]])
    values = model_input(EditBatch(collate([song]), torch.tensor([0]), actions, torch.tensor([0.5])))[0]
    share = torch.tensor(song.unit_durations / song.duration, dtype=torch.float32)
    first = values[::4, N_FEATURES:]
    assert torch.equal(values[:, :N_FEATURES], torch.tensor(song.features.values))
    assert first[:, 0].tolist() == [1, 0, 1, 1]
    kept_before = torch.stack([share[0] * 0, share[0], share[0], share[0] + 2 * share[2]])
    assert torch.allclose(first[:, 1], kept_before, atol=1e-6)
    assert torch.allclose(first[:, 2], share.cumsum(0) - share, atol=1e-6)
    assert first[:, 3].tolist() == [0.5] * 4
    assert torch.equal(values[1::4, N_FEATURES:], first)


@pytest.mark.slow
def test_forward_can_be_exported_and_takes_any_number_of_edits(songs, model):
    form = beat_form(some_edits(songs, n=5))
    example = tuple(form[name] for name in ("features", "actions", "target", "unit_id"))
    n_edits = torch.export.Dim("n_edits", min=1, max=4096)
    exported = torch.export.export(model, tuple(x[:2] for x in example), dynamic_shapes=({0: n_edits},) * 4)
    with torch.no_grad():
        assert torch.allclose(exported.module()(*example), model(*example), atol=1e-5)


def test_what_the_encoder_explains_does_not_change_the_plain_part(songs):
    torch.manual_seed(0)
    model = RewardModel(replace(SMALL, state_dropout=0.0)).train()
    edits = some_edits(songs)
    states = model.encode(edits.songs)
    assert bool((states.heard == 1).all())
    model.score(states, edits).square().sum().backward()
    for name, parameter in model.named_parameters():
        plain = name.startswith(("plain_", "join_penalty"))
        assert (parameter.grad is None or not parameter.grad.any()) == plain, name


def test_the_heard_part_counts_for_its_share(songs):
    torch.manual_seed(0)
    model = RewardModel(SMALL).eval()
    edits = some_edits(songs)
    raw = []
    with torch.no_grad():
        for share in (0.0, 0.5, 1.0):
            model.heard_share.fill_(share)
            scores = model.score(model.encode(edits.songs), edits)
            raw.append(10.0 * torch.atanh(scores / 10.0))
    assert not torch.allclose(raw[0], raw[2], atol=1e-3)
    assert torch.allclose(raw[1], (raw[0] + raw[2]) / 2, atol=1e-3)
