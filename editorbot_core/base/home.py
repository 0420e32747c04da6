"""Where local results live: one ignored folder, `.editorbot/` or `EDITORBOT_HOME`."""

import os
from pathlib import Path

DEFAULT_HOME = ".editorbot"


def home_folder() -> Path:
    """The folder of local results, absolute; not created here."""
    return Path(os.environ.get("EDITORBOT_HOME") or DEFAULT_HOME).expanduser().resolve()


def corrections_folder(home: Path) -> Path:
    """What people said about the beats of songs, see `corrections`; like their ratings, it cannot be made again."""
    return home / "corrections"


def champion_path(home: Path) -> Path:
    """The policy that wears the champion alias, exported for commands that know no registry."""
    return home / "models" / "champion.pt"


def champion_reward_path(home: Path) -> Path:
    """The reward model that the champion was trained on."""
    return home / "models" / "champion_reward.pt"


def database_url() -> str:
    """Address of the preference store: EDITORBOT_DATABASE_URL, else a SQLite file in the folder of local results."""
    return os.environ.get("EDITORBOT_DATABASE_URL") or f"sqlite:///{home_folder() / 'preferences.db'}"
