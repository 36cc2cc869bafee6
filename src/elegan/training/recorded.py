"""A training step on a GPU, recorded once and replayed: one launch in place of hundreds.

A step of small networks is hundreds of small kernels, and a GPU is done with each before Python has launched the next.
A CUDA graph holds them all. It holds numbers, too: what differs from step to step must come from the device. So the
batches are copied to where the recorded step reads them, the clock is two tensors there, rates are tensors that the
step itself fills, and random numbers come from torch's generator, whose seed a replay reads anew. A step that does what
cannot be recorded runs as it is written.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from elegan.families.base import Batch, Clock, Family
from elegan.training.engine import Engine

PLAIN_FIRST = 3  # steps of a form before it is recorded: libraries choose their kernels, optimisers make their state
READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "is_nonzero")  # waits for a GPU


def steps_to_warm_up(engine: Engine) -> int:
    """How many steps to leave out before steps are timed."""
    return PLAIN_FIRST + 1 if engine.device.type == "cuda" else 2


class Recorded:
    """`model.step` under the engine, recorded for each of the model's forms. `trouble` says why it is not."""

    def __init__(self, model: Family, engine: Engine) -> None:
        self.model, self.engine = model, engine
        self.trouble: str | None = None
        self.graphs: dict[Hashable, Callable[[Sequence[Batch], Clock], dict[str, Tensor]]] = {}
        self.met = Counter[Hashable]()
        self.rates: list[Tensor] = []  # what recorded steps read must live as long as they do

    def __call__(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        """One step on these batches; the random numbers are those that are due now."""
        form = self.model.form(clock)
        self.met[form] += 1
        if form is not None and self.met[form] > PLAIN_FIRST and form not in self.graphs and not self.trouble:
            self.try_to_record(form, batches, clock)
        if form in self.graphs:
            return self.graphs[form](batches, clock)
        with kept_in_place(self.model):  # other forms may be recorded already, and read what is there
            return self.plainly(batches, clock)

    def try_to_record(self, form: Hashable, batches: Sequence[Batch], clock: Clock) -> None:
        """Record a form, or say why not; weights and random numbers stay as they were."""
        device = self.engine.device
        stream, random = torch.cuda.current_stream(device), torch.cuda.get_rng_state(device)
        try:
            self.graphs[form] = self.record(batches, clock)
        except Exception as error:  # whatever a library says of what cannot be recorded
            self.trouble = " ".join(str(error).split())[:150]
            warnings.warn(f"steps are not recorded, and take longer: {self.trouble}", stacklevel=3)
            torch.cuda.set_stream(stream)
            torch.cuda.synchronize(device)
        torch.cuda.set_rng_state(random, device)

    def plainly(self, batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
        """One step as it is written."""
        with self.engine.context():
            return self.model.step(batches, clock)

    def record(self, batches: Sequence[Batch], clock: Clock) -> Callable[[Sequence[Batch], Clock], dict[str, Tensor]]:
        """Record a step of this clock's form. The weights stay as they are: nothing is computed yet."""
        inputs = [Batch(images.clone(), None if y is None else y.clone()) for images, y in batches]
        seen, total = (torch.zeros((), dtype=torch.float64, device=self.engine.device) for _ in range(2))
        now: Any = Clock(seen, total, (clock.seen, clock.total))  # type: ignore[arg-type]
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(graph, capture_error_mode="thread_local")
        with on_the_device(self.model, self.engine.device) as rates, recording, kept_in_place(self.model), Hostless():
            logs = self.plainly(inputs, now)
        self.rates += rates
        own = [tensor for batch in inputs for tensor in batch if tensor is not None] + [seen, total]

        def replay(batches: Sequence[Batch], clock: Clock) -> dict[str, Tensor]:
            given = [value for batch in batches for value in batch if value is not None] + [clock.seen, clock.total]
            for tensor, value in zip(own, given, strict=True):
                tensor.copy_(value) if isinstance(value, Tensor) else tensor.fill_(value)
            graph.replay()
            return {name: value.clone() for name, value in logs.items()}

        return replay


class Hostless(TorchDispatchMode):
    """Raises RuntimeError where a step reads a value or works on the host: a replay would do neither anew."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.split("::")[1] in READS:  # before it is done, which would spoil the recording
            raise RuntimeError(f"{func} waits for a value")
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and value.device.type == "cpu":
                raise RuntimeError(f"{func} makes a tensor on the host")
        return out


@contextmanager
def on_the_device(model: Family, device: torch.device) -> Iterator[list[Tensor]]:
    """Within the block optimisers take their rates from tensors there, which a recorded step fills; these tensors."""
    optimizers = model.parts.optimizers.values()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [(group["lr"], group.get("capturable")) for group in groups]
    for group in groups:
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)
        group["capturable"] = True
    for state in (state for optimizer in optimizers for state in optimizer.state.values() if "step" in state):
        state["step"] = state["step"].to(device)
    try:
        yield [group["lr"] for group in groups]
    finally:
        for group, (rate, capturable) in zip(groups, before, strict=True):
            group["lr"], group["capturable"] = rate, capturable


@contextmanager
def kept_in_place(model: Family) -> Iterator[None]:
    """Values that the model replaces within the block are written into what was there: that is what a replay reads."""
    values = model.parts.values
    before = dict(values)
    try:
        yield
        for name, old in before.items():
            if values[name] is not old:
                old.copy_(values[name])
    finally:
        values |= before
