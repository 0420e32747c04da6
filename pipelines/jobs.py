"""Jobs: which assets run together."""

import dagster as dg

ITERATED = dg.AssetSelection.assets("iterated_policy")

main_job = dg.define_asset_job(
    "main_job",
    selection=dg.AssetSelection.all() - ITERATED,
    description="Everything, from songs to an evaluated and registered policy and edited songs.",
)
ingest_job = dg.define_asset_job(
    "ingest_job",
    selection=dg.AssetSelection.assets("song_library", "beat_features"),
    description="Songs and their beat features; only new and changed songs are analysed.",
)
retrain_job = dg.define_asset_job(
    "retrain_job",
    selection=dg.AssetSelection.assets("preferences").downstream(),
    description="From the preferences given so far to a promoted policy.",
)
rounds_job = dg.define_asset_job(
    "rounds_job",
    selection=ITERATED.upstream(),
    description="Iterated RLHF: `n_rounds` rounds of collecting edits, comparing them and learning.",
)
