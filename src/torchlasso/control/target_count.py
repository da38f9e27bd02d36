"""A target for the number of live blocks."""

from __future__ import annotations

from typing import Any

from torchlasso._core.arguments import check_whole, only_given
from torchlasso.control.least_left import count_layers, count_spared, names_of_sparing
from torchlasso.control.live_blocks import count_all
from torchlasso.control.target_sparsity import TargetSparsity
from torchlasso.optim import Proximal
from torchlasso.optim.controller import proximal_of


class TargetCount(TargetSparsity):
    """A search for the λ at which training ends with exactly so many live blocks: features, units, heads or rows.

    In the default form, λ is steered towards a few more. While the rate falls, the number of live blocks may not exceed
    a line that falls to the target: where it does, the blocks that the prox would make zero under the least λ become
    zero. Blocks that the loss needs come back from that, as long as the line leaves room. The last tenth of training
    holds the zeros, and the other weights move without a penalty. In the latent form, the blocks stay whose latent
    norms are largest relative to their thresholds.

    Give exactly one of the numbers. The name says which blocks it counts, and has to be that of the penalty's.

    Args:
        optimizer: the proximal optimizer.
        blocks: the number of blocks of any kind.
        features: of :class:`torchlasso.Inputs`, ``Columns`` or ``InputChannels``; a group of features counts once.
        units: of :class:`torchlasso.Units`, ``Rows`` or ``Filters``.
        heads: of ``Heads``.
        steps: the number of steps of the optimizer in the whole training.
        warmup: the share of training over which λ rises along a line.
        allow_empty: whether a layer may lose all its blocks. Features of ``Inputs`` may leave any layer.

    Raises:
        ValueError: none or several numbers are given; a number is not whole, below 1, or not below that of all blocks,
            or below that of the layers, or of the blocks that the penalty always spares; the penalty has other blocks
            than the name says.

    Warns:
        TargetMissed: at the end, if the number is not met; it says why.

    Examples:
        >>> import torch, torchlasso as tl
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(200, 10)
        >>> model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU(), torch.nn.Linear(20, 1))
        >>> inputs = tl.Inputs(model, x[:2])
        >>> optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=inputs), lam=1e-3), lr=0.01)
        >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
        >>> control = TargetCount(optimizer, features=2, steps=200)
        >>> for _ in range(200):
        ...     optimizer.zero_grad()
        ...     (model(x) - x[:, 3:4] * x[:, 7:8]).square().mean().backward()
        ...     optimizer.step()
        ...     scheduler.step()
        ...     control.step()
        >>> inputs.live(model).nonzero()[:, 0].tolist()
        [3, 7]
    """

    def __init__(
        self,
        optimizer: Proximal,
        blocks: int | None = None,
        *,
        features: int | None = None,
        units: int | None = None,
        heads: int | None = None,
        steps: int,
        warmup: float = 0.5,
        allow_empty: bool = False,
    ) -> None:
        optimizer = proximal_of(optimizer, "TargetCount")
        asked: dict[str, Any] = {"blocks": blocks, "features": features, "units": units, "heads": heads}
        name, wanted = only_given("TargetCount", asked)
        check_whole(f"TargetCount: {name}", wanted)
        groups = optimizer.penalised_groups()
        for group in groups:
            over = group["penalty"].over
            if name not in ("blocks", over.noun):
                raise ValueError(
                    f"TargetCount: {name}={wanted} for a penalty over {over}, whose blocks are {over.noun}"
                )
        sizes = [size for group in groups for size in count_all(group["penalty"], group["params"])]
        every = sum(sizes)
        if wanted >= every:
            raise ValueError(f"TargetCount: {name}={wanted} leaves nothing to remove: there are {every}")
        if wanted < (layers := count_layers(groups, sizes, allow_empty)):
            raise ValueError(
                f"TargetCount: {name}={wanted} would leave nothing for some of the {layers} layers; give at least "
                f"{layers}, or any number with allow_empty=True"
            )
        if wanted < (spared := count_spared(groups)):
            raise ValueError(
                f"TargetCount: {name}={wanted} cannot be reached: {names_of_sparing(groups)} always leaves {spared:,} "
                f"of {every:,}"
            )
        super().__init__(
            optimizer, 1 - wanted / every, steps=steps, count="blocks", warmup=warmup, allow_empty=allow_empty
        )
        self.what = f"the {name}"
        self._wanted = f"{name}={int(wanted)}"

    @property
    def described(self) -> str:
        return f"TargetCount({self._wanted})"
