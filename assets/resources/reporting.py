"""Common steps of model assets: logging settings, provenance, weights and plots, and the report on a policy."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.resources.figures import png, shown
from assets.resources.home import Home, code_version
from assets.resources.jsonl import read_lines
from assets.resources.memo import DATA_VERSION_TAG, Memo, latest_materialization
from assets.resources.registry import registry
from assets.resources.stages import Stage

if TYPE_CHECKING:
    from editorbot_core.policy.network import Policy
    from editorbot_core.songs.song import Song


def params(home: Home, names: Sequence[str]) -> dict[str, Any]:
    """The settings of the named groups, by dotted name."""
    from editorbot_core.config import flat_parameters

    flat = flat_parameters(home.config())
    return {name: value for name, value in flat.items() if name.split(".")[0] in names}


def provenance(context: dg.AssetExecutionContext, memo: Memo, *parents: str) -> dict[str, str]:
    """Tags of a model version: the data versions of `parents`, the version of the code, the Dagster run."""
    tags = {"inputs": memo.inputs, "code_version": code_version(), "dagster_run_id": context.run.run_id}
    for parent in parents:
        made = latest_materialization(context.instance, parent)
        tags[parent] = made.tags.get(DATA_VERSION_TAG, "") if made and made.tags else ""
    return tags


def plots_of(stage: Stage, name: str, panels: Mapping[str, Sequence[str]]) -> dict[str, dg.MetadataValue]:
    """The stage's metrics over steps as a picture, kept with the stage and shown on the materialization."""
    from editorbot_core.evaluation.plots import curves

    image = png(curves(read_lines(stage.folder / "metrics.jsonl"), panels))
    stage.plot(name, image)
    return shown({name: image})


def finish_policy(
    context: dg.AssetExecutionContext,
    home: Home,
    memo: Memo,
    stage: Stage,
    policy: "Policy",
    *,
    reference: "Policy",
    songs: "list[Song]",
    parents: Sequence[str],
    panels: Mapping[str, Sequence[str]],
) -> tuple[str, dict[str, Any]]:
    """Save the weights, tell MLflow, and say what the policy is like; returns its digest and the metadata."""
    from editorbot_core.base.tensors import module_digest
    from editorbot_core.policy.files import save_policy
    from editorbot_core.policy.report import policy_report

    path = home.models / f"{memo.name}-{memo.inputs[:12]}.pt"
    sha256 = save_policy(path, policy, model={"name": memo.name, "version": module_digest(policy)[:12]})
    report = policy_report(policy, reference, songs, seed=home.config().seed)
    stage.log(report, int(max((line["step"] for line in read_lines(stage.folder / "metrics.jsonl")), default=0)))
    plots = plots_of(stage, memo.name, panels)
    stage.weights(
        path,
        sha256,
        kind="policy",
        registered_name=registry().policy_name,
        tags={"asset": memo.name, **provenance(context, memo, *parents)},
    )
    return sha256, {"weights": str(path), "sha256": sha256, **report, **plots}
