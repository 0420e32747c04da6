from dataclasses import replace

import numpy as np
import pytest
import torch

from editorbot_core.analysis.beats.grid import BeatGrid, Units
from editorbot_core.analysis.features.columns import N_FEATURES
from editorbot_core.analysis.features.table import BeatFeatures
from editorbot_core.analysis.structure.structure import Structure
from editorbot_core.base.errors import FormatError, ParameterError
from editorbot_core.base.tensors import save_tensors
from editorbot_core.editing.batches import EditBatch, collate
from editorbot_core.editing.edits import CUT, N_ACTIONS
from editorbot_core.preferences.pairs import pair_batch, propose_pairs
from editorbot_core.preferences.preference import Preference
from editorbot_core.rewards.config import RewardConfig
from editorbot_core.rewards.encoder import SongEncoder
from editorbot_core.rewards.learned import RewardEnsemble, load_reward, saturated_share
from editorbot_core.rewards.model import SCORE_LIMIT, RewardModel, model_input
from editorbot_core.rewards.training import (
    AnswerThresholds,
    expected_calibration_error,
    fit_temperature,
    preference_loss,
    reward_metrics,
    train_reward_model,
)
from editorbot_core.songs.song import Song
from editorbot_core.songs.splits import hold_out

SMALL = RewardConfig(hidden=32, n_layers=1, n_heads=2, n_convs=1, unit_channels=8, join_channels=8, n_members=2)


def make_song(seed, n_bars=20, *, pickup=0):
    rng = np.random.default_rng(seed)
    n_beats = 4 * n_bars + pickup
    times = 0.2 + np.cumsum(rng.uniform(0.4, 0.6, n_beats))
    grid = BeatGrid(times, (np.arange(n_beats) - pickup) % 4 + 1, duration=float(times[-1]) + 2.0)
    values = rng.normal(loc=3.0, scale=2.0, size=(n_beats, N_FEATURES)).astype(np.float32)
    units = Units.bars(grid)
    n = units.n_units
    phase = rng.random((n, 4)).astype(np.float32)
    structure = Structure(
        rng.random(n).astype(np.float32), phase / phase.sum(1, keepdims=True), rng.integers(0, 4, n), confidence=0.5
    )
    return Song(f"{seed:016x}", "", "", BeatFeatures(values, grid), units, structure)


