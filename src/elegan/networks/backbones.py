"""Frozen networks whose maps a projected discriminator looks at (Sauer+ 2021): the user says which.

`fashion`, `digits` and `fashion-tuning` are the classifiers that the package ships for judging and for choosing by; a
`.safetensors` is another one of `scripts/train_features.py`; a TorchScript file is any network that takes float32
(N, C, H, W) in [0, 1], the pictures as they are, and returns a map (N, F, h, w) or several, from fine to coarse;
`random` is a network that has never learnt anything, for data that nothing else fits: honest, and weak. TorchScript is
a program of torch: use those you trust.
"""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from elegan.errors import UserError, nearest
from elegan.networks.classifiers import PlainClassifier, ResidualClassifier, fold

SHIPPED = ("fashion", "digits", "fashion-tuning")
NAMES = (*SHIPPED, "random")
SCRIPT = (".pt", ".pth", ".ts", ".torchscript")
WEIGHTS = Path(__file__).resolve().parents[1] / "metrics" / "weights"
LUMA = (0.299, 0.587, 0.114)


def load_backbone(name: str, channels: int) -> nn.Module:
    """images (N, C, H, W) in [-1, 1] -> list of maps, from fine to coarse. `UserError` for what is none of these."""
    with torch.device("cpu"):  # also where a model is only sized up, on no device
        return _load(name, channels).requires_grad_(False).eval()


def _load(name: str, channels: int) -> nn.Module:
    path = WEIGHTS / f"{name}.safetensors" if name in SHIPPED else Path(name)
    if name == "random":
        return RandomMaps(channels)
    if path.suffix not in (*SCRIPT, ".safetensors"):
        raise UserError(f"features={name}: unknown{nearest(name, NAMES)}, or a .safetensors or TorchScript path")
    if not path.is_file():
        raise UserError(f"features={name}: no such file; give the path of the network whose maps D is to see")
    return ClassifierMaps(read_classifier(path)) if path.suffix == ".safetensors" else ScriptMaps(_script(path))


def read_classifier(path: Path) -> nn.Module:
    """A feature classifier of `scripts/train_features.py` with its batch norms folded. `UserError` for other files."""
    from safetensors import SafetensorError, safe_open

    known = {"residual": ResidualClassifier, "plain": PlainClassifier}
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {})["card"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        net = known[card["architecture"]](int(card["classes"]))
        net.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path} is not a feature classifier of scripts/train_features.py: {why}") from None
    return fold(net.eval())


def _script(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would rather have another format; people have these files
            return torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        why = (str(error).strip().splitlines() or ["damaged"])[0][:160]
        raise UserError(f"{path} is not a TorchScript file ({why}); torch.jit.save makes one") from None


class ClassifierMaps(nn.Module):
    """The maps of a shipped classifier; colours become grey first, alpha is not seen."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images if images.shape[1] == 1 else _grey(images)  # the classifiers see [0, 1] as [-1, 1]
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4), mode="replicate")  # they halve the sides twice
        maps: list[Tensor] = []
        if isinstance(self.net, ResidualClassifier):
            for layer in (self.net.stem, *self.net.body):
                x = layer(x)
                maps.append(x)
            return maps
        for layer in self.net.body:  # type: ignore[union-attr]
            x = layer(x)
            if isinstance(layer, nn.SiLU):
                maps.append(x)
        return maps


class ScriptMaps(nn.Module):
    """The maps that a network of the user's returns for pictures in [0, 1]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        with torch.autocast(images.device.type, enabled=False):
            found = self.net(0.5 * images.float() + 0.5)
        maps = list(found.values()) if isinstance(found, dict) else [found] if isinstance(found, Tensor) else found
        if not maps or not all(isinstance(m, Tensor) and m.ndim == 4 and len(m) == len(images) for m in maps):
            told = [tuple(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
            raise UserError(f"the features network returned {told}: maps (N, F, h, w) are wanted, one or several")
        return list(maps)


class RandomMaps(nn.Module):
    """Four strided convolutions with fixed random weights, the same in every run."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        widths = [channels, width, 2 * width, 4 * width, 4 * width]
        self.layers = nn.ModuleList()
        for c_in, c_out in itertools.pairwise(widths):
            layer = nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False)
            spread = (2 / (9 * c_in)) ** 0.5  # He's: the size of values is kept
            with torch.no_grad():
                layer.weight.copy_(spread * torch.randn(layer.weight.shape, generator=generator, device="cpu"))
            self.layers.append(layer)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, x = [], images
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            maps.append(x)
        return maps


def _grey(images: Tensor) -> Tensor:
    """(N, 3 or 4, H, W) -> (N, 1, H, W)."""
    red, green, blue = (weight * images[:, i : i + 1] for i, weight in enumerate(LUMA))
    return red + green + blue
