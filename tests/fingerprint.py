"""What the whole chain computes on demo songs, to compare two versions of the code that should compute the same.

    python tests/fingerprint.py take FOLDER                      # of this checkout
    python tests/fingerprint.py take FOLDER --checkout OTHER     # of another one, with this environment
    python tests/fingerprint.py compare FOLDER FOLDER

`take` composes songs, runs the main job with few steps of PPO and DPO, and edits the held-out songs at 0.5 and 1.3 of
their length. It uses commands and files that users know and nothing else of EditorBot, so that it runs on any version.
`compare` holds weights against each other with `torch.equal` and edits by their segments and actions; exit status 1
if anything differs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

N_SONGS = 12
KEEP_RATIOS = (0.5, 1.3)
SETTINGS = {
    "total_steps": 24_000,
    "n_pairs": 60,
    "reward.epochs": 6,
    "warm_start.n_steps": 60,
    "ppo.n_steps": 8_192,
    "dpo.epochs": 2,
}
# Sums of floating-point numbers depend on how they are divided among threads.
FIXED_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def _call(checkout: Path, home: Path, *arguments: str) -> None:
    """One command of the checkout, in the environment of this process."""
    environment = os.environ | FIXED_THREADS | {"PYTHONPATH": str(checkout), "EDITORBOT_HOME": str(home)}
    subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, check=True)


def take(folder: Path, checkout: Path) -> None:
    """Write weights to `folder`/weights and edit decision lists to `folder`/edits; both are replaced."""
    for part in ("weights", "edits"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        home, songs = Path(temporary, "home"), Path(temporary, "songs")
        _call(checkout, home, "-m", "pipelines.cli", "demo", str(songs), "--n_songs", str(N_SONGS))
        changes = [text for name, value in SETTINGS.items() for text in ("--set", f"{name}={value}")]
        _call(checkout, home, "-m", "pipelines.cli", "run", "--songs", str(songs), *changes)
        for path in sorted((home / "models").glob("*.pt")):
            name = re.sub(r"-[0-9a-f]{12}$", "", path.stem)
            shutil.copy(path, folder / "weights" / f"{name}.pt")
        for path in sorted((home / "renders" / "edited_songs").glob("*.json")):
            shutil.copy(path, folder / "edits" / f"pipeline-{path.name}")
        held_out = {json.loads(path.read_text())["source"]["path"] for path in (folder / "edits").glob("*.json")}
        for song in sorted(Path(path) for path in held_out):
            for keep in KEEP_RATIOS:
                edl = folder / "edits" / f"{song.stem}-{keep}.json"
                arguments = ("--keep", str(keep), "--device", "cpu", "--edl", str(edl.resolve()))
                output = Path(temporary, "edited.wav")
                _call(
                    checkout, home, "-m", "editorbot_core.infer", "--audio", str(song), "--output", str(output),
                    *arguments,
                )  # fmt: skip


def _same(first: Any, second: Any) -> bool:
    """Whether two loaded tensor files hold the same."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(value, second[name]) for name, value in first.items())
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and first == second


def _edit(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    return {name: document.get(name) for name in ("segments", "actions")}


def compare(first: Path, second: Path) -> list[str]:
    """Names of what differs, or is in one fingerprint alone."""
    different = []
    for pattern, load in (
        ("weights/*.pt", lambda path: torch.load(path, map_location="cpu", weights_only=True)),
        ("edits/*.json", _edit),
    ):
        names = sorted({str(path.relative_to(root)) for root in (first, second) for path in root.glob(pattern)})
        for name in names:
            paths = first / name, second / name
            if not all(path.is_file() for path in paths):
                different.append(f"{name}: in one of them alone")
            elif not _same(load(paths[0]), load(paths[1])):
                different.append(f"{name}: differs")
        sys.stdout.write(f"{len(names)} files {pattern} compared\n")
    return different


def main() -> int:
    """Take a fingerprint, or compare two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("take")
    taking.add_argument("folder", type=Path)
    taking.add_argument("--checkout", type=Path, default=Path(__file__).resolve().parents[1])
    comparing = commands.add_parser("compare")
    comparing.add_argument("folders", type=Path, nargs=2)
    arguments = parser.parse_args()
    if arguments.command == "take":
        take(arguments.folder, arguments.checkout.resolve())
        return 0
    different = compare(*arguments.folders)
    sys.stdout.write("".join(f"{line}\n" for line in different) or "equal\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
