"""Second derivatives without their zeros: layers for a critic whose slope is differentiated once more.

A convolution is linear in its input, and a leaky ReLU is but for its kink: what they pass backward does not change with
the input (only with the weights, and with the side of the kink). Torch hands this zero on as a tensor of zeros, so that
the second backward pass runs through the critic's forward graph as well, to add nothing to every weight. Within
`WithoutZeros` both layers say that there is nothing; whatever else curves (a minibatch layer, a norm) goes on being
differentiated as ever. All gradients are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

convolution_backward = torch.ops.aten.convolution_backward
leaky_relu_backward = torch.ops.aten.leaky_relu_backward


class WithoutZeros(TorchFunctionMode):
    """Within the block a critic's pass over images makes a graph for `autograd.grad(logits, images, create_graph)`.

    For the slope with respect to the images alone: a graph that is made on the way back leaves out the weights. So no
    weight may depend on the images. On a CPU; on other devices, and for what is not a plain convolution or a leaky
    ReLU, torch's own layers are taken.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        form = FORMS.get(func)
        if form is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return form(*args, **kwargs)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch's, by the same arguments."""
    if input.device.type != "cpu" or isinstance(padding, str):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    how = *(2 * [n] if isinstance(n, int) else list(n) for n in (stride, padding, dilation)), False, [0, 0], groups
    out: Tensor = _Convolution.apply(input, weight, bias, how)
    return out


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """torch's, by the same arguments, but never in place."""
    if input.device.type != "cpu":
        return F.leaky_relu(input, negative_slope)
    out: Tensor = _LeakyReLU.apply(input, negative_slope)
    return out


FORMS: dict[Any, Any] = {F.conv2d: conv2d, F.leaky_relu: leaky_relu}


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        ctx.set_materialize_grads(False)  # no gradient stays none
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.bias = how, None if bias is None else list(bias.shape)
        stride, padding, dilation, _, _, groups = how
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
        if g is None:
            return None, None, None, None
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # the slope is being made
            return (_ToInput.apply(g, weight, x, ctx.how) if ctx.needs_input_grad[0] else None), None, None, None
        return *convolution_backward(g, x, weight, ctx.bias, *ctx.how, list(ctx.needs_input_grad[:3])), None


class _ToInput(torch.autograd.Function):
    """What a convolution passes to its input: bilinear in what comes back and in the weights."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, x: Tensor, how: tuple[Any, ...]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, weight)
        ctx.how = how
        to_x: Tensor = convolution_backward(g, x, weight, None, *how, [True, False, False])[0]
        return to_x

    @staticmethod
    def backward(ctx: Any, gg: Tensor | None) -> tuple[Any, ...]:
        if gg is None:
            return None, None, None, None
        g, weight = ctx.saved_tensors
        stride, padding, dilation, _, _, groups = ctx.how
        to_g = F.conv2d(gg, weight, None, stride, padding, dilation, groups) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_g, None, None, None
        return to_g, convolution_backward(g, gg, weight, None, *ctx.how, [False, True, False])[1], None, None


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        ctx.slope = slope
        return F.leaky_relu(x, slope)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
        return (None if g is None else _Sides.apply(g, ctx.saved_tensors[0], ctx.slope)), None


class _Sides(torch.autograd.Function):
    """What comes back, by the side of the kink that x is on."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, slope: float) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        ctx.slope = slope
        passed: Tensor = leaky_relu_backward(g, x, slope, False)
        return passed

    @staticmethod
    def backward(ctx: Any, gg: Tensor | None) -> tuple[Any, ...]:
        to_g = None if gg is None else leaky_relu_backward(gg, ctx.saved_tensors[0], ctx.slope, False)
        return to_g, None, None
