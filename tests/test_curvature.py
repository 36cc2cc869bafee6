"""Slopes whose second derivatives leave out zeros: the gradients of torch's own layers, by fewer passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from elegan.adversarial.curvature import WithoutZeros
from elegan.adversarial.penalties import slope, zero_centred
from elegan.networks.convolutions import conv
from elegan.networks.layers import spectral_norm
from elegan.networks.minibatch import MinibatchStd


def plain_slope(critic: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    x = images.detach().requires_grad_()
    logits = critic(x)
    return logits, torch.autograd.grad(logits.sum(), x, create_graph=True)[0]


class Named(nn.Module):
    """The two functions, by named arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4, 3, 3) / 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, stride=2, padding=2, dilation=2, groups=2)
        return F.leaky_relu(y, negative_slope=0.1)


# all that families put into a critic that has a penalty; some of it curves
CRITICS: dict[str, Callable[[], list[nn.Module]]] = {
    "plain": lambda: [conv(2, 4, 5, 2), nn.LeakyReLU(0.2), conv(4, 8, 4, 2), nn.LeakyReLU(0.2)],
    "named": lambda: [conv(2, 8, 3), nn.LeakyReLU(), Named()],
    "spectral": lambda: [spectral_norm(nn.Conv2d(2, 4, 3)), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3)],
    "minibatch": lambda: [conv(2, 8, 3), nn.LeakyReLU(0.2), MinibatchStd(2), conv(9, 8, 3, 2)],
    "norm": lambda: [conv(2, 8, 3, 2), nn.GroupNorm(1, 8), nn.LeakyReLU(0.2), conv(8, 8, 3), nn.Tanh()],
    "same": lambda: [nn.Conv2d(2, 4, 3, padding="same"), nn.LeakyReLU(0.2, inplace=True)],
}


@pytest.mark.parametrize("kind", list(CRITICS))
def test_gradients_are_those_of_torchs_layers(kind: str) -> None:
    """Of the penalty alone, and of a game and a penalty on the same logits, to every weight."""
    torch.manual_seed(0)
    images = torch.randn(4, 2, 9, 8)
    critic = nn.Sequential(*CRITICS[kind](), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0))
    critic(images)  # the lazy layer's size
    critic.eval()  # power iterations would move between two passes
    for game in (0.0, 1.0):
        found = []
        for way in (slope, plain_slope):
            logits, gradient = way(critic, images)
            loss = zero_centred(gradient, 3.0) + game * F.softplus(-logits).mean()
            grads = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
            found.append([logits, gradient, *(g for g in grads if g is not None and g.any())])
        assert len(found[0]) == len(found[1]) > 3
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_not_asked_for_is_not_made() -> None:
    """A penalty on a critic of three layers: there, back to the pictures, and once for what comes back and weights."""

    def calls(way: Callable[..., Any]) -> tuple[int, int]:
        first, last = nn.Conv2d(2, 4, 3), nn.Conv2d(8, 1, 4)
        critic = nn.Sequential(first, nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 3), nn.LeakyReLU(0.2), last, nn.Flatten(0))
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            zero_centred(way(critic, torch.randn(4, 2, 8, 8))[1], 1.0).backward()
        assert all(p.grad is not None and p.grad.any() for p in critic.parameters() if p.ndim > 1)
        count = {event.key: event.count for event in seen.key_averages()}
        return count["aten::convolution_backward"], count["aten::leaky_relu_backward"]

    # 3 to the pictures and 3 to the weights; 2 on each of the two ways
    assert calls(slope) == (6, 4)
    assert calls(plain_slope)[1] > 4  # torch goes through the forward graph as well


def test_elsewhere_layers_are_torchs_own() -> None:
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3, requires_grad=True)
    names = []
    for _ in range(2):
        with WithoutZeros():
            names.append(type(F.conv2d(x, weight).grad_fn).__name__)
            with torch.no_grad():
                assert F.conv2d(x, weight).grad_fn is None
        names.append(type(F.conv2d(x, weight).grad_fn).__name__)
    assert names == ["_ConvolutionBackward", "ConvolutionBackward0"] * 2
