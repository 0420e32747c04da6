"""Songs of certain phrases and random or given features."""

from editorbot_core.editing.edits import CUT
from tests.core.conftest import make_song


def even_song(values=None, *, n_bars=40, **options):
    """Bars of two seconds in phrases of eight bars, the materials in turn three."""
    how = {"beat_s": 0.5, "jitter": 0.0, "first_s": 0.2, "tail_s": 1.0, "phrase_bars": 8, "n_materials": 3}
    return make_song(values=values, n_bars=n_bars, **(how | options))


def guessed_song(n_bars=20, **options):
    """A song whose structure is random guesses."""
    how = {"jitter": 0.1, "first_s": 0.2, "tail_s": 1.0, "phrase_bars": None, "n_materials": 3}
    return make_song(n_bars=n_bars, **(how | options))


def missed_s(song, actions, target_s):
    """Distance of an edit's duration from the target, s."""
    return abs(float(song.unit_durations[actions != CUT].sum()) - target_s)
