"""Who has the alias `champion`: the decision, the ledger of decisions, and the exported copy of the weights."""

import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from assets.resources.jsonl import append_line, read_lines
from assets.resources.registry import Promotion
from editorbot_core.base.errors import GateError
from editorbot_core.base.files import sha256_file, write_bytes, write_text
from editorbot_core.evaluation.comparison import Gain, is_better


class Challenge(NamedTuple):
    """What an evaluation says about the best new policy.

    Attributes:
        challenger: Asset that made it.
        sha256: Digest of its weights.
        against: What it was compared with, by name.
        opponent_sha256: Digest of the champion it was compared with, or "" if the champion was one of the new policies.
        gain: How much better it is.
    """

    challenger: str
    sha256: str
    against: str
    opponent_sha256: str
    gain: Gain


class Decision(NamedTuple):
    """Who becomes or stays champion, `challenger`, `champion` or `reference`, and why."""

    winner: str
    reason: str


def decide(champion: str | None, challenge: Challenge, *, contenders: Collection[str], rules: Promotion) -> Decision:
    """Whether the challenger replaces the champion.

    Args:
        champion: Digest of the champion's weights, or None if there is no champion yet.
        challenge: The evaluation.
        contenders: Digests of the warm start and of the new policies.
        rules: What a promotion needs.

    Raises:
        GateError: If the challenger was compared with another champion than `champion`.
    """
    if champion == challenge.sha256:
        return Decision("champion", "it is the challenger")
    if champion is not None and champion not in (challenge.opponent_sha256, *contenders):
        raise GateError("the champion changed since the evaluation; materialize policy_evaluation again")
    gain = challenge.gain
    reason = (
        f"{challenge.challenger} gains {gain.mean:+.2f} points over {challenge.against}, more than nothing in "
        f"{gain.probability:.0%} of resamples ({rules.min_gain_probability:.0%} needed)"
    )
    if is_better(gain, min_gain=rules.min_quality_gain, min_probability=rules.min_gain_probability):
        return Decision("challenger", reason)
    if champion is not None:
        return Decision("champion", reason)
    # Nothing was promoted yet, and the warm start is not beaten: it is the best policy there is.
    return Decision("reference", f"{reason}; the warm start is kept")


def ledger_path(home: Path) -> Path:
    """Path of the ledger: JSON lines, one per decision, append-only."""
    return home / "state" / "champion.jsonl"


def record_decision(home: Path, action: str, **facts: Any) -> None:
    """Add a decision to the ledger: `promoted`, `kept` or `followed` (somebody moved the alias)."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append_line(ledger_path(home), {"at": now, "action": action, **facts})


def last_champion(home: Path) -> Mapping[str, Any] | None:
    """The last decision, or None if there is none."""
    lines = read_lines(ledger_path(home))
    return lines[-1] if lines else None


def export_weights(source: Path, target: Path) -> None:
    """Copy weights and their digest to a fixed name, unless they are there already."""
    sha256 = sha256_file(source)
    if target.is_file() and sha256_file(target) == sha256:
        return
    # The digest is removed first: weights without a digest can be loaded, weights with that of other weights cannot.
    target.with_name(target.name + ".sha256").unlink(missing_ok=True)
    write_bytes(target, source.read_bytes())
    write_text(target.with_name(target.name + ".sha256"), f"{sha256}  {target.name}\n")


def empty_folder(folder: Path) -> Path:
    """Delete the folder with everything in it and make it again, empty; return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