@pytest.fixture(scope="module")
def songs():
    return [make_song(0), make_song(1, 12, pickup=1), make_song(2, 26)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return RewardModel(SMALL).eval()


def some_edits(songs, n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = collate(songs)
    actions = torch.randint(0, N_ACTIONS, (n, batch.n_units), generator=generator)
    actions = actions * (torch.rand(actions.shape, generator=generator) < 0.4)
    index = torch.randint(0, len(songs), (n,), generator=generator)
    return EditBatch(batch, index, actions, 0.3 + 0.7 * torch.rand(n, generator=generator))


def scores_of(model, edits):
    with torch.no_grad():
        return model.score(model.encode(edits.songs), edits)


def beat_form(edits):
    """Beat tensors of edits, as `RewardModel.forward` takes them."""
    songs, index = edits.songs, edits.song_index
    unit = songs.unit_id[index].masked_fill(~songs.beat_mask[index], -1)
    at = unit.clamp(min=0)
    seconds = songs.unit_durations / (songs.last_beat - songs.first_beat + 1)
    return {
        "features": model_input(edits),
        "actions": edits.actions.gather(1, at),
        "target": edits.target_ratio,
        "unit_id": unit,
        "beat_durations": seconds[index].gather(1, at),
        "phrase_start": songs.phrase_start[index].gather(1, at),
        "phase": songs.phase[index].gather(1, at[..., None].expand(-1, -1, 4)),
        "cluster": songs.cluster[index].gather(1, at),
    }


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
    song = make_song(3, 4)
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


def test_long_songs_are_encoded_in_chunks_that_lose_nothing():
    torch.manual_seed(0)
    settings = {"hidden": 16, "n_layers": 2, "n_heads": 2, "n_convs": 0, "dropout": 0.0}
    whole = SongEncoder(6, **settings, chunk_beats=200, overlap_beats=20)
    chunked = SongEncoder(6, **settings, chunk_beats=60, overlap_beats=20)
    chunked.load_state_dict(whole.state_dict())
    features = torch.randn(1, 150, 6, requires_grad=True)
    mask = torch.ones(1, 150, dtype=torch.bool)
    states = chunked(features, mask)
    assert torch.allclose(whole(features, mask)[:, :40], whole(features, mask)[:, :40])
    # Every beat has a state that looks at its own features and at no beat further than a chunk away.
    for beat in (0, 49, 50, 89, 90, 149):
        gradient = torch.autograd.grad(states[0, beat].square().sum(), features, retain_graph=True)[0][0].abs().sum(1)
        seen = gradient.nonzero()[:, 0]
        assert gradient[beat] > 0
        assert int(seen.max() - seen.min()) == min(59, 149 - int(seen.min()))
        # At least half the overlap on both sides, except at the ends of the song.
        assert int(seen.min()) <= max(0, beat - 10) and int(seen.max()) >= min(149, beat + 9)
    assert torch.equal(chunked(features[:, :60], mask[:, :60]), whole(features[:, :60], mask[:, :60]))


def test_the_ensemble_is_its_members(songs):
    torch.manual_seed(0)
    ensemble = RewardEnsemble(replace(SMALL, n_members=3, pessimism=0.5)).eval()
    edits = some_edits(songs)
    by_member = ensemble.score_members(edits)
    assert by_member.shape == (3, 60)
    assert torch.allclose(ensemble(edits), by_member.mean(0) - 0.5 * by_member.std(0, correction=0), atol=1e-6)
    assert torch.allclose(ensemble.uncertainty(edits), by_member.std(0, correction=0))
    assert torch.equal(ensemble.score_members(edits, states=ensemble.encode(edits.songs)), by_member)
    ensemble.temperature.fill_(2.0)
    assert float(ensemble.preference_probability(torch.tensor(2.0), torch.tensor(0.0))) == pytest.approx(
        0.731059, abs=1e-6
    )


def test_an_ensemble_comes_back_as_it_was_saved(tmp_path, songs):
    torch.manual_seed(0)
    ensemble = RewardEnsemble(SMALL, metrics={"rm/nll": 0.3}, model={"name": "reward", "version": 4}).eval()
    ensemble.temperature.fill_(0.7)
    ensemble.save(tmp_path / "reward.pt")
    loaded = load_reward(tmp_path / "reward.pt")
    edits = some_edits(songs)
    assert torch.equal(loaded.score_members(edits), ensemble.score_members(edits))
    assert (loaded.config, loaded.metrics, loaded.model) == (SMALL, ensemble.metrics, ensemble.model)
    assert float(loaded.temperature) == pytest.approx(0.7) and not loaded.training
    raw = torch.load(tmp_path / "reward.pt", weights_only=True)
    assert raw["kind"] == "editorbot.reward_model/2"


def _damage(payload, what):
    member = payload["members"][0]
    if what == "kind":
        payload["kind"] = "editorbot.policy/1"
    elif what == "a key":
        del payload["metrics"]
    elif what == "an unknown key":
        payload["extra"] = 1
    elif what == "features":
        payload["feature_names"][0] = "loudness"
    elif what == "an unknown setting":
        payload["config"]["wings"] = 2
    elif what == "a huge setting":
        payload["config"]["hidden"] = 1_000_000
    elif what == "members":
        payload["members"].pop()
    elif what == "a weight":
        del member["song_start"]
    elif what == "a shape":
        member["song_start"] = member["song_start"][:3].clone()
    elif what == "a type":
        member["song_start"] = member["song_start"].double()
    elif what == "NaN":
        member["song_start"][0] = float("nan")
    elif what == "scale":
        member["feature_scale"][3] = 0.0
    elif what == "temperature":
        payload["temperature"] = 0.0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("kind", "not a reward model"),
        ("a key", "missing or unknown"),
        ("an unknown key", "missing or unknown"),
        ("features", "other features"),
        ("an unknown setting", "unusable configuration"),
        ("a huge setting", "hidden must be in"),
        ("members", "2 members expected, got 1"),
        ("a weight", "missing or unknown weights: song_start"),
        ("a shape", "song_start must be torch.float32"),
        ("a type", "song_start must be torch.float32"),
        ("NaN", "not finite"),
        ("scale", "feature_scale must be positive"),
        ("temperature", "temperature must be"),
    ],
)
def test_a_file_that_is_not_exactly_a_reward_model_is_refused(tmp_path, what, message):
    payload = RewardEnsemble(SMALL).payload()
    RewardEnsemble.from_payload(payload, source="before")
    _damage(payload, what)
    save_tensors(tmp_path / "reward.pt", payload)
    with pytest.raises(FormatError, match=message):
        load_reward(tmp_path / "reward.pt")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "reward.pt"
    RewardEnsemble(SMALL).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        load_reward(path)


