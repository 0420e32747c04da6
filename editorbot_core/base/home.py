"""Where local results live, one ignored folder, and what the environment variables `EDITORBOT_*` say.

No other module reads those variables.
"""

import os
from pathlib import Path

DEFAULT_HOME = ".editorbot"


def home_folder() -> Path:
    """The folder of local results, absolute: EDITORBOT_HOME, else `.editorbot/`; not created here."""
    return Path(os.environ.get("EDITORBOT_HOME") or DEFAULT_HOME).expanduser().resolve()


def corrections_folder(home: Path) -> Path:
    """What people said about the beats of songs, see `analysis.beats.corrections`; it cannot be made again."""
    return home / "corrections"


def champion_path(home: Path) -> Path:
    """The policy that has the alias `champion`, exported for commands that know no registry."""
    return home / "models" / "champion.pt"


def champion_reward_path(home: Path) -> Path:
    """The reward model that the champion was trained on."""
    return home / "models" / "champion_reward.pt"


def database_url(home: Path | None = None) -> str:
    """Address of the preference store: EDITORBOT_DATABASE_URL, else a SQLite file in `home` (or `home_folder`)."""
    return os.environ.get("EDITORBOT_DATABASE_URL") or f"sqlite:///{(home or home_folder()) / 'preferences.db'}"


def storage_url(home: Path) -> str:
    """Address of the tables: EDITORBOT_STORAGE, else a folder in `home`."""
    return os.environ.get("EDITORBOT_STORAGE") or str(home / "tables")


def named_songs_folder() -> str:
    """The folder of songs that EDITORBOT_SONGS names; "" if it names none."""
    return os.environ.get("EDITORBOT_SONGS", "")


def automation_is_on() -> bool:
    """Whether the schedule and the sensors run from the start: EDITORBOT_AUTOMATION is on, 1 or true."""
    return os.environ.get("EDITORBOT_AUTOMATION", "").lower() in ("on", "1", "true")


def retrain_cron() -> str:
    """When retraining runs, five cron fields, by EDITORBOT_RETRAIN_CRON; "" for what the registry's settings say."""
    return os.environ.get("EDITORBOT_RETRAIN_CRON", "")


def rating_token() -> str:
    """The key of the rating page by EDITORBOT_RATING_TOKEN; "" for a new random one."""
    return os.environ.get("EDITORBOT_RATING_TOKEN", "")
