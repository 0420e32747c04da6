"""The editors that learn nothing, by name: what every evaluation compares a learned editor with."""

from editorbot_core.baselines import Editor, dp_bars, dp_beats, keep_all, one_cut, truncate_and_fade
from editorbot_core.join_search import search_acoustic, search_structure

BASELINES: dict[str, Editor] = {
    "keep_all": keep_all,
    "truncate_fade": truncate_and_fade,
    "one_cut": one_cut,
    "dp_beats": dp_beats,
    "dp_bars": dp_bars,
    "search_acoustic": search_acoustic,
    "search_structure": search_structure,
}
