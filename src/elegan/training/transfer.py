"""Begin with the weights of another run (`elegan train --init RUN`), and keep D's lower layers (FreezeD, Mo+ 2020).

Networks are matched by name (G, D, ...) and within them tensor by tensor, by name and shape: what has another shape,
such as the layers that know the classes, begins anew and is reported. An average without a counterpart begins as its
network. Optimisers, schedules and everything in `Parts.values` begin anew: the run is a new one.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elegan.errors import UserError
from elegan.families.base import Family
from elegan.training import checkpoint
from elegan.training.folder import RunFolder

AVERAGE = "_ema"


@dataclass(frozen=True)
class Source:
    """The networks of another run's newest good checkpoint."""

    path: str
    family: str
    images: int
    nets: dict[str, dict[str, Tensor]]

    def into(self, model: Family) -> list[str]:
        """Take over all that fits into a new model; returns one line on each network. UserError when nothing fits."""
        lines, taken = [], 0
        for name, net in model.parts.nets.items():
            known = next((self.nets[n] for n in _counterparts(name) if n in self.nets), None)
            if known is None:
                lines.append(f"{name}: not in that run, begins anew")
                continue
            own = net.state_dict()
            fitting = {key: value for key, value in own.items() if key in known and known[key].shape == value.shape}
            with torch.no_grad():
                for key, value in fitting.items():
                    value.copy_(known[key])
            taken += len(fitting)
            lines.append(f"{name}: {_told(own, fitting, known)}")
        if not taken:
            raise UserError(
                f"--init {self.path}: nothing of its {self.family} fits this {_family(model)}; start from a run of the "
                "same family, with the same widths (--preset, --set)"
            )
        return [f"weights of {self.path} ({self.family}, {self.images:,} images): {'; '.join(lines)}"]


def open_source(path: str | os.PathLike[str]) -> Source:
    """The run that another begins with. UserError when it is none, or has no checkpoint."""
    folder = RunFolder(path)
    config = folder.config()
    try:
        tensors, meta, _ = checkpoint.newest(folder.checkpoints)
    except FileNotFoundError:
        raise UserError(f"--init {path}: that run has no checkpoint yet; train it first") from None
    nets: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "nets":
            name, _, tensor = rest.partition("/")
            nets.setdefault(name, {})[tensor] = value
    return Source(str(path), config.family, int(meta["counters"]["images"]), nets)


def freeze_lower(model: Family, layers: int) -> None:
    """FreezeD: the first `layers` layers of D that have weights, and all before the next one, learn no more.

    Layers that stand beside one another, such as those of several Ds, count as one. UserError when the family has no
    network called D, or when none of its layers would be left to learn.
    """
    if "D" not in model.parts.nets:
        raise UserError(f"freeze_D: the family {_family(model)} has no single discriminator; leave it at 0")
    heights = [
        [parameter for layer in beside for parameter in layer]
        for rung in model.ladder()
        for beside in itertools.zip_longest(*(_layers(part) for part in rung), fillvalue=[])
    ]
    if layers >= len(heights):
        raise UserError(f"freeze_D={layers}: D has {len(heights)} layers; freeze at most {len(heights) - 1}")
    for height in heights[:layers]:
        for parameter in height:
            parameter.requires_grad_(False)


def _layers(net: nn.Module) -> list[list[nn.Parameter]]:
    """What learns, layer by layer with weights, in the order of construction; norms belong to the layer before."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        layer = name.split("parametrizations.")[0] if "parametrizations." in name else name.rpartition(".")[0]
        groups.setdefault(layer.rstrip("."), []).append(parameter)
    found: list[list[nn.Parameter]] = []
    for parameters in groups.values():
        if not found or (_weighty(parameters) and _weighty(found[-1])):
            found.append([])
        found[-1] += parameters
    return found


def _weighty(parameters: list[nn.Parameter]) -> bool:
    """Whether there are weights among them, and not just biases, norms and single numbers."""
    return any(p.ndim > 1 for p in parameters)


def _counterparts(name: str) -> list[str]:
    """By which names a network may be found in another run: an average also as its network, and the reverse."""
    return [name, name.removesuffix(AVERAGE) if name.endswith(AVERAGE) else name + AVERAGE]


def _told(own: dict[str, Tensor], fitting: dict[str, Tensor], known: dict[str, Tensor]) -> str:
    """`25 of 27 tensors, anew: embed.weight (5x8 here, 10x8 there)`."""
    if len(fitting) == len(own):
        return f"all {len(own)} tensors"
    anew = [key for key in own if key not in fitting]
    shown = [
        f"{key} ({_size(own[key])} here, {_size(known[key])} there)" if key in known else f"{key} (not there)"
        for key in anew[:3]
    ]
    more = f" and {len(anew) - 3} more" if len(anew) > 3 else ""
    return f"{len(fitting)} of {len(own)} tensors, anew: {', '.join(shown)}{more}"


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _family(model: Family) -> str:
    return type(model).__module__.rpartition(".")[2]
