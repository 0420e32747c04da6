"""Work that is not done twice: an asset whose inputs have not changed returns what it made before.

The inputs are the data versions of the upstream assets, the settings that the asset names, the code, and anything
else the asset passes. Their digest stands on every materialization, so that the event log is the memory.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.resources.home import Home, code_version, settings_part
from editorbot_core.base.files import digest

DATA_VERSION_TAG = "dagster/data_version"
_INPUTS = "inputs"
_REUSED = "reused"


def latest_materialization(instance: dg.DagsterInstance, name: str) -> dg.AssetMaterialization | None:
    """The last materialization of the asset `name`, if there is one."""
    entry = instance.get_latest_materialization_event(dg.AssetKey(name))
    return entry.asset_materialization if entry else None


def metadata_value(materialization: dg.AssetMaterialization | None, name: str) -> Any:
    """The plain value of a materialization's metadata entry, or None."""
    entry = materialization.metadata.get(name) if materialization else None
    return entry.value if entry is not None else None


class Memo:
    """The inputs of the asset that is being materialized, and what it made when it last had them.

    Args:
        context: The asset's context.
        home: Where the configuration comes from.
        settings: Settings, or groups of them, that the asset reads.
        other: Anything else that decides the result; JSON-serialisable.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        home: Home,
        *,
        settings: tuple[str, ...] = (),
        other: Mapping[str, Any] | None = None,
    ) -> None:
        name = context.asset_key.path[-1]
        upstream = {}
        for dependency in context.assets_def.specs_by_key[context.asset_key].deps:
            parent = dependency.asset_key.path[-1]
            made = latest_materialization(context.instance, parent)
            upstream[parent] = made.tags.get(DATA_VERSION_TAG) if made and made.tags else None
        self.name = name
        self.previous = latest_materialization(context.instance, name)
        self.inputs = digest(
            {
                "asset": name,
                "upstream": upstream,
                "settings": settings_part(home.config(), settings),
                "code": code_version(),
                "other": dict(other or {}),
            }
        )[:32]

    @property
    def unchanged(self) -> bool:
        """Whether the last materialization was made from the same inputs."""
        return metadata_value(self.previous, _INPUTS) == self.inputs

    def recall(self, name: str) -> Any:
        """A metadata value of the last materialization, or None."""
        return metadata_value(self.previous, name)

    @property
    def version(self) -> str:
        """Data version of the last materialization."""
        assert self.previous is not None and self.previous.tags is not None
        return self.previous.tags[DATA_VERSION_TAG]

    def again(self, **value: Any) -> dg.MaterializeResult:
        """The last materialization once more; `value=` where the asset is a table."""
        assert self.previous is not None
        kept = {
            name: entry
            for name, entry in self.previous.metadata.items()
            if not (value and (name.startswith("dagster/") or name == "preview"))
        }
        return dg.MaterializeResult(
            metadata={**kept, _REUSED: True}, data_version=dg.DataVersion(self.version), **value
        )

    def made(self, version: str, metadata: Mapping[str, Any], **value: Any) -> dg.MaterializeResult:
        """A new materialization of data version `version`."""
        return dg.MaterializeResult(
            metadata={**metadata, _INPUTS: self.inputs, _REUSED: False},
            data_version=dg.DataVersion(version),
            **value,
        )
