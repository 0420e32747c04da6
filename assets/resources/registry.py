"""Settings of the model registry from `mlflow/registry.yaml`: names, gates, promotion rules, automation."""

import math
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from editorbot_core.base.errors import FormatError

REGISTRY_PATH = Path(__file__).resolve().parents[2] / "mlflow" / "registry.yaml"

T = TypeVar("T")


@dataclass(frozen=True)
class Gates:
    """Conditions that a stage must meet before the next one uses its result.

    Attributes:
        min_train_songs: Accepted songs that are not held out.
        min_pairs: Labelled pairs of those songs, ties not counted.
        min_reward_accuracy: Share of held-out pairs ordered as the listener did.
        max_saturated_frac: Share of reward scores within 0.1 of either end of their range.
        max_kl_ref_unit: KL divergence of a trained policy from the reference, nats per unit.
        min_cut_frac: Share of units that a trained policy cuts when the target is half the song.
        max_target_abs_err: Absolute error of the edit's length, as a share of the target.
    """

    min_train_songs: int
    min_pairs: int
    min_reward_accuracy: float
    max_saturated_frac: float
    max_kl_ref_unit: float
    min_cut_frac: float
    max_target_abs_err: float


@dataclass(frozen=True)
class Promotion:
    """When a challenger becomes the champion.

    Attributes:
        min_quality_gain: Mean gain in quality (0-100) over the champion on held-out songs.
        min_gain_probability: Share of resamples of the songs in which the gain is positive.
    """

    min_quality_gain: float
    min_gain_probability: float


@dataclass(frozen=True)
class Automation:
    """When runs start automatically.

    Attributes:
        retrain_cron: Times of retraining, five cron fields.
        min_new_answers: Number of answers by people since the last snapshot that starts a retraining.
        max_attempts: Attempts to repeat a failed request.
    """

    retrain_cron: str
    min_new_answers: int
    max_attempts: int


@dataclass(frozen=True)
class Registry:
    """The settings of the registry.

    Attributes:
        experiment: MLflow experiment of every run.
        policy_name: Registered model of policies.
        reward_name: Registered model of reward models.
        challenger: Alias of the newest policy that may be promoted.
        champion: Alias of the policy in use, and of its reward model.
        gates: See `Gates`.
        promotion: See `Promotion`.
        automation: See `Automation`.
    """

    experiment: str
    policy_name: str
    reward_name: str
    challenger: str
    champion: str
    gates: Gates
    promotion: Promotion
    automation: Automation


def _part(kind: type[T], document: Any, where: str) -> T:
    wanted = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(document, dict) or set(document) != set(wanted):
        raise FormatError(f"{where}: expected the names {sorted(wanted)}, got {document!r}")
    for name, value in document.items():
        expected = wanted[name]
        fits = isinstance(value, int | float if expected is float else expected)  # type: ignore[arg-type]
        if not fits or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise FormatError(f"{where}.{name}: expected {expected.__name__}, got {value!r}")  # type: ignore[union-attr]
    return kind(**document)


def load_registry(path: Path = REGISTRY_PATH) -> Registry:
    """The registry settings in the file at `path`.

    Raises:
        FormatError: If the file is missing, not YAML, or has unknown, missing or mistyped names.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{path}: not readable as YAML: {error}") from error
    parts = {"experiment", "models", "aliases", "gates", "promotion", "automation"}
    if not isinstance(document, dict) or set(document) != parts:
        raise FormatError(f"{path}: expected the parts {sorted(parts)}")
    models, aliases = document["models"], document["aliases"]
    names = [document["experiment"], *(models or {}).values(), *(aliases or {}).values()]
    if set(models) != {"policy", "reward"} or set(aliases) != {"challenger", "champion"}:
        raise FormatError(f"{path}: models are policy and reward, aliases challenger and champion")
    if not all(isinstance(name, str) and name for name in names):
        raise FormatError(f"{path}: experiment, models and aliases are names, got {names}")
    return Registry(
        experiment=document["experiment"],
        policy_name=models["policy"],
        reward_name=models["reward"],
        challenger=aliases["challenger"],
        champion=aliases["champion"],
        gates=_part(Gates, document["gates"], f"{path}: gates"),
        promotion=_part(Promotion, document["promotion"], f"{path}: promotion"),
        automation=_part(Automation, document["automation"], f"{path}: automation"),
    )


@cache
def registry() -> Registry:
    """The repository's own registry settings."""
    return load_registry()
