"""The products of two activations in a run of a model, such as those of attention, and their live operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ATTENTION = "scaled_dot_product_attention"
MATRICES = {"matmul": 0, "__matmul__": 0, "bmm": 0, "baddbmm": 1}  # where the first factor stands


class ActivationProducts(TorchFunctionMode):
    """Notes each product of two activations while the model runs, and counts the live operations after the gradients.

    In a product of matrices, a row, a column, or a pair of a column and a row that are multiplied is live if a gradient
    comes through it. So the product of the queries and keys of a dead head, and that of its attention and values, count
    nothing. ActivationProducts that torch computes inside other functions, such as ``einsum``, are not seen.

    Examples:
        >>> x = torch.ones(2, 3, 4, requires_grad=True)
        >>> with ActivationProducts() as products:
        ...     y = (x @ x.mT)[..., :2]  # 2 samples, 3 rows, 4 products each, 2 columns that are read
        >>> y.sum().backward()
        >>> products.flops, products.live
        (144, 96)
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self._live: list[Callable[[], int]] = []

    @property
    def live(self) -> int:
        """The operations through which a gradient came."""
        return sum(count() for count in self._live)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        first = MATRICES.get(name, 0)
        factors = args[first : first + 2] if name in MATRICES else args[:3] if name == ATTENTION else ()
        if not factors or not all(map(_is_activation, factors)):
            return func(*args, **kwargs)
        factors = [x.view_as(x) for x in factors]  # a gradient that comes through a view is of this product alone
        output = func(*args[:first], *factors, *args[first + len(factors) :], **kwargs)
        a, b, y = _Read(factors[0]), _Read(factors[1]), _Read(output)
        if name == ATTENTION:
            size = factors[1].shape[-2]
            self.flops += 2 * size * (factors[0].numel() + output.numel())
            self._live.append(lambda: 2 * size * a.shape[-2] * int(a.columns.sum() + y.columns.sum()))
        else:
            self.flops += 2 * output.numel() * a.shape[-1]
            self._live.append(lambda: 2 * int((y.height * y.width * (a.columns & b.rows).sum(-1)).sum()))
        return output


class _Read:
    """The rows and the columns of a tensor through which a gradient comes."""

    def __init__(self, x: Tensor) -> None:
        self.shape, self.rows, self.columns = x.shape, _none(x.shape[:-1]), _none((*x.shape[:-2], x.shape[-1]))
        hooked: Any = x
        hooked.register_hook(self._note)

    def _note(self, grad: Tensor) -> None:
        read = (grad != 0).cpu()
        self.rows, self.columns = read.any(-1), read.any(-2)

    @property
    def height(self) -> Tensor:
        """The number of rows of each matrix."""
        return self.rows.sum(-1)

    @property
    def width(self) -> Tensor:
        """The number of columns of each matrix."""
        return self.columns.sum(-1)


def _none(shape: Sequence[int]) -> Tensor:
    return torch.zeros(tuple(shape), dtype=torch.bool)


def _is_activation(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and x.dim() > 1