def test_faults_of_a_configuration_are_reported_together():
    with pytest.raises(ParameterError, match=r"hidden must be in .*; epochs must be a whole number"):
        RewardConfig(hidden=4, epochs=2.5)
    with pytest.raises(ParameterError, match="multiple of 4 x n_heads"):
        RewardConfig(hidden=40, n_heads=4)


def test_saturation_is_the_share_near_either_end():
    assert saturated_share(torch.tensor([9.95, -9.91, 9.89, 0.0])) == 0.5
    assert saturated_share(torch.zeros(0)) == 0.0


_SETTINGS = {
    "thresholds": torch.tensor([0.5, 2.0, 4.0]),
    "temperature": 0.25,
    "label_smoothing": 0.03,
    "centring": 1e-3,
}


def test_the_loss_does_not_care_which_side_is_a():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator)
    label = torch.tensor([1.0, 0.5, 0.0]).repeat(17)[:50]
    confidence = torch.rand(50, generator=generator)
    strength = torch.randint(1, 4, (50,), generator=generator) * (label != 0.5)
    one = preference_loss(a, b, label, strength, confidence, **_SETTINGS)
    other = preference_loss(b, a, 1 - label, strength, confidence, **_SETTINGS)
    assert torch.allclose(one, other, atol=1e-6)


