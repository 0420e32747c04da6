"""Who wears the champion alias: the decision, the ledger, and the copy for commands that know no registry."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.resources.jsonl import append_line, read_lines
from editorbot_core.base.files import sha256_file, write_bytes, write_text


def ledger_path(home: Path) -> Path:
    """Every decision about the champion, a line each, never changed."""
    return home / "state" / "champion.jsonl"


def record_decision(home: Path, action: str, **facts: Any) -> None:
    """Add a decision to the ledger: `promoted`, `kept` or `followed` (somebody moved the alias)."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    append_line(ledger_path(home), {"at": now, "action": action, **facts})


def last_champion(home: Path) -> Mapping[str, Any] | None:
    """The last line of the ledger that says who the champion is."""
    lines = read_lines(ledger_path(home))
    return lines[-1] if lines else None


def export_weights(source: Path, target: Path) -> None:
    """Copy weights and their digest to a fixed name, unless they are there already."""
    sha256 = sha256_file(source)
    if target.is_file() and sha256_file(target) == sha256:
        return
    # Without a digest for a moment rather than with that of another file, which would be refused.
    target.with_name(target.name + ".sha256").unlink(missing_ok=True)
    write_bytes(target, source.read_bytes())
    write_text(target.with_name(target.name + ".sha256"), f"{sha256}  {target.name}\n")


def empty_folder(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
