import numpy as np
import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.songs.demo.synthesis import (
    DRUMS,
    INSTRUMENTS,
    PARTS,
    Note,
    add_room,
    finish,
    mix_stems,
    perform,
    pitch_to_frequency,
)

RATE = 22050


def play(*notes, duration_s=2.0, n_channels=1, sample_rate=RATE):
    return perform(
        notes, duration_s=duration_s, sample_rate=sample_rate, n_channels=n_channels, rng=np.random.default_rng(0)
    )


def rms(x):
    return float(np.sqrt(np.mean(x**2)))


@pytest.mark.parametrize("sample_rate", [22050, 44100])
@pytest.mark.parametrize("instrument", sorted(INSTRUMENTS))
def test_an_instrument_plays_the_pitch_it_is_asked_for(instrument, sample_rate):
    pitch = 45 if "bass" in instrument else 69
    sound = play(Note(0.0, 1.5, pitch, 1.0, instrument, "other"), sample_rate=sample_rate)["other"][0]
    n = 2**19
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), n))
    near = np.exp(np.linspace(np.log(0.9), np.log(1.1), 2001)) * pitch_to_frequency(pitch)
    bins = near * n / sample_rate
    # The first three harmonics agree on the pitch.
    strength = sum(np.interp(k * bins, np.arange(len(spectrum)), spectrum) for k in (1, 2, 3))
    cents = 1200 * np.log2(near[strength.argmax()] / pitch_to_frequency(pitch))
    assert abs(cents) < 20
    assert 0.05 < np.abs(sound).max() < 2.0


@pytest.mark.parametrize("instrument", sorted(INSTRUMENTS))
@pytest.mark.parametrize("pitch", [28, 60, 100])
def test_voices_are_finite_and_start_and_end_softly(instrument, pitch):
    sound = play(Note(0.0, 0.3, pitch, 1.0, instrument, "other"))["other"][0]
    assert np.isfinite(sound).all()
    assert rms(sound) > 1e-3
    assert abs(sound[0]) < 0.05 and rms(sound[int(1.0 * RATE) :]) < 1e-3


@pytest.mark.parametrize("drum", DRUMS)
def test_a_drum_strikes_at_its_time(drum):
    sound = play(Note(0.5, 0.0, 0, 1.0, drum, "drums"), duration_s=3.5)["drums"][0]
    start = int(0.5 * RATE)
    assert not sound[:start].any()
    assert rms(sound[start : start + RATE // 20]) > 5 * rms(sound[start + int(2.4 * RATE) :])


def test_notes_land_in_their_part_alone_and_add_up():
    a, b = Note(0.1, 0.5, 60, 0.5, "organ", "other"), Note(0.4, 0.5, 40, 0.5, "round_bass", "bass")
    stems = play(a, b)
    assert set(stems) == set(PARTS)
    assert not stems["drums"].any() and not stems["vocals"].any()
    assert stems["other"].any() and stems["bass"].any()
    np.testing.assert_allclose(mix_stems(stems), stems["other"] + stems["bass"])


def test_pan_moves_a_note_at_constant_power():
    left, middle, right = (
        play(Note(0.0, 0.5, 60, 0.5, "organ", "other", pan), n_channels=2)["other"] for pan in (-1.0, 0.0, 1.0)
    )
    assert np.abs(left[1]).max() < 1e-6 and np.abs(right[0]).max() < 1e-6
    np.testing.assert_allclose(middle[0], middle[1])
    assert rms(left) == pytest.approx(rms(middle), rel=1e-4)


@pytest.mark.parametrize(
    "note",
    [
        Note(0.0, 1.0, 60, 1.0, "kazoo", "other"),
        Note(0.0, 1.0, 60, 1.0, "organ", "choir"),
        Note(2.5, 1.0, 60, 1.0, "organ", "other"),
        Note(-0.1, 1.0, 60, 1.0, "organ", "other"),
    ],
    ids=["instrument", "part", "late", "early"],
)
def test_impossible_notes_are_refused(note):
    with pytest.raises(ParameterError):
        play(note)


def test_a_room_adds_a_tail_and_keeps_the_direct_sound():
    stem = np.zeros((2, RATE), dtype=np.float32)
    stem[:, 100] = 1.0
    out = add_room(stem, sample_rate=RATE, wet=0.3, decay_s=0.5, rng=np.random.default_rng(0))
    np.testing.assert_allclose(out[:, :200], stem[:, :200], atol=1e-4)
    tail = out[:, 300:]
    assert np.sqrt((tail**2).sum(axis=1)) == pytest.approx([0.3, 0.3], rel=0.05)
    assert rms(tail[:, : RATE // 10]) > 20 * rms(tail[:, 6 * RATE // 10 :])
    assert add_room(stem, sample_rate=RATE, wet=0.0, decay_s=0.5, rng=np.random.default_rng(0)) is stem


def test_the_level_is_set_peaks_are_bent_and_the_end_dies_away():
    rng = np.random.default_rng(0)
    stems = {part: (10 * rng.standard_normal((2, 2 * RATE))).astype(np.float32) for part in PARTS}
    stems["drums"][:, ::5000] += 200
    done = finish(stems, level_db=-12.0, ending_s=0.5, sample_rate=RATE)
    mix = mix_stems(done)
    assert 20 * np.log10(rms(mix)) == pytest.approx(-12.0, abs=0.1)
    assert 0.9 < np.abs(mix).max() <= 1.0
    assert np.abs(mix[:, -10:]).max() < 1e-5
    # One gain for all: the stems keep their proportions, sample for sample.
    np.testing.assert_allclose(done["bass"] * stems["drums"], done["drums"] * stems["bass"], rtol=1e-3, atol=1e-2)
    assert all(stem.dtype == np.float32 for stem in done.values())
