"""Pairs of edits to be compared, and the answers about them."""

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from assets.resources.home import Home
from assets.resources.memo import Memo
from assets.resources.tables import table_version
from assets.resources.weights import weights_of
from assets.songs import songs_of
from editorbot_core.base.progress import Progress
from editorbot_core.songs.splits import PARTS

if TYPE_CHECKING:
    from editorbot_core.preferences.preference import Preference


# Pairs per held-out song over pairs per training song: enough to report an accuracy.
TEST_SHARE = 0.25
# Largest number of pairs that are handed to the rating page.
QUEUE_LENGTH = 400


@dg.asset(
    group_name="preferences", io_manager_key="tables", kinds={"parquet"}, deps=["beat_features", "reference_policy"]
)
def edit_pairs(
    context: dg.AssetExecutionContext, home: Home, progress: dg.ResourceParam[Progress], song_library: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """Pairs of edits that wait for a listener, most informative first, some of them by the reference policy."""
    import numpy as np

    from editorbot_core.policy.files import load_policy
    from editorbot_core.preferences.pair_files import pairs_path, pairs_table, write_pairs
    from editorbot_core.preferences.pairs import propose_pairs
    from editorbot_core.training.rounds import sampled_edits

    memo = Memo(context, home, settings=("seed", "n_pairs"))
    if memo.unchanged and home.tables.exists(memo.name) and pairs_path(home.path).is_file():
        return memo.again(value=home.tables.read(memo.name))
    config = home.config()
    rng = np.random.default_rng(config.seed)
    policy = load_policy(weights_of(context.instance, "reference_policy").path).policy
    tables, pairs = [], {}
    for part, share in zip(PARTS, (1.0, TEST_SHARE), strict=True):
        songs = songs_of(home, song_library, part)
        pairs[part] = propose_pairs(
            songs,
            n_pairs=max(1, round(share * config.n_pairs)) * len(songs),
            rng=rng,
            policy_edits=sampled_edits(policy, songs, seed=config.seed, name="reference_policy"),
            progress=progress,
        )
        tables.append(pairs_table(pairs[part], part))
    frame = pd.concat(tables, ignore_index=True)
    write_pairs(pairs_path(home.path), pairs["train"][:QUEUE_LENGTH])
    return memo.made(
        table_version(frame),
        {
            "n_train": len(pairs["train"]),
            "n_eval": len(pairs["eval"]),
            "waiting": str(pairs_path(home.path)),
            "origins": dg.MetadataValue.json({str(name): int(n) for name, n in frame["origin"].value_counts().items()}),
        },
        value=frame,
    )


@dg.asset(group_name="preferences", io_manager_key="tables", kinds={"parquet", "sqlite"}, deps=["beat_features"])
def preferences(
    context: dg.AssetExecutionContext, home: Home, song_library: pd.DataFrame, edit_pairs: pd.DataFrame
) -> dg.MaterializeResult[pd.DataFrame]:
    """The answers given so far, by people and by the bootstrap listener, as they are in the store right now."""
    from editorbot_core.preferences.listener import BootstrapListener
    from editorbot_core.preferences.pair_files import pairs_of
    from editorbot_core.preferences.store import PreferenceStore

    with PreferenceStore(home.database_url) as store:
        memo = Memo(context, home, settings=("seed",), other={"store": store.digest()})
        if memo.unchanged and home.tables.exists(memo.name):
            return memo.again(value=home.tables.read(memo.name))
        songs, pairs = songs_of(home, song_library), pairs_of(edit_pairs)
        answered = {answer.answer_id for answer in store.stream(source="bootstrap")}
        answers = BootstrapListener().answers(songs, pairs, seed=home.config().seed)
        n_new = store.add_many([answer for answer in answers if answer.answer_id not in answered])
        memo = Memo(context, home, settings=("seed",), other={"store": store.digest()})
        parts = song_library.set_index("track_id")["part"].to_dict()
        known = [answer for answer in store if answer.track_id in parts]
        n_other = store.count() - len(known)
    frame = pd.DataFrame(
        [
            {
                "answer_id": answer.answer_id,
                "track_id": answer.track_id,
                "part": parts[answer.track_id],
                "target_duration_s": answer.a.target_duration_s,
                "label": float(answer.label),
                "strength": answer.strength,
                "confidence": answer.confidence,
                "rater": answer.rater,
                "source": answer.source,
                "round": answer.round,
                "created_at": answer.created_at,
            }
            for answer in known
        ]
    )
    counts = frame["source"].value_counts()
    n_person = int(counts.get("person", 0))
    decided = frame[frame["label"] != 0.5]
    if n_person == 0:
        context.log.warning("no person has rated anything yet: every answer is by the bootstrap listener")
    return memo.made(
        table_version(frame.drop(columns="created_at")),
        {
            "n_person": n_person,
            "n_bootstrap": int(counts.get("bootstrap", 0)),
            "n_new_bootstrap": n_new,
            "n_train_decided": int((decided["part"] == "train").sum()),
            "n_eval_decided": int((decided["part"] == "eval").sum()),
            "n_of_other_songs": n_other,
        },
        value=frame,
    )


def answers_of(home: Home, preferences: pd.DataFrame, part: str) -> "list[Preference]":
    """The answers of a snapshot about the songs of one part, with their edits."""
    from editorbot_core.preferences.store import PreferenceStore

    wanted = set(preferences.loc[preferences["part"] == part, "answer_id"])
    with PreferenceStore(home.database_url) as store:
        return [answer for answer in store if answer.answer_id in wanted]
