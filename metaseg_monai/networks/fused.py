"""A whole gate as one autograd node: few passes over the image, at most one new tensor each way.

In training the price of a gate is neither its weights nor its products but its passes over the
pixels and, above all, the image-sized tensors that it allocates. Written out in plain operations
a gate makes two in the forward pass and three in the backward pass. Here

- the mean is a sum in the image's own type (accumulated in float32), then divided: on a CPU,
  `mean` first makes a float32 copy of a bfloat16 image. For large channels-last images the sum is
  a matrix product with a row of ones: `sum` shares out the channels among the cores, so that each
  core reads the pixels that another one has just written;
- the gradient of the scale, sum(g * x), is formed in the tensor that then takes dx;
- a scale-only gate after a ReLU works in place: since its scale is above 0, its output
  y = relu(x) * s still tells where x was positive, and sum(g * relu(x)) = sum(g * y) / s.

The gradient is exact to rounding. A second derivative is refused.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MANY_PIXELS = 128 * 128  # from here on the matrix product was the faster sum on two cores

Excite = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


def fusible(x: Tensor) -> bool:
    """Whether `x` (B, C, *S) can take the fused path: eager mode, dense in a usual layout."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    if tracing or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return False
    if torch._C._are_functorch_transforms_active():  # torch.func.grad, vmap ...
        return False
    return x.is_floating_point() and x.numel() > 0 and (x.is_contiguous() or _channels_last(x))


def fused_gate(
    x: Tensor,
    meta: Tensor,
    excite: Excite,
    parameters: tuple[Tensor, ...],
    squeeze: bool,
    rectify: bool,
) -> Tensor:
    """Return x * scale + shift with (scale, shift) = excite(mean of x, meta).

    Args:
        x: features (B, C, *S), contiguous or channels-last (see `fusible`).
        meta: encoded metadata (B, M), where M may be 0.
        excite: gives scale (B, C) and shift (B, C) or None from (z, meta).
        parameters: the weights that `excite` uses.
        squeeze: whether `excite` wants z, the mean of x over the pixels (B, C); if not,
            it gets an empty (B, 0).
        rectify: first replace x by relu(x) and work in place: x is overwritten. Only for an
            `excite` whose scale is above 0 and which gives no shift.
    """
    tracked = torch.is_grad_enabled()
    return _FusedGate.apply(x, meta, excite, squeeze, rectify, tracked, *parameters)


class _FusedGate(torch.autograd.Function):
    """The node of `fused_gate`; the graph of `excite`, on vectors only, lives inside it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        meta: Tensor,
        excite: Excite,
        squeeze: bool,
        rectify: bool,
        tracked: bool,
        *parameters: Tensor,
    ) -> Tensor:
        if rectify:
            x.relu_()
            ctx.mark_dirty(x)
        z = x.new_empty((x.shape[0], 0))
        if squeeze:
            pixels, axis = _pixels(x, _channels_last(x))
            z = (_pixel_sum(pixels, axis) / pixels.shape[axis]).to(x.dtype)
        with torch.set_grad_enabled(tracked):
            z.requires_grad_(tracked and squeeze)
            entries = meta.detach().requires_grad_(tracked and meta.requires_grad)
            scale, shift = excite(z, entries)
            scale = scale.to(x.dtype)
            shift = None if shift is None else shift.to(x.dtype)
        y = x if rectify else torch.empty_like(x)
        space = (1,) * (x.dim() - 2)
        s = scale.detach().view(scale.shape + space)
        if shift is None:
            torch.mul(x, s, out=y)
        else:
            torch.addcmul(shift.detach().view(shift.shape + space), x, s, out=y)
        if tracked:
            ctx.save_for_backward(y if rectify else x)
            ctx.rectify = rectify
            ctx.inner = (z, entries, scale, shift, parameters)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a fused gate has no second derivatives (create_graph=True): set fused = False on "
                "the network's gates, its modules of type ChannelGate"
            )
        (image,) = ctx.saved_tensors
        z, entries, scale, shift, parameters = ctx.inner
        channels_last = _channels_last(image)
        x, axis = _pixels(image, channels_last)
        g, _ = _pixels(gradient, channels_last)

        dx = torch.mul(g, x, out=torch.empty_like(x))
        dscale = _pixel_sum(dx, axis)
        if ctx.rectify:  # x holds y = relu(x) * s
            dscale = dscale / scale.detach().clamp_min(torch.finfo(scale.dtype).tiny)
        given = (
            [(scale, dscale)] if shift is None else [(scale, dscale), (shift, _pixel_sum(g, axis))]
        )
        inputs = [z, entries, *parameters]
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(_gradients(given, wanted))
        dz, dmeta, *dparameters = [next(found) if t.requires_grad else None for t in inputs]

        s = scale.detach().unsqueeze(axis)
        if dz is None:
            torch.mul(g, s, out=dx)
        else:
            torch.addcmul((dz / x.shape[axis]).unsqueeze(axis), g, s, out=dx)
        if ctx.rectify:
            torch.ops.aten.threshold_backward.grad_input(dx, x, 0, grad_input=dx)
        shape = image.movedim(1, -1).shape if channels_last else image.shape
        dx = dx.view(shape).movedim(-1, 1) if channels_last else dx.view(shape)
        return dx, dmeta, None, None, None, None, *dparameters


def _gradients(given: list[tuple[Tensor, Tensor]], wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Carry the gradients of `excite`'s outputs to what it was made of."""
    if not wanted:
        return ()
    outputs, gradients = zip(*((o, d.to(o.dtype)) for o, d in given), strict=True)
    return torch.autograd.grad(outputs, wanted, gradients, retain_graph=True)


def _channels_last(x: Tensor) -> bool:
    if x.dim() == 4:
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d)


def _pixels(x: Tensor, channels_last: bool) -> tuple[Tensor, int]:
    """Lay the pixels of x (B, C, *S) out in one axis: (B, N, C) and 1, or (B, C, N) and 2."""
    if channels_last:
        return x.movedim(1, -1).flatten(1, -2), 1
    return x.flatten(2), 2


def _pixel_sum(pixels: Tensor, axis: int) -> Tensor:
    """Sum over the pixels: (B, C)."""
    if pixels.dtype == torch.float16:  # overflows at 65504
        return pixels.sum(axis, dtype=torch.float32)
    if axis == 1 and pixels.device.type == "cpu" and pixels.shape[1] >= MANY_PIXELS:
        ones = pixels.new_ones((pixels.shape[0], 1, pixels.shape[1]))
        with torch.autocast("cpu", enabled=False):  # it would round a float32 image to bfloat16
            return torch.bmm(ones, pixels).squeeze(1)
    return pixels.sum(axis)
