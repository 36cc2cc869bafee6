"""What keeps a step from waiting: no value is read on the host, and no command loads what it does not need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from elegan import families
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.networks import convolutions
from elegan.networks.resize import ResizeConv2d
from elegan.training.recorded import READS


class Waits(TorchDispatchMode):
    """Notes the operations for whose result a GPU's host has to wait, or every one."""

    def __init__(self, every: bool = False) -> None:
        super().__init__()
        self.every, self.found = every, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if self.every:
            self.found.append(name)
        elif name in READS:
            ours = [f for f in traceback.extract_stack() if "/elegan/" in f.filename]
            self.found.append(f"{name} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", families.names())
def test_a_step_reads_no_value_on_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's own checks its labels on a CPU, and on a GPU leaves that to the device
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda labels, classes: torch.eye(classes).long()[labels])
    family = families.get(name)
    model = family.Model(family.PRESETS["tiny"].config, ImageSpec(1, 32, 32, 10))
    n = model.config.batch
    batches = [Batch(torch.rand(n, 1, 32, 32) * 2 - 1, torch.arange(n) % 10) for _ in range(model.batches_per_step)]
    model.step(batches, Clock(0, 1000))
    with Waits() as waits:
        model.step(batches, Clock(n, 1000))
    assert not waits.found


@pytest.mark.parametrize(
    "layer",
    [
        convolutions.conv(1, 8, 5, 2),
        convolutions.up_conv(8, 1, 5, 2),
        convolutions.conv(8, 16, 4, 2),
        convolutions.up_conv(8, 8, 5, 2),
        convolutions.conv(2 * convolutions.THIN, 1, 4),
        ResizeConv2d(8, 4, 5, "nearest"),
        ResizeConv2d(16, 4, 3, "bilinear"),  # enough channels for its own form on a CPU
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_away_from_the_cpu_layers_are_the_plain_ones(layer: torch.nn.Module) -> None:
    """No small tensors of the host's on the way, for whose copies a GPU waits; `meta` stands in for one."""
    layer = layer.to("meta")
    x = torch.empty(2, next(layer.parameters()).shape[1], 8, 8, device="meta")
    if isinstance(layer, torch.nn.ConvTranspose2d):
        x = torch.empty(2, 8, 8, 8, device="meta")
    with Waits(every=True) as operations:
        layer(x)
    assert operations.found and set(operations.found) <= {
        "convolution",
        "constant_pad_nd",
        "upsample_nearest2d",
        "upsample_bilinear2d",
    }


def test_reading_a_value_would_be_noticed() -> None:
    with Waits() as waits:
        torch.ones(1).sum().item()
    assert waits.found == ["_local_scalar_dense"]


def test_sampling_does_not_load_the_compiler() -> None:
    code = """
import sys
from elegan import families
from elegan.families.base import ImageSpec
from elegan.training import trained
config = families.preset("tiny")[1].config
families.get("gan").Model(config, ImageSpec(1, 28, 28)).sample(2)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_does_not_load_the_compiler(tmp_path: Path, data: Path) -> None:
    code = """
import sys
import elegan
for preset in ("tiny", "sngan-tiny", "biggan-tiny", "progressive-tiny"):
    elegan.train(preset, sys.argv[1], f"{sys.argv[2]}/{preset}", images=16, show=False)
    for module in ("torch._dynamo", "sympy"):  # sympy comes with torch's symbolic shapes
        assert module not in sys.modules, f"{module}, by {preset}"
"""
    subprocess.run([sys.executable, "-c", code, str(data), str(tmp_path)], check=True)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimisers_without_the_compiler_step_as_torchs_own(kind: type[torch.optim.Optimizer]) -> None:
    found = []
    for step in (kind.step, kind.step.__wrapped__):  # ours; torch's, without its wrapper
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        optimizer = kind([weight], lr=0.1)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            with torch.set_grad_enabled(step is kind.step):
                step(optimizer)
        assert torch.is_grad_enabled() and weight.requires_grad and weight.grad is not None
        found.append(weight.detach().clone())
    assert torch.equal(*found) and not torch.equal(found[0], torch.linspace(-1, 1, 5))
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    with pytest.raises(RuntimeError, match="leaf Variable"):  # as torch says it: a step with a gradient
        kind([weight], lr=0.1, differentiable=True).step()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("asked", "turns"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(asked: dict[str, str], turns: str | None) -> None:
    """What libgomp itself says that it has read, where torch's threads are its: not on every system."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, elegan; print(os.environ.get('GOMP_SPINCOUNT')); import torch"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | asked | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.splitlines()[0] == str(turns)
    read = re.search(r"GOMP_SPINCOUNT = '(\w+)'", said.stderr)
    if read and turns:
        assert read[1] == turns