def test_the_seven_answers_are_all_there_are():
    a, b = torch.full((7,), 0.4), torch.zeros(7)
    label = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0])
    strength = torch.tensor([3, 2, 1, 0, 1, 2, 3])
    for confidence in (1.0, 0.4):
        settings = _SETTINGS | {"centring": 0.0}
        loss = preference_loss(a, b, label, strength, torch.full((7,), confidence), **settings)
        doubt = 1.0 - 0.97 * torch.tensor([confidence] * 3 + [1.0] + [confidence] * 3)
        likelihood = ((-loss).exp() - doubt / 7) / (1 - doubt)
        assert float(likelihood.sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_loss_by_hand():
    def loss(a: float, label: float, strength: int, confidence: float = 1.0, **changed: float) -> float:
        settings = _SETTINGS | {"temperature": 2.0, "label_smoothing": 0.0, "centring": 0.0} | changed
        sides = torch.tensor([[a], [0.0]])
        found = preference_loss(
            *sides, torch.tensor([label]), torch.tensor([strength]), torch.tensor([confidence]), **settings
        )
        return float(found)

    def s(x: float) -> float:
        return 1.0 / (1.0 + np.exp(-x))

    # A gap of 2 at temperature 2 is 1; thresholds 0.5, 2 and 4.
    assert loss(2.0, 1.0, 1) == pytest.approx(-np.log(s(1.0) - s(-0.5)), abs=1e-6)
    assert loss(2.0, 1.0, 3) == pytest.approx(-np.log(1.0 - s(3.0)), abs=1e-5)
    assert loss(2.0, 0.0, 2) == pytest.approx(-np.log(s(5.0) - s(3.0)), abs=1e-5)
    assert loss(2.0, 0.5, 0) == pytest.approx(-np.log(s(-0.5) - s(-1.5)), abs=1e-6)
    # A preference without a strength is a slight one.
    assert loss(2.0, 1.0, 0) == loss(2.0, 1.0, 1)
    doubted = 0.97 * 0.5 * (s(1.0) - s(-0.5)) + (1 - 0.97 * 0.5) / 7
    assert loss(2.0, 1.0, 1, 0.5, label_smoothing=0.03, centring=0.01) == pytest.approx(
        0.04 - np.log(doubted), abs=1e-6
    )


def test_the_thresholds_that_made_the_answers_are_found():
    generator = torch.Generator().manual_seed(0)
    gap = 3.0 * torch.randn(20_000, generator=generator)
    noise = torch.rand(20_000, generator=generator)
    perceived = gap + (noise / (1 - noise)).log()
    strength = torch.bucketize(perceived.abs(), torch.tensor([0.4, 1.5, 5.0]))
    label = torch.where(strength == 0, 0.5, (perceived > 0).float())
    scale = AnswerThresholds()
    optimizer = torch.optim.Adam(scale.parameters(), lr=0.05)
    for _ in range(150):
        settings = {"thresholds": scale(), "temperature": 1.0, "label_smoothing": 0.0, "centring": 0.0}
        loss = preference_loss(gap, 0 * gap, label, strength, torch.ones_like(gap), **settings).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert scale().tolist() == pytest.approx([0.4, 1.5, 5.0], rel=0.06)


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(0)
    gaps = torch.tensor(rng.normal(scale=4.0, size=20_000))
    labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(0)) < torch.sigmoid(gaps / 2.5)).float()
    assert fit_temperature(gaps, labels) == pytest.approx(2.5, rel=0.05)


def test_calibration_error_by_hand():
    probability = torch.tensor([0.72, 0.72, 0.28, 0.72, 0.97, 0.97])
    label = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    assert expected_calibration_error(probability, label) == pytest.approx(4 / 6 * 0.03 + 2 / 6 * 0.03, abs=1e-6)
    assert expected_calibration_error(torch.tensor([0.9999]), torch.tensor([0.0])) == pytest.approx(1.0, abs=1e-3)


def test_songs_are_held_out_by_their_name_alone():
    names = [f"song {i}" for i in range(20)]
    held = hold_out(names, fraction=0.2, seed=0)
    assert len(held) == 4 and hold_out(reversed(names), fraction=0.2, seed=0) == held
    assert hold_out(names, fraction=0.2, seed=1) != held
    assert len(hold_out(names[:2], fraction=0.01, seed=0)) == len(hold_out(names[:2], fraction=0.9, seed=0)) == 1
    with pytest.raises(ParameterError, match="at least 2 songs"):
        hold_out(["one"], fraction=0.2, seed=0)


def fewer_joins_wins(songs, *, n_pairs, seed=0):
    """Answers of somebody who counts joins and nothing else."""
    pairs = propose_pairs(songs, n_pairs=n_pairs, rng=np.random.default_rng(seed))
    out = []
    for i, pair in enumerate(pairs):
        a, b = len(pair.a.segments), len(pair.b.segments)
        out.append(
            Preference(
                a=pair.a,
                b=pair.b,
                label=0.5 if a == b else float(a < b),
                strength=0 if a == b else 2,
                confidence=1.0,
                rater="counter",
                source="bootstrap",
                answer_id=str(i),
                created_at="2026-01-01T00:00:00+00:00",
            )
        )
    return out


