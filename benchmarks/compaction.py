"""The units that compaction removes from many architectures, and the time that this saves; beside Torch-Pruning.

Breadth: in each of the architectures of tests/support, small ones with random weights, a third of the units of every
removable family is set to zero, with all that makes and reads them. What is left of the parameters, and how far the
outputs move (in float64, relative to the largest), of ``compact``; and of Torch-Pruning's dependency graph, asked to
remove the output channels whose weights and biases are all zero, layer after layer.

Speed: ResNet-50 with half of the units of every family set to zero: how long compaction takes, and the latency of what
it gives, to that of the whole model, beside the share of the operations. Torch-Pruning, which has no zeros to go by,
removes half of the channels with the smallest weights.

Transformers: BERT and ViT of the shapes of BERT-base and ViT-B, with random weights and fewer layers, which are all
alike; half of the heads and of the neurons of each MLP are zero. The time of a batch of 16, to that of the dense model,
beside the share of the operations. ``odd`` has 5 neurons fewer, so that no vector is filled, and is compacted with
``multiple_of="auto"`` as well. Times are those of the thread, in turns.

    python benchmarks/compaction.py breadth
    python benchmarks/compaction.py speed --threads 2
    python benchmarks/compaction.py transformers --layers 4
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from networks import resnet_50
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import torchlasso as tl
from torchlasso._core.running import as_arguments
from torchlasso._core.timing import clock, interleaved
from torchlasso.graph import find_units
from torchlasso.graph.axes import units_in
from torchlasso.graph.precision import DOUBLE

sys.path.append(str(Path(__file__).parents[1]))  # for the architectures that the tests have

RUNS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("breadth", "speed", "transformers"))
    parser.add_argument("--only", default="", help="breadth of the architectures with this in their names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pixels", type=int, default=224, help="height and width of ResNet-50's images")
    parser.add_argument("--layers", type=int, default=4, help="of the transformers")
    parser.add_argument("--batch", type=int, default=16, help="of the transformers")
    parser.add_argument("--channels-last", action="store_true", help="all models and images in that layout")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    if arguments.part == "breadth":
        breadth(arguments.only)
    elif arguments.part == "speed":
        speed(arguments.pixels, arguments.channels_last)
    else:
        transformers(arguments.layers, arguments.batch)


@torch.no_grad()
def zero_units_(model: nn.Module, inputs: Any, share: float) -> tuple[int, int]:
    """Set a share of the units of every removable family to zero; how many can go, and how many there are in all."""
    torch.manual_seed(0)
    units, parameters = find_units(model, inputs), dict(model.named_parameters())
    for family in units.removable:
        chosen = torch.randperm(family.size)[: int(share * family.size)]
        for name, place in family.places:
            if name in parameters:
                numbers = units_in(units.structure.parameters[name][place], family.axis)
                parameters[name].index_fill_(place, torch.isin(numbers, chosen).nonzero().flatten(), 0)
    made = [f for f in units.families if f.size > 1 and (not f.pins or any(place == 0 for _, place in f.places))]
    return sum(f.size for f in units.removable), sum(f.size for f in made)


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    args, kwargs = DOUBLE.tensors(as_arguments(inputs))
    with torch.no_grad():
        found = copy.deepcopy(model).double().eval()(*args, **kwargs)
    return [x for x in tree_leaves(found) if isinstance(x, Tensor) and x.is_floating_point()]


def moved(before: list[Tensor], after: list[Tensor]) -> float:
    pairs = zip(before, after, strict=True)
    return max(float((a - b).abs().max()) / max(1.0, float(a.abs().max())) for a, b in pairs)


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def breadth(only: str) -> None:
    from tests.support.architectures import ARCHITECTURES, FROM_TRANSFORMERS, from_transformers

    makers: dict[str, Callable[[], tuple[nn.Module, Any]]] = dict(ARCHITECTURES)
    for name, given in FROM_TRANSFORMERS.items():
        makers.setdefault(name, lambda given=given: from_transformers(*given))
    print("| architecture | units that can go | parameters left | outputs move | Torch-Pruning: left | outputs move |")
    print("|---|---|---|---|---|---|")
    for name, make in makers.items():
        if only.lower() not in name.lower():
            continue
        torch.manual_seed(0)
        model, inputs = make()
        model.eval()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.3 * torch.randn(p.shape))
            removable, every = zero_units_(model, inputs, 1 / 3)
        whole, before = parameters_of(model), outputs(model, inputs)
        cells = [f"{100 * removable / every:.0f} %" if every else "–"]
        for way in (tl.compact, by_torch_pruning):
            try:
                small = way(copy.deepcopy(model), inputs)
                cells.append(f"{100 * parameters_of(small) / whole:.1f} %")
                cells.append(f"{moved(before, outputs(small, inputs)):.0e}")
            except Exception as error:  # of whatever kind: that it fails is the result
                cells += [f"fails: {type(error).__name__}", str(error).splitlines()[0][:60] if str(error) else "–"]
        print("|", " | ".join([name, *cells]), "|", flush=True)


def by_torch_pruning(model: nn.Module, inputs: Any) -> nn.Module:
    """Return the model without the output channels whose weights and biases are zero, as Torch-Pruning finds them."""
    import torch_pruning as tp

    done: set[tuple[str, int]] = set()
    while True:  # the graph is built anew, since removal changes it
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=inputs)
        names = {module: name for name, module in model.named_modules()}
        for group in graph.get_all_groups():
            root, prune = group[0].dep.target.module, group[0].dep.handler
            idle = _idle_rows(root)
            if not idle or (names.get(root, ""), len(idle)) in done:
                continue
            done.add((names.get(root, ""), len(idle)))
            chosen = graph.get_pruning_group(root, prune, idxs=idle)
            if graph.check_pruning_group(chosen):
                chosen.prune()
                break
        else:
            return model


def _idle_rows(module: nn.Module) -> list[int]:
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        return []
    dead = module.weight.flatten(1).abs().amax(dim=1) == 0
    if module.bias is not None:
        dead &= module.bias == 0
    return dead.nonzero().flatten().tolist()


def speed(pixels: int, channels_last: bool) -> None:
    import torch_pruning as tp

    torch.manual_seed(0)
    model, x = resnet_50().eval(), torch.randn(16, 3, pixels, pixels)
    zero_units_(model, x[:1], 0.5)
    start = time.perf_counter()
    small, report = tl.compact(model, x[:1], return_report=True)
    print(
        f"compaction of ResNet-50, {pixels} pixels, {torch.get_num_threads()} threads: "
        f"{time.perf_counter() - start:.1f} s"
    )
    print(report.verdict)
    other = resnet_50().eval()
    start = time.perf_counter()
    pruner = tp.pruner.MagnitudePruner(
        other, x[:1], tp.importance.MagnitudeImportance(), pruning_ratio=0.5, ignored_layers=[other[-1]]
    )
    pruner.step()
    print(f"Torch-Pruning: {time.perf_counter() - start:.1f} s")
    if channels_last:
        model, small, other, x = (t.to(memory_format=torch.channels_last) for t in (model, small, other, x))
    print("| batch | | share of the FLOPs | latency, ms | to the whole model | FLOPs share to latency share |")
    print("|---|---|---|---|---|---|")
    for batch in (1, 16):
        times = latencies({"whole": model, "torchlasso": small, "Torch-Pruning": other}, x[:batch])
        flops = {
            name: flops_of(m, x[:1]) for name, m in (("whole", model), ("torchlasso", small), ("Torch-Pruning", other))
        }
        for name, seconds in times.items():
            share, ratio = flops[name] / flops["whole"], seconds / times["whole"]
            print(f"| {batch} | {name} | {share:.3f} | {1000 * seconds:.1f} | {ratio:.3f} | {share / ratio:.2f} |")


def flops_of(model: nn.Module, x: Tensor) -> int:
    from torchlasso.compaction.report import Totals

    return Totals.of(model, x).flops


@torch.inference_mode()
def latencies(models: dict[str, nn.Module], x: Tensor) -> dict[str, float]:
    """Return the median time of each, measured in turns, so that other work of the machine affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for run in range(RUNS + 2):
        for name, model in models.items():
            start = time.perf_counter()
            model(x)
            if run >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def bert(layers: int) -> tuple[nn.Module, Callable[[int], dict[str, Tensor]]]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(num_hidden_layers=layers)
    model = BertForSequenceClassification(config)
    return model, lambda rows: {"input_ids": torch.randint(0, config.vocab_size, (rows, 128))}


