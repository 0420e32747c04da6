"""Songs of known phrases, and edits of them."""

from dataclasses import replace
from functools import cache

import numpy as np

from editorbot_core.audio.segments import Segment
from editorbot_core.editing.baselines import BASELINES, keep_all
from editorbot_core.editing.edits import CUT, KEEP, edl_of
from editorbot_core.evaluation.evaluate import evaluate
from tests.core.conftest import make_song

BEAT_S = 0.5
# Eight-bar phrases of 16 s: intro, verse, chorus, verse, chorus, outro.
LABELS = ("i", "A", "B", "A", "B", "o")
FIRST_S = 0.4


def phrased_song(*, seed=0, annotated=True, n_phrases=6):
    """Phrases of eight bars of two seconds, and what they are."""
    how = {"beat_s": BEAT_S, "jitter": 0.0, "first_s": FIRST_S, "doubt": 0.02}
    return make_song(seed, phrase_bars=8, labels=LABELS[:n_phrases], annotated=annotated, **how)


def cut_edl(song, exit_s, entry_s, *, target_s=None):
    """One cut from `exit_s` to `entry_s`."""
    segments = (Segment(0.0, exit_s), Segment(entry_s, song.duration))
    duration_s = sum(s.duration_s for s in segments)
    return replace(keep_all(song, target_s or duration_s), segments=segments)


def bar_s(bar):
    return FIRST_S + 2.0 * bar


def phrase_cut(song, target_s):
    """An editor that knows: verse and chorus go."""
    actions = np.full(song.units.n_units, KEEP)
    actions[8:24] = CUT
    return edl_of(song, actions, target_duration_s=target_s)


@cache
def shared_evaluation():
    return make_evaluation()


def make_evaluation(**options):
    songs = [phrased_song(seed=seed) for seed in range(5)]
    return evaluate({**BASELINES, "knowing": phrase_cut}, songs, ratios=(2 / 3,), **options)