TRAINING = replace(SMALL, epochs=6, songs_per_step=2, pairs_per_song=32, learning_rate=3e-3)


@pytest.fixture(scope="module")
def trained():
    songs = [make_song(i, 16) for i in range(8)]
    answers = fewer_joins_wins(songs, n_pairs=400)
    logged = []
    state = torch.random.get_rng_state()
    result = train_reward_model(
        songs, answers, config=TRAINING, seed=0, log=lambda metrics, step: logged.append((step, metrics))
    )
    return songs, answers, result, logged, torch.equal(state, torch.random.get_rng_state())


def test_a_simple_taste_is_learned_and_holds_on_other_songs(trained):
    songs, answers, result, _, _ = trained
    # 80 answers about songs that were not trained on; chance has a standard error of 5.6 points.
    assert result.metrics["rm/acc_heldout"] > 0.85
    assert result.metrics["rm/saturated_frac"] == 0.0
    assert len(result.held_out) == 2 and set(result.held_out) < {song.track_id for song in songs}
    expected = {"loss", "nll", "ece", "brier", "nll_before", "ece_before", "brier_before", "temperature"}
    expected |= {"acc_heldout", "score_std", "saturated_frac", "ensemble_std"}
    assert {f"rm/{name}" for name in expected} <= set(result.metrics)
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert result.metrics["rm/nll"] <= result.metrics["rm/nll_before"] + 1e-6
    assert result.metrics["rm/n_train_pairs"] + result.metrics["rm/n_heldout_pairs"] == len(answers)


def test_training_reports_every_epoch_and_leaves_the_global_generator_alone(trained):
    _, _, _, logged, untouched = trained
    assert [step for step, _ in logged] == list(range(len(logged))) and 1 <= len(logged) <= TRAINING.epochs
    assert {"rm/loss", "rm/nll", "rm/acc_heldout"} <= set(logged[0][1])
    assert untouched


def test_the_same_seed_trains_the_same_model_and_another_does_not(trained):
    songs, answers, _, _, _ = trained
    short = replace(TRAINING, epochs=1)
    one, again, other = (train_reward_model(songs, answers, config=short, seed=seed) for seed in (1, 1, 2))
    weights = [torch.cat([w.flatten() for w in r.ensemble.parameters()]) for r in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert one.metrics == again.metrics


def test_named_songs_are_held_out_and_the_ceiling_is_asked_about_their_answers(trained):
    songs, answers, _, _, _ = trained
    asked = []

    def ceiling(preferences):
        asked.extend(preferences)
        return 0.9

    held_out = [songs[3].track_id]
    result = train_reward_model(
        songs, answers, config=replace(TRAINING, epochs=1), seed=0, held_out=held_out, bayes_ceiling=ceiling
    )
    assert result.held_out == tuple(held_out) and result.metrics["rm/bayes_ceiling"] == 0.9
    assert {p.track_id for p in asked} == set(held_out)
    assert len(asked) == sum(p.track_id in held_out for p in answers)


def test_too_few_answers_are_an_error_that_says_so(trained):
    songs, answers, _, _, _ = trained
    with pytest.raises(ParameterError, match="at least 2 songs"):
        of_one = [p for p in answers if p.track_id == songs[0].track_id]
        train_reward_model(songs, of_one, config=TRAINING, seed=0)
    with pytest.raises(ParameterError, match="more answers are needed"):
        train_reward_model(songs, [replace(p, label=0.5) for p in answers], config=TRAINING, seed=0)


def test_metrics_of_a_known_ensemble(trained):
    songs, answers, result, _, _ = trained
    test_songs = [song for song in songs if song.track_id in result.held_out]
    found = reward_metrics(result.ensemble, pair_batch(answers, test_songs))
    assert found["acc"] == pytest.approx(result.metrics["rm/acc_heldout"], abs=1e-6)
    assert found["ece"] == pytest.approx(result.metrics["rm/ece"], abs=1e-3)


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
