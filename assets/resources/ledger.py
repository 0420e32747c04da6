"""The ledger of decisions about the alias `champion`, and the exported copy of the champion's weights."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.resources.jsonl import append_line, read_lines
from editorbot_core.base.files import sha256_file, write_bytes, write_text


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