def vit(layers: int) -> tuple[nn.Module, Callable[[int], dict[str, Tensor]]]:
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig(num_hidden_layers=layers, num_labels=1000))
    return model, lambda rows: {"pixel_values": torch.randn(rows, 3, 224, 224)}


@torch.no_grad()
def halve_(model: nn.Module, more: int) -> None:
    """Make half of the heads zero, and half of the neurons of each MLP with some more."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.in_features == 768 and module.out_features in (768, 3072):
            is_mlp = module.out_features == 3072
            gone = module.out_features // 2 + more * is_mlp
            module.weight[:gone] = 0
            module.bias[:gone] = 0


def transformers(layers: int, batch: int) -> None:
    print("| model | | neurons | share of the FLOPs | ms | to the dense model | FLOPs share to time share |")
    print("|---|---|---|---|---|---|---|")
    for name, build in (("BERT-base", bert), ("ViT-B", vit)):
        torch.manual_seed(0)
        models: dict[str, nn.Module] = {}
        for way, more, multiple in (("half", 0, 1), ("odd", 5, 1), ("odd, auto", 5, "auto")):
            model, rows = build(layers)
            x = rows(batch)
            models.setdefault("dense", model.eval())
            model = copy.deepcopy(model).eval()
            halve_(model, more)
            models[way] = tl.compact(model, x if multiple == "auto" else rows(2), multiple_of=multiple)
        flops = {way: flops_of(model, x) for way, model in models.items()}
        with torch.inference_mode():
            runs = {way: partial(model, **x) for way, model in models.items()}
            times = interleaved(runs, 600, clock(torch.device("cpu")), rounds=(5, 7), slow=9)
        seconds = {way: statistics.median(each) for way, each in times.items()}
        for way, model in models.items():
            share, ratio = flops[way] / flops["dense"], seconds[way] / seconds["dense"]
            sizes = {layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)}
            neurons = max(sizes - {768, 1000})
            cells = f"{neurons} | {share:.3f} | {1000 * seconds[way]:.0f} | {ratio:.3f} | {share / ratio:.2f} |"
            print(f"| {name} | {way} | {cells}", flush=True)


if __name__ == "__main__":
    main()
