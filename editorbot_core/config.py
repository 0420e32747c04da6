"""The configuration, assembled from the small configs of policies and rewards.

A value is addressed by a dotted name, `ppo.n_steps`; `overridden` changes several at once and reports every fault
together.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, get_type_hints

from editorbot_core.analysis.names import DEFAULT_SEPARATOR, DEFAULT_TRACKER, SEPARATORS, TRACKERS
from editorbot_core.base.errors import ParameterError
from editorbot_core.policy.config import DPOConfig, PolicyConfig, PPOConfig, WarmStartConfig
from editorbot_core.rewards.config import RewardConfig

# What names a model in the registry starts with this.
REGISTRY_SCHEME = "models:/"
DEFAULT_REWARD_MODEL_PATH = "models/reward_model_v8_long/reward_model_final.pt"


@dataclass(frozen=True)
class Config:
    """All settings of a training run.

    Attributes:
        seed: Seed of every random generator.
        device: `auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.
        algorithm: `ppo` or `dpo`.
        total_steps: Training steps; a step is one beat decided in a rollout.
        save_interval: Steps between two checkpoints.
        reward_model_path: Default path of the reward model.
        n_pairs: Bootstrap pairs per training song when nobody has rated anything.
        n_rounds: Rounds of collecting, comparing and learning (`training.rounds`).
        eval_fraction: Share of songs held out; the split is by song and stable.
        eval_ratios: Target durations over song durations at which policies are evaluated.
        n_workers: Processes that analyse songs.
        tracker: What finds the beats, one of `analysis.names.TRACKERS`; a person's correction always overrides it.
        separator: What divides songs into stems, one of `analysis.names.SEPARATORS`.
        reward: The reward model and its training.
        policy: The policy network.
        warm_start: Imitation of the exhaustive search for joins.
        ppo: Proximal policy optimisation.
        dpo: Direct preference optimisation.
    """

    seed: int = 0
    device: str = "auto"
    algorithm: str = "ppo"
    total_steps: int = 100_000
    save_interval: int = 10_000
    reward_model_path: str = DEFAULT_REWARD_MODEL_PATH
    n_pairs: int = 120
    n_rounds: int = 2
    eval_fraction: float = 0.25
    eval_ratios: tuple[float, ...] = (0.5,)
    n_workers: int = 2
    tracker: str = DEFAULT_TRACKER
    separator: str = DEFAULT_SEPARATOR
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    dpo: DPOConfig = field(default_factory=DPOConfig)

    def __post_init__(self) -> None:
        """Check the values that are not checked by a part; all faults are reported together."""
        faults = [
            f"{name} must be at least 1, got {getattr(self, name)}"
            for name in ("total_steps", "save_interval", "n_pairs", "n_rounds", "n_workers")
            if getattr(self, name) < 1
        ]
        if self.algorithm not in ("ppo", "dpo"):
            faults.append(f"algorithm must be ppo or dpo, got {self.algorithm!r}")
        if not 0 < self.eval_fraction < 1:
            faults.append(f"eval_fraction must be between 0 and 1, got {self.eval_fraction}")
        if not self.eval_ratios or not all(0.2 <= ratio <= 2.0 for ratio in self.eval_ratios):
            faults.append(f"eval_ratios must be values in [0.2, 2], got {self.eval_ratios}")
        if self.tracker not in TRACKERS:
            faults.append(f"tracker must be one of {', '.join(TRACKERS)}, got {self.tracker!r}")
        if self.separator not in SEPARATORS:
            faults.append(f"separator must be one of {', '.join(SEPARATORS)}, got {self.separator!r}")
        if faults:
            raise ParameterError("; ".join(faults))


def get_default_config() -> Config:
    """The default configuration."""
    return Config()


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, as stored in checkpoints and logged as parameters."""
    return asdict(config)


def flat_parameters(config: Config) -> dict[str, Any]:
    """All values by dotted name, such as `ppo.n_steps`."""

    def walk(value: Any, prefix: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for name, item in value.items() for k, v in walk(item, f"{prefix}{name}.").items()}
        return {prefix[:-1]: value}

    return walk(config_to_dict(config), "")


def _coerced(value: Any, current: Any, name: str) -> Any:
    """`value` (perhaps text from a command line) as the type of `current`."""
    try:
        if isinstance(current, bool):
            if str(value).lower() not in ("true", "false", "1", "0"):
                raise ValueError("expected true or false")
            return str(value).lower() in ("true", "1")
        if isinstance(current, int):
            if isinstance(value, float) and not value.is_integer():
                raise ValueError("expected a whole number")
            return int(value)
        if isinstance(current, float):
            return float(value)
        if isinstance(current, tuple):
            items = value.split(",") if isinstance(value, str) else list(value)
            kind = current[0] if current else 0.0
            return tuple(_coerced(item, kind, name) for item in items)
        return value if current is None else type(current)(value)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{name}: cannot use {value!r} where {current!r} stands: {error}") from error


def overridden(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with the values of dotted names replaced; text is converted to the type of the value it replaces.

    Raises:
        ParameterError: With every unknown name and every value of a wrong type or range.

    Examples:
        >>> overridden(Config(), {"seed": "3", "ppo.n_steps": 4096}).ppo.n_steps
        4096
        >>> overridden(Config(), {"sead": 3})
        Traceback (most recent call last):
        editorbot_core.base.errors.ParameterError: there is no setting sead; known: algorithm, device, dpo, ...
    """
    faults: list[str] = []

    def apply(part: Any, changes: Mapping[str, Any], prefix: str) -> Any:
        names = {f.name for f in fields(part)}
        direct: dict[str, Any] = {}
        nested: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            head, _, rest = name.partition(".")
            if head not in names:
                faults.append(f"there is no setting {prefix}{name}; known: {', '.join(sorted(names))}")
            elif rest:
                nested.setdefault(head, {})[rest] = value
            else:
                try:
                    direct[head] = _coerced(value, getattr(part, head), prefix + head)
                except ParameterError as error:
                    faults.append(str(error))
        for head, inner in nested.items():
            if is_dataclass(getattr(part, head)):
                direct[head] = apply(getattr(part, head), inner, f"{prefix}{head}.")
            else:
                faults.append(f"{prefix}{head} is a single value, not a group of settings")
        try:
            return replace(part, **direct)
        except ParameterError as error:
            faults.append(str(error))
            return part

    result = apply(config, values, "")
    if faults:
        raise ParameterError("; ".join(faults))
    return result


def config_from_dict(document: Mapping[str, Any]) -> Config:
    """The configuration that `config_to_dict` wrote; unknown names are refused."""

    def flatten(value: Mapping[str, Any], kind: Any, prefix: str) -> dict[str, Any]:
        hints = get_type_hints(kind)
        flat: dict[str, Any] = {}
        for name, item in value.items():
            if isinstance(item, Mapping) and is_dataclass(hints.get(name)):
                flat.update(flatten(item, hints[name], f"{prefix}{name}."))
            else:
                flat[prefix + name] = item
        return flat

    return overridden(Config(), flatten(document, Config, ""))
