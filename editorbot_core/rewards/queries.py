"""Active selection of pairs to rate, by the expected information gain about the members of the ensemble."""

from collections.abc import Sequence

import torch

from editorbot_core.base.errors import ParameterError
from editorbot_core.editing.batches import EditBatch, collate, stack_actions
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.preferences.preference import EditPair, fits
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.songs.song import Song


def _entropy(p: torch.Tensor) -> torch.Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def information_gain(scores_a: torch.Tensor, scores_b: torch.Tensor, temperature: float) -> torch.Tensor:
    """Expected information of an answer about which member is right, nats (n,) (Houlsby et al. 2011, BALD).

    Args:
        scores_a: Scores of the first edits by every member, (k, n).
        scores_b: Scores of the second edits by every member, (k, n).
        temperature: Score difference that is one unit of log-odds.

    Examples:
        Two members: of the first pair they expect opposite answers, of the second both are unsure.

        >>> scores = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
        >>> information_gain(scores, torch.zeros(2, 2), temperature=1.0)
        tensor([0.5023, 0.0000])
    """
    p = torch.sigmoid((scores_a - scores_b) / temperature)
    return (_entropy(p.mean(0)) - _entropy(p).mean(0)).clamp(min=0.0)


def rank_pairs(pairs: Sequence[EditPair], songs: Sequence[Song], ensemble: RewardEnsemble) -> list[EditPair]:
    """The pairs by descending information gain: first those about which the members of the ensemble disagree most.

    Raises:
        ParameterError: If a pair is of a song that is not among `songs`, or its units are not those of the song.
    """
    if not pairs:
        return []
    place = {song.track_id: i for i, song in enumerate(songs)}
    for pair in pairs:
        i = place.get(pair.a.track_id)
        if i is None or not (fits(pair.a, songs[i]) and fits(pair.b, songs[i])):
            raise ParameterError(f"pair {pair.pair_id} does not fit the units of any of the songs; propose pairs again")
    device = ensemble.temperature.device
    batch = collate(songs).to(device)
    index = torch.tensor([place[pair.a.track_id] for pair in pairs], device=device)
    ratio = torch.tensor([p.a.target_duration_s / songs[place[p.a.track_id]].duration for p in pairs], device=device)
    states = ensemble.encode(batch)

    def scores(edits: Sequence[EditDecisionList]) -> torch.Tensor:
        actions = stack_actions([edl.unit_actions for edl in edits], batch.n_units).to(device)
        return ensemble.score_members(EditBatch(batch, index, actions, ratio.float()), states=states)

    gain = information_gain(
        scores([pair.a for pair in pairs]), scores([pair.b for pair in pairs]), float(ensemble.temperature)
    )
    return [pairs[int(i)] for i in gain.argsort(descending=True, stable=True)]
