"""Devices by name, and what one process alone does."""

import pytest
import torch

from editorbot_core.base.devices import (
    Process,
    is_distributed,
    join_processes,
    least_over_processes,
    local_device,
    resolve_device,
    sum_gradients,
    sum_over_processes,
)
from editorbot_core.base.errors import ParameterError


def _with_devices(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_devices(monkeypatch, 0)
    assert resolve_device("auto") == "cpu"
    _with_devices(monkeypatch, 2)
    assert resolve_device("auto") == "cuda"


@pytest.mark.parametrize("name", ["tpu", "", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0", "cuda:0\n"])
def test_other_names_are_no_device(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _with_devices(monkeypatch, 2)
    with pytest.raises(ParameterError, match="cpu, cuda or cuda:N"):
        resolve_device(name)


def test_a_device_that_is_not_there_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_devices(monkeypatch, 2)
    assert [resolve_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    with pytest.raises(ParameterError, match="2 CUDA devices, numbered from 0"):
        resolve_device("cuda:2")
    _with_devices(monkeypatch, 0)
    with pytest.raises(ParameterError, match="no usable CUDA device; use --device cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("name", "device"), [("cuda", "cuda:3"), ("auto", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_under_torchrun_each_process_takes_the_device_of_its_rank(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str
) -> None:
    _with_devices(monkeypatch, 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device(name) == device


def test_one_process_alone_has_nothing_to_share() -> None:
    assert join_processes("cpu") == Process(0, 1)
    assert join_processes("cpu").leads
    assert not is_distributed()
    value = torch.tensor([1.0, 2.0])
    assert sum_over_processes(value) is value and value.tolist() == [1.0, 2.0]
    assert least_over_processes(7, torch.device("cpu")) == 7
    layer = torch.nn.Linear(2, 1)
    sum_gradients(layer)
    assert layer.weight.grad is None


def test_the_first_process_writes_the_files() -> None:
    assert [Process(rank, 3).leads for rank in range(3)] == [True, False, False]
