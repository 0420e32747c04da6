"""Where local results live: one ignored folder, `.editorbot/` or `EDITORBOT_HOME`."""

import os
from pathlib import Path

DEFAULT_HOME = ".editorbot"


def home_folder() -> Path:
    """The folder of local results, absolute; not created here."""
    return Path(os.environ.get("EDITORBOT_HOME") or DEFAULT_HOME).expanduser().resolve()


def champion_path(home: Path) -> Path:
    """The policy that wears the champion alias, exported for commands that know no registry."""
    return home / "models" / "champion.pt"


def champion_reward_path(home: Path) -> Path:
    """The reward model that the champion was trained on."""
    return home / "models" / "champion_reward.pt"
