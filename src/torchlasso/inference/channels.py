"""Layers without their zero channels."""

from __future__ import annotations

from torch import Tensor, nn

from torchlasso.inference.matrix import InferenceModule


class LiveChannels(InferenceModule):
    """A smaller layer that reads some of the input channels and computes some of the output channels.

    The other outputs are constant: their bias.

    Args:
        inner: the layer of the live channels.
        dim: the dimension of the channels in inputs and outputs, a negative index.
        inputs: the indices of the input channels that are read; None for all.
        outputs: the indices of the output channels that are computed; None for all.
        bias: the bias of all outputs, (outputs,).

    Examples:
        >>> import torch
        >>> inner = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(inner.weight, 2.0)
        >>> layer = LiveChannels(inner, -1, torch.tensor([2]), torch.tensor([0]), torch.tensor([0.0, 7.0]))
        >>> layer(torch.tensor([1.0, 10.0, 100.0]))
        tensor([200.,   7.])
    """

    inputs: Tensor | None
    outputs: Tensor | None
    bias: Tensor

    def __init__(self, inner: nn.Module, dim: int, inputs: Tensor | None, outputs: Tensor | None, bias: Tensor) -> None:
        super().__init__()
        self.inner = inner.eval().requires_grad_(False)
        self.dim = dim
        self.register_buffer("inputs", inputs)
        self.register_buffer("outputs", outputs)
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.inner(input if self.inputs is None else input.index_select(self.dim, self.inputs))
        if self.outputs is None:
            return y
        shape = list(y.shape)
        shape[self.dim] = len(self.bias)
        whole = self.bias.reshape(-1, *[1] * (-self.dim - 1)).to(y).expand(shape).contiguous()
        return whole.index_copy_(self.dim, self.outputs, y)

    def extra_repr(self) -> str:
        return f"channels={self.bias.numel()}"
