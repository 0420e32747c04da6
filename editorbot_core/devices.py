"""Which device to compute on."""

import re

import torch

from editorbot_core.errors import ParameterError


def resolve_device(name: str) -> str:
    """`cpu`, `cuda` or `cuda:N`; `auto` is CUDA where there is one, else the CPU.

    Raises:
        ParameterError: If the name is no device, or CUDA is asked for where there is none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and re.fullmatch(r"cuda(:\d+)?", name) is None:
        raise ParameterError(f"--device must be cpu, cuda or cuda:N; got {name!r}")
    if name != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            there = "no usable CUDA device" if count == 0 else f"{count} CUDA devices, numbered from 0"
            raise ParameterError(f"--device {name}: this machine has {there}; use --device cpu")
    return name
