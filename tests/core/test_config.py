"""The configuration: one value, one name, every fault at once."""

import pytest

from editorbot_core.base.errors import ParameterError
from editorbot_core.config import config_from_dict, config_to_dict, flat_parameters, get_default_config, overridden


def test_a_configuration_survives_being_written_down() -> None:
    config = overridden(get_default_config(), {"ppo.n_steps": 4096, "eval_ratios": (0.4, 0.6), "reward.hidden": 64})
    assert config_from_dict(config_to_dict(config)) == config


def test_overriding_changes_what_was_named_and_nothing_else() -> None:
    before = flat_parameters(get_default_config())
    after = flat_parameters(overridden(get_default_config(), {"ppo.epochs": "4", "eval_ratios": "0.3,0.7"}))
    assert {name for name in before if before[name] != after[name]} == {"ppo.epochs", "eval_ratios"}
    assert (after["ppo.epochs"], after["eval_ratios"]) == (4, (0.3, 0.7))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "no setting colour"),
        ({"ppo.colour": 1}, r"no setting ppo\.colour"),
        ({"seed.deep": 1}, "seed is a single value"),
        ({"total_steps": "many"}, "cannot use 'many'"),
        ({"total_steps": 1.5}, "whole number"),
        ({"algorithm": "magic"}, "ppo or dpo"),
        ({"tracker": "madmom"}, "tracker must be one of semi-markov, librosa, beat_this"),
        ({"eval_ratios": (5.0,)}, "eval_ratios must be values in"),
        ({"total_steps": 0, "eval_fraction": 2.0}, "total_steps must be at least 1.*eval_fraction must be between"),
        ({"ppo.epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_faults_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        overridden(get_default_config(), values)
