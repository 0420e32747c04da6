"""Where a training run takes its reward model from.

In this order: the one that was named; else the file at the default path; else the registry's champion; else one is
trained here, from stored preferences or, if there are none, from bootstrap preferences, and saved at the default path.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from editorbot_core.base.errors import ParameterError
from editorbot_core.base.home import database_url
from editorbot_core.base.progress import Progress
from editorbot_core.config import REGISTRY_SCHEME, Config
from editorbot_core.preferences.listener import BootstrapListener, known_ceiling
from editorbot_core.preferences.pairs import propose_pairs
from editorbot_core.preferences.preference import Preference
from editorbot_core.preferences.store import PreferenceStore
from editorbot_core.rewards.learned import RewardEnsemble
from editorbot_core.rewards.training import train_reward_model
from editorbot_core.songs.song import Song

# Fewer stored answers than this about the songs at hand do not make a reward model by themselves.
MIN_STORED = 50

# Local weights of a `models:/<name>@<alias>` URI, or of the champion's reward model if the URI is None; None if the
# registry has no such thing.
FromRegistry = Callable[[str | None], Path | None]


class RewardSource(NamedTuple):
    """A reward model and where it came from, in words."""

    ensemble: RewardEnsemble
    origin: str


def _named(name: str, from_registry: FromRegistry | None, device: str) -> RewardSource:
    if name.startswith(REGISTRY_SCHEME):
        path = from_registry(name) if from_registry is not None else None
        if path is None:
            raise ParameterError(f"--reward_model {name}: the registry has no such model")
    else:
        path = Path(name)
        if not path.is_file():
            raise ParameterError(f"--reward_model {name}: no such file")
    return RewardSource(RewardEnsemble.load(path, device=device), name)


def stored_preferences(songs: Sequence[Song]) -> list[Preference]:
    """Answers in the store about `songs`; none if there is no store yet."""
    address = database_url()
    scheme, _, rest = address.partition(":///")
    if scheme == "sqlite" and not Path(rest).is_file():
        return []
    known = {song.track_id for song in songs}
    with PreferenceStore(address) as store:
        return [answer for answer in store if answer.track_id in known]


def bootstrap_preferences(
    songs: Sequence[Song], *, pairs_per_song: int, seed: int, progress: Progress | None = None
) -> list[Preference]:
    """Answers of the bootstrap listener to pairs of edits of `songs`."""
    rng = np.random.default_rng(seed)
    pairs = propose_pairs(songs, n_pairs=pairs_per_song * len(songs), rng=rng, progress=progress)
    return BootstrapListener().answers(songs, pairs, seed=seed)


def training_preferences(
    songs: Sequence[Song], *, pairs_per_song: int, seed: int, progress: Progress | None = None
) -> list[Preference]:
    """Stored answers about `songs`; if there are fewer than `MIN_STORED`, also answers of the bootstrap listener."""
    answers = stored_preferences(songs)
    if len(answers) >= MIN_STORED:
        return answers
    return answers + bootstrap_preferences(songs, pairs_per_song=pairs_per_song, seed=seed, progress=progress)


def find_reward_model(
    named: str | None,
    *,
    config: Config,
    songs: Sequence[Song],
    output_dir: Path,
    device: str,
    log: logging.Logger,
    from_registry: FromRegistry | None = None,
    progress: Progress | None = None,
) -> RewardSource:
    """The reward model of a training run.

    Args:
        named: A `.pt` file or a `models:/` URI, or None.
        config: Its `reward_model_path` is the default path, relative to `output_dir`.
        songs: Training songs, for a model that has to be trained first.
        output_dir: Where models are written.
        device: Where to train.
        log: Is told where the model comes from.
        from_registry: Fetches registered weights.
        progress: Told how far training is.

    Raises:
        ParameterError: If the model that was named does not exist.
        FormatError: If a file cannot be read as a reward model.
    """
    if named is not None:
        source = _named(named, from_registry, device)
        log.info("reward model: %s", source.origin)
        return source
    default = output_dir / config.reward_model_path
    if default.is_file():
        log.info("reward model: %s", default)
        return RewardSource(RewardEnsemble.load(default, device=device), str(default))
    champion = from_registry(None) if from_registry is not None else None
    if champion is not None:
        log.info("reward model: the registry's champion")
        return RewardSource(RewardEnsemble.load(champion, device=device), "the registry's champion")

    answers = training_preferences(songs, pairs_per_song=config.n_pairs, seed=config.seed, progress=progress)
    n_person = sum(answer.source == "person" for answer in answers)
    if n_person == 0:
        log.warning(
            "no person has rated anything yet: the reward model is trained on %d answers of the bootstrap listener, "
            "a program; run `make ui` and rate edits to teach it what people like",
            len(answers),
        )
    trained = train_reward_model(
        songs,
        answers,
        config=config.reward,
        seed=config.seed,
        device=device,
        bayes_ceiling=known_ceiling(songs),
        log=lambda metrics, step: log.debug("reward model epoch %d: %s", step, metrics),
        progress=progress,
    )
    trained.ensemble.save(default)
    ceiling = trained.metrics.get("rm/bayes_ceiling")
    log.info(
        "reward model: trained on %d answers (%d by people), right on %.1f %% of held-out pairs%s; saved at %s",
        len(answers),
        n_person,
        100 * trained.metrics["rm/acc_heldout"],
        f" (at most {100 * ceiling:.1f} % of the program's could be)" if ceiling is not None else "",
        default,
    )
    return RewardSource(trained.ensemble, str(default))
