"""Operators that run along some dimensions, which are pinned, and treat the other dimensions separately."""

from __future__ import annotations

from typing import Any

from torchlasso.graph.axes import pin, pinned
from torchlasso.graph.operators import Call, OperatorRule, Reach, Shaped, all_pinned, pin_all, rule


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "argsort", "logcumsumexp",
      "flip", "roll", "cummax", "cummin")  # fmt: skip
class Along(OperatorRule):
    """Operators whose elements depend on all elements along one dimension, which is pinned."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        given = call.get("dim", call.get("dims"))
        places = [given] if isinstance(given, int) else given if given else range(len(dims))
        for place in places:
            pin(dims[place], f"{call.name} runs along it")
        return call.each(list(dims))

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        given = call.get("dim", call.get("dims"))
        places = given if given is not None else list(range(depends.dim()))
        if depends.dim() == 0:
            return depends
        spread = depends.sum(places, keepdim=True).expand(depends.shape)
        return call.each(spread)


@rule("topk")
class TopK(Along):
    """The largest elements along one dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        values, indices = super().shape(call)
        place = call.axis(max(1, len(values)))
        for dims in (values, indices):
            if dims:
                dims[place] = pinned(call.value[0].shape[place], f"made by {call.name}")
        return values, indices

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        if depends.dim() == 0:
            return call.each(depends)
        return call.each(depends.sum(call["dim"], keepdim=True).expand(call.value[0].shape))


@rule("diff")
class Difference(Along):
    """Differences of neighbours along one dimension, with optional elements before and after it."""

    def shape(self, call: Call[Shaped]) -> Any:
        for other in call.tensors[1:]:
            pin_all(other.dims, f"{call.name} runs along it")
        out = list(super().shape(call))
        place = call.axis(len(out))
        out[place] = pinned(call.value.shape[place], f"made by {call.name}")
        return out

    def reach(self, call: Call[Reach]) -> Any:
        others: Any = sum(other.depends.sum() for other in call.tensors[1:])
        return (call["self"].depends.sum(call["dim"], keepdim=True) + others).expand(call.value.shape)


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
class Fourier(OperatorRule):
    """Fourier transforms: each element depends on all elements along the transformed dimensions."""

    def shape(self, call: Call[Shaped]) -> Any:
        out, made = list(call["self"].dims), all_pinned(call.value.shape, f"made by {call.name}")
        for place in call["dim"]:
            pin(out[place], f"{call.name} runs along it")
            out[place] = made[place]
        return out

    def reach(self, call: Call[Reach]) -> Any:
        return call["self"].depends.sum(call["dim"], keepdim=True).expand(call.value.shape)


@rule("view_as_real", "view_as_complex")
class RealView(OperatorRule):
    """Views of complex numbers as real and imaginary parts along a last dimension."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        if call.name == "view_as_real":
            return [*dims, pinned(2, f"made by {call.name}")]
        return dims[:-1]

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        if call.name == "view_as_real":
            return depends[..., None].expand(call.value.shape)
        return depends.sum(-1)


@rule("reduction", "median", "nanmedian", "mode", "kthvalue")
class Reduction(OperatorRule):
    """Reductions: one element from all elements along some dimensions, which are pinned."""

    def shape(self, call: Call[Shaped]) -> Any:
        dims = call["self"].dims
        places, keep = self._places(call, len(dims)), call.get("keepdim", False)
        if not self.adds_up or call.get("ord", 0) < 0:
            for place in places:
                pin(dims[place], f"{call.name} runs over it")
        one = [
            pinned(1, "there is only one") if place in places else dim
            for place, dim in enumerate(dims)
            if keep or place not in places
        ]
        return call.each(one) if not call.several else tuple(list(one) for _ in call.value)

    def reach(self, call: Call[Reach]) -> Any:
        depends = call["self"].depends
        places = self._places(call, depends.dim())
        found = depends.sum(places, keepdim=call.get("keepdim", False)) if places else depends
        return call.each(found)

    def _places(self, call: Call[Any], rank: int) -> list[int]:
        given = call.get("dim")
        places = [given] if isinstance(given, int) else given if given else range(rank)
        return [place % rank for place in places] if rank else []


@rule("sum", "nansum", "linalg_vector_norm")
class Summation(Reduction):
    """Sums and norms, which stay the same without zeros."""

    adds_up = True
