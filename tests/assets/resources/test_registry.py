"""The registry settings: names, gates, promotion."""

from pathlib import Path

import pytest

from assets.resources.registry import REGISTRY_PATH, load_registry
from editorbot_core.base.errors import FormatError


def test_the_repository_has_usable_settings() -> None:
    settings = load_registry()
    assert (settings.policy_name, settings.reward_name) == ("editorbot-policy", "editorbot-reward")
    assert settings.challenger != settings.champion
    assert 0.5 < settings.gates.min_reward_accuracy < 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  min_pairs: 200\n", "", "expected the names"),
        ("  min_pairs: 200\n", "  min_pairs: 200\n  surprise: 1\n", "expected the names"),
        ("min_pairs: 200", "min_pairs: 200.5", "min_pairs: expected int"),
        ("min_pairs: 200", "min_pairs: true", "min_pairs: expected int"),
        ("min_reward_accuracy: 0.60", "min_reward_accuracy: .nan", "min_reward_accuracy: expected float"),
        ("policy: editorbot-policy", "policy: 7", "are names"),
        ("experiment: editorbot", "experiment: !!python/object:os.system x", "not readable as YAML"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = REGISTRY_PATH.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "registry.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        load_registry(path)
