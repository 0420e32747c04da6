"""What every asset asks for: the folder of everything local, the configuration, and where songs come from."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from filelock import FileLock
from pydantic import Field, PrivateAttr

from assets.resources.liveness import close_dead_runs, hold_run, process_tags, release_run
from assets.resources.tables import TableStore
from editorbot_core.base.errors import ParameterError
from editorbot_core.base.files import source_digest
from editorbot_core.base.home import database_url, home_folder, named_songs_folder, storage_url

if TYPE_CHECKING:
    from editorbot_core.base.progress import Progress
    from editorbot_core.config import Config

TRAINING_FOLDER = "training_data"
N_DEMO_SONGS = 24
# What the pipeline does otherwise than `train_rlhf.py`: longer training, doubt between ensemble members counts, and
# policies are judged at three lengths, because one edit of each of a few songs says little.
PIPELINE_SETTINGS = {
    "total_steps": "600000",
    "ppo.n_steps": "32768",
    "ppo.ensemble_k": "0.5",
    "eval_ratios": "0.35,0.5,0.7",
}


@cache
def code_version() -> str:
    """Digest of the source of the library and of the assets: results of other code are not reused."""
    import assets
    import editorbot_core

    return source_digest(editorbot_core, assets)


class Home(dg.ConfigurableResource):
    """The folder of everything local, and what one run may change."""

    folder: str = Field(default="", description="Local results; empty: EDITORBOT_HOME, else .editorbot")
    songs: str = Field(
        default="", description="Folder with songs; empty: EDITORBOT_SONGS, else training_data, else demo songs"
    )
    settings: dict[str, str] = Field(
        default={}, description="Settings by dotted name, such as ppo.n_steps, instead of the defaults"
    )
    _lock: FileLock | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path:
        """The folder, absolute."""
        return Path(self.folder).expanduser().resolve() if self.folder else home_folder()

    @property
    def tables(self) -> TableStore:
        """Where tables are stored."""
        return TableStore(storage_url(self.path))

    @property
    def database_url(self) -> str:
        """The database of preferences."""
        return database_url(self.path)

    @property
    def models(self) -> Path:
        """Folder of weights."""
        return self.path / "models"

    @property
    def state(self) -> Path:
        """Folder of splits, locks and the ledger."""
        return self.path / "state"

    def config(self) -> "Config":
        """The configuration of this run."""
        from editorbot_core.config import get_default_config, overridden

        return overridden(get_default_config(), {**PIPELINE_SETTINGS, **self.settings})

    def device(self) -> str:
        """Where this run computes: the device that was named, else CUDA if there is one."""
        from editorbot_core.base.devices import resolve_device

        return resolve_device(self.config().device)

    def songs_folder_if_any(self) -> Path | None:
        """The folder of songs that was named, else `training_data` if there is audio in it, else None.

        Raises:
            ParameterError: If a folder was named and does not exist or holds no audio.
        """
        from editorbot_core.audio.files import find_audio

        named = self.songs or named_songs_folder()
        folder = Path(named or TRAINING_FOLDER).expanduser().resolve()
        if named and not folder.is_dir():
            raise ParameterError(f"{folder}: no such folder; name one that holds songs")
        if folder.is_dir() and find_audio(folder):
            return folder
        if named:
            raise ParameterError(f"{folder}: no audio file in it; put songs there or name another folder")
        return None

    def songs_folder(self, progress: "Progress | None" = None) -> Path:
        """`songs_folder_if_any`, else the folder of demo songs, composed once."""
        folder = self.songs_folder_if_any()
        if folder is None:
            from editorbot_core.songs.demo.songs import compose_demo_songs

            folder = self.path / "demo_songs"
            compose_demo_songs(folder, n_songs=N_DEMO_SONGS, seed=0, progress=progress)
        return folder

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Say that this process executes the run, and close the runs of processes that are gone."""
        from editorbot_core.base.files import sweep_temporaries

        run, instance = context.run, context.instance
        if run is None or instance is None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = hold_run(self.path, run.run_id)
        for run_id in close_dead_runs(instance, self.path):
            if context.log:
                context.log.warning(f"run {run_id} was left by a process that is gone; it is now marked as failed")
        sweep_temporaries(self.path)
        instance.add_run_tags(run.run_id, process_tags())

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the run."""
        if self._lock is not None and context.run is not None:
            release_run(self.path, context.run.run_id, self._lock)
            self._lock = None


def settings_part(config: "Config", names: tuple[str, ...]) -> dict[str, Any]:
    """The named settings and groups of settings, as plain values."""
    from editorbot_core.config import config_to_dict

    document = config_to_dict(config)
    return {name: document[name] for name in names}
