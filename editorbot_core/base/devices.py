"""Which device to compute on, and sums over the processes that train together (torchrun)."""

import os
from dataclasses import dataclass

import torch
from torch import distributed, nn

from editorbot_core.base.console import check_device
from editorbot_core.base.errors import ParameterError


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """`value` summed over all processes, in place; unchanged if there is only one."""
    if is_distributed():
        distributed.all_reduce(value)
    return value


def least_over_processes(value: int, device: torch.device) -> int:
    """The smallest `value` of any process."""
    if not is_distributed():
        return value
    shared = torch.tensor(value, device=device)
    distributed.all_reduce(shared, op=distributed.ReduceOp.MIN)
    return int(shared)


def sum_gradients(policy: nn.Module) -> None:
    """Add up the gradients of all processes; every process must have divided its loss by the common count."""
    if not is_distributed():
        return
    for parameter in policy.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


@dataclass(frozen=True)
class Process:
    """This process among those that train together; ranks count from 0."""

    rank: int
    n_processes: int

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


def join_processes(device: str) -> Process:
    """Join torchrun's group of processes; without torchrun, this process is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Process(0, 1)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Process(distributed.get_rank(), distributed.get_world_size())


def local_device(name: str) -> str:
    """The device of this process: under torchrun each takes the CUDA device of its local rank."""
    local_rank = os.environ.get("LOCAL_RANK")
    device = resolve_device(name)
    return f"cuda:{local_rank}" if device == "cuda" and local_rank is not None else device


def resolve_device(name: str) -> str:
    """The device that `name` asks for: `cpu`, `cuda` or `cuda:N`; `auto` is CUDA if this machine has it, else the CPU.

    Raises:
        ParameterError: If the name is not a device, or this machine lacks the CUDA device.
    """
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = int(name.partition(":")[2] or 0)
        if index >= count:
            there = "no usable CUDA device" if count == 0 else f"{count} CUDA devices, numbered from 0"
            raise ParameterError(f"--device {name}: this machine has {there}; use --device cpu")
    return name
