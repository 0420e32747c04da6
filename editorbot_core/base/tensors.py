"""Files of tensors: written in one step, with a digest, and read back without running any code from the file.

A `.pt` file holds a dict of tensors and plain values (None, bool, int, float, str, lists, tuples, dicts). Beside it
`<name>.pt.sha256` holds its digest, which is checked before the file is parsed: a flipped bit in a `.pt` otherwise
loads silently as other weights.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from editorbot_core.base.errors import FormatError
from editorbot_core.base.files import sha256_file, write_bytes, write_text

MAX_BYTES = 2 * 2**30
_PLAIN = (type(None), bool, int, float, str)


def _check(value: Any, where: str, depth: int = 0) -> None:
    if depth > 16:
        raise FormatError(f"{where}: nested more than 16 levels deep")
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise FormatError(f"{where}: only strided tensors are stored, got {value.layout}")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str | int):
                raise FormatError(f"{where}: keys are strings or integers, got {type(key).__name__}")
            _check(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, f"{where}[{i}]", depth + 1)
    elif type(value) not in _PLAIN:  # a subclass would be stored as a class, which only a pickle can read
        raise FormatError(f"{where}: only tensors and plain values are stored, got {type(value).__name__}")


def digest_path(path: Path | str) -> Path:
    """Path of the digest of the `.pt` file at `path`."""
    path = Path(path)
    return path.with_name(path.name + ".sha256")


def save_tensors(path: Path | str, payload: Mapping[str, Any]) -> str:
    """Write `payload` to `path` in one step, its digest beside it; return the digest.

    Raises:
        FormatError: If the payload holds anything but tensors and plain values.
    """
    payload = dict(payload)
    _check(payload, "payload")
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    # The digest is removed first: a process killed between the two writes leaves a file without a digest, which is
    # readable, never one with a digest of something else, which would be refused.
    digest_path(path).unlink(missing_ok=True)
    write_bytes(path, buffer.getvalue())
    digest = sha256_file(path)
    write_text(digest_path(path), f"{digest}  {Path(path).name}\n")
    return digest


def load_tensors(path: Path | str, *, sha256: str | None = None) -> dict[str, Any]:
    """Read a file that `save_tensors` wrote, tensors on the CPU.

    Args:
        path: The `.pt` file.
        sha256: Digest it must have; by default the one stored beside it, if any.

    Raises:
        FormatError: If the file is missing, too large, damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such file; name an existing .pt file")
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
    beside = digest_path(path)
    if sha256 is None and beside.is_file():
        words = beside.read_text(encoding="ascii", errors="replace").split()
        sha256 = words[0] if words else ""
    found = sha256_file(path)
    if sha256 is not None and found != sha256:
        raise FormatError(f"{path}: damaged: its SHA-256 is {found[:12]}..., expected {sha256[:12]}...")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen unrelated types for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not a readable .pt file of tensors: {reason}") from error
    if not isinstance(payload, dict):
        raise FormatError(f"{path}: holds a {type(payload).__name__}, expected a dict")
    _check(payload, str(path))
    return payload


def module_digest(module: nn.Module) -> str:
    """Hexadecimal SHA-256 of the names and bytes of all weights and buffers: equal only for equal modules."""
    hasher = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hasher.update(name.encode())
        hasher.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()
