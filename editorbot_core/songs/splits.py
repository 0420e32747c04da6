"""The split of songs into training and held-out songs; a song never changes parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import digest, read_json, write_json

PARTS = ("train", "eval")


def split_songs(
    works: Mapping[str, str], *, eval_fraction: float = 0.25, seed: int = 0, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Assign every song to "train" or "eval", recordings of one work to the same part.

    Works that have a part keep it. New works are assigned in the order of a hash, to "eval" while it has less than its
    share, so that the shares are met even with few works. Both parts get at least one work.

    Args:
        works: Track id to the work it is a recording of, see `SongRecord.work`.
        eval_fraction: Share of works for evaluation, in (0, 1).
        seed: Another seed, another split.
        known: Parts that were assigned earlier, by work.

    Returns:
        Track id to part.

    Raises:
        ParameterError: If there are fewer than two works, or `eval_fraction` is out of range.

    Examples:
        Two recordings of one work never end up on different sides:

        >>> parts = split_songs({"id1": "work", "id2": "work", "id3": "other", "id4": "third"})
        >>> parts["id1"] == parts["id2"], sorted(set(parts.values()))
        (True, ['eval', 'train'])
    """
    if len(set(works.values())) < 2:
        raise ParameterError(
            f"a split into training and evaluation needs at least 2 songs; got {len(set(works.values()))}"
        )
    if not 0.0 < eval_fraction < 1.0:
        raise ParameterError(f"eval_fraction must be between 0 and 1; got {eval_fraction}")
    parts = dict(known or {})
    new = sorted(set(works.values()) - set(parts), key=lambda work: digest([seed, work]))
    for work in new:
        n_eval = sum(part == "eval" for part in parts.values())
        parts[work] = "eval" if n_eval < eval_fraction * (len(parts) + 1) else "train"
    if new and "train" not in parts.values():
        parts[new[-1]] = "train"
    return {track_id: parts[work] for track_id, work in works.items()}


def hold_out(track_ids: Sequence[str], *, fraction: float, seed: int) -> tuple[str, ...]:
    """Track ids of the songs to validate on, at least one and never all: the first by a hash of seed and id.

    Raises:
        ParameterError: If there are fewer than two songs.
    """
    ids = sorted(set(track_ids))
    if len(ids) < 2:
        raise ParameterError(
            f"a reward model needs answers about at least 2 songs, one of them held out; got {len(ids)}"
        )
    by_hash = sorted(ids, key=lambda track_id: digest([seed, track_id]))
    return tuple(by_hash[: min(max(1, round(fraction * len(ids))), len(ids) - 1)])


def assign_parts(known_path: Path, works: dict[str, str], *, eval_fraction: float, seed: int) -> dict[str, str]:
    """The part of every song; parts are stored, so a work keeps its part even if it is missing for a while.

    Args:
        known_path: JSON file of the parts by work; updated.
        works: Track id to work.
        eval_fraction: Share of works held out.
        seed: Decides the order in which new works are assigned.
    """
    known: dict[str, str] = read_json(known_path) if known_path.is_file() else {}
    parts = split_songs(works, eval_fraction=eval_fraction, seed=seed, known=known)
    assigned = known | {works[track_id]: part for track_id, part in parts.items()}
    if assigned != known:
        write_json(known_path, assigned)
    return parts
