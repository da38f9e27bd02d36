"""An experiment: the options of a run, and the data, the model and the optimizer that they define."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

import torchlasso
from torchlasso import models
from torchlasso._core.functions import is_function_name
from torchlasso._core.memory import need_memory
from torchlasso._core.specs import parse_spec
from torchlasso.compaction import Shrinker
from torchlasso.control import Hold, Reweighted, TargetBudget, TargetCount, TargetSparsity
from torchlasso.control.live_blocks import count_all
from torchlasso.integrations.pretrained import build_network
from torchlasso.models.categories import EmbeddedCategories
from torchlasso.optim import Proximal, proximal
from torchlasso.path import Recipe
from torchlasso.penalties import L1
from torchlasso.penalties.blocks import Blocks
from torchlasso.runs import choices
from torchlasso.runs.model_blocks import INPUTS, UNITS, blocks_in
from torchlasso.runs.options import COMPARISONS, LOSS_TERM, Options
from torchlasso.runs.path_options import EPOCHS_EACH, STEPS_EACH, PathOptions
from torchlasso.runs.rows import InputSpec
from torchlasso.runs.training import Training
from torchlasso.selection import Group, Rule, param_groups, penalty
from torchlasso.training.distillation import Distillation
from torchlasso.training.input_dropout import InputDropout
from torchlasso.training.losses import Loss
from torchlasso.training.plan import Plan
from torchlasso.training.refit import freeze_zeros
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.rows import InputRows
from torchlasso.training.trainer import Term, Trainer
from torchlasso.training.word_dropout import WordDropout
from torchlasso.weights import weights_of

KnownRows = tuple[InputRows, Tensor]  # inputs and targets

OURS, REFIT = "torchlasso", "refit"
PARTS = (*COMPARISONS, REFIT)  # folders inside the folder of a run
REFIT_RATE = 0.3  # the initial learning rate of a refit, relative to that of the training
ACTIVATIONS = 16  # a lower bound for the numbers that a model computes per input
LENGTH = 32  # words of a random text where the typical number is not known
EXAMPLES = 64  # rows on which the cost of a model is measured


@dataclass(frozen=True)
class Experiment:
    """The options, and the description of inputs needed to use the trained model; ``config.json`` stores both."""

    options: Options
    inputs: InputSpec
    versions: dict[str, str] = field(
        default_factory=lambda: {"torchlasso": torchlasso.__version__, "torch": torch.__version__}
    )

    @property
    def loss(self) -> Loss:
        """The loss given by the options, or chosen by the targets."""
        return choices.parse_loss(self.options.loss, bool(self.inputs.classes), self.inputs.is_survival)

    def build_model(self, *, weights: bool = True) -> nn.Module:
        """Build a new model, with initial weights that depend on the seed only, and on the pretrained model if any.

        ``weights``: whether to read those of the pretrained model; without, all are random.
        """
        text, pretrained = self.options.model, self.options.pretrained
        if pretrained is not None:
            torch.manual_seed(self.options.seed)
            shift = 0 if self.inputs.text is None else int(self.inputs.text.tokenizer != pretrained.tokenizer)
            network = build_network(pretrained, self.inputs.classes, weights=weights, shift=shift)
            return network.to(choices.parse_device(self.options.device))
        name, model_options = (text, {}) if is_function_name(text) else parse_spec(text)
        torch.manual_seed(self.options.seed)

        def build(shape: tuple[int, ...]) -> nn.Module:
            return models.build(name, shape, self.inputs.outputs, **model_options)

        if rows := self.inputs.embedded:
            model: nn.Module = EmbeddedCategories(self.inputs.shape[0], rows, lambda inputs: build((inputs,)))
        else:
            model = build(self.inputs.shape)
        return model.to(choices.parse_device(self.options.device))

    @property
    def example(self) -> Tensor:
        """Random rows on which the model can run."""
        if self.inputs.text is not None:
            length, words = self.inputs.shape
            return self._random_texts(min(length, self.inputs.text.typical or LENGTH), words)
        shape = (2, *self.inputs.shape)
        need_memory(4 * ACTIVATIONS * math.prod(shape), f"running a model on inputs of shape {shape}")
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(shape, generator=generator)
        for place, count in self.inputs.embedded.items():
            rows[:, place] = torch.randint(count, (len(rows),), generator=generator).float()
        return rows.to(choices.parse_device(self.options.device))

    def _random_texts(self, length: int, words: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(min(1, words - 1), words, (2, length), generator=generator)
        return rows.to(choices.parse_device(self.options.device))

    def groups(self, model: nn.Module, lam: float | None = None) -> list[Group]:
        """Make the parameter groups of ``model`` with the penalty of the options, and their λ unless another is given.

        If the target is a cost, the last layer is not penalised, since its units are the outputs. If the target is in
        FLOPs, units are penalised in proportion to their FLOPs.
        """
        options = self.options
        defaults: dict[str, dict[str, Any]] = {UNITS: {"by": "size" if options.flops is None else "flops"}}
        if self.inputs.encoding is not None:
            defaults[INPUTS] = {"groups": self.inputs.encoding.groups_of_several}

        def of_model(name: str, **given: Any) -> Blocks:
            return blocks_in(name, model, self.example, **{**defaults.get(name, {}), **given})

        rules = [Rule("*", choices.parse_penalty(options.penalty, options.over, of_model))]
        weights = [name for name, _, _ in weights_of(model)]
        if len(weights) > 1 and (options.flops is not None or options.bytes is not None):
            rules.insert(0, Rule(lambda name, *_: name == weights[-1], None))
        return param_groups(model, rules, lam=options.lam if lam is None else lam)

    def marked(self, model: nn.Module) -> list[Group]:
        """Return the parameters of a trained model, which may be smaller by now, in groups that mark the penalised."""
        full = self.build_model(weights=False)
        names = {p: name for name, p in full.named_parameters()}
        kept = dict(model.named_parameters())
        return [
            {"params": [kept[names[p]] for p in group["params"]], "penalty": group["penalty"] and L1(), "lam": 0.0}
            for group in self.groups(full, 0.0)
        ]

    def proximal(self, groups: list[Group]) -> Proximal:
        """Make the proximal optimizer of the options for these groups."""
        base, extra = choices.parse_optimizer(self.options.optimizer)
        return proximal(base)(groups, lr=self.options.lr, form=self.options.form, **extra)

    def trainer(
        self,
        model: nn.Module,
        rows: KnownRows,
        teacher: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Training:
        """Make the training of ``model`` with a proximal optimizer and the controllers of λ in the options.

        If a teacher's outputs for the rows are given, ``model`` also learns from them. ``weights`` are those of the
        rows, here and in the other methods.
        """
        options, optimizer = self.options, self.proximal(self.groups(model))
        trainer = self._trainer(model, optimizer, rows, options.plan, self._taught(teacher), weights)
        first = trainer.batches * options.epochs  # without epochs that were added
        hold = Hold(optimizer, first, options.hold) if options.hold else None
        steps = first if hold is None else hold.start
        if options.sparsity is not None:
            trainer.controls.append(TargetSparsity(optimizer, options.sparsity, steps=steps))
        if options.flops is not None or options.bytes is not None:
            budget = TargetBudget(
                optimizer,
                model,
                self._costed(rows[0]),
                flops=options.flops,
                bytes=options.bytes,
                steps=steps,
            )
            trainer.controls.append(budget)
        if options.features is not None:
            trainer.controls.append(TargetCount(optimizer, features=self._features(optimizer), steps=steps))
        if options.reweight:
            trainer.controls.append(Reweighted(optimizer, theta=options.reweight))
        if hold is not None:
            trainer.controls.append(hold)
        if options.shrink:
            trainer.shrinker = Shrinker(model, self.example)
        is_settled = bool(options.extensions) and options.target is not None and hold is None
        return Training(trainer, optimizer.penalised_groups, options.epochs if is_settled else None)

    def _costed(self, rows: InputRows) -> Tensor:
        """Return some of the rows; texts have the length of the example on which a compacted model is measured, too."""
        first = rows[:EXAMPLES]
        return first if self.inputs.text is None else pad(first, (0, self.example.shape[1] - first.shape[1]))

    def _features(self, optimizer: Proximal) -> int:
        """Return the target for the number of features, which may be given as a share."""
        wanted = float(self.options.features or 0)
        every = sum(sum(count_all(group["penalty"], group["params"])) for group in optimizer.penalised_groups())
        return int(wanted) if wanted >= 1 else max(1, int(wanted * every))

    def recipe(self, path: PathOptions, rows: KnownRows, weights: Tensor | None = None) -> Recipe:
        """Make the recipe for the points of a path that are trained on these inputs and targets."""
        plan = self.options.plan
        batches = max(1, len(rows[0]) // plan.batch_size)
        return Recipe(
            grid=path.grid,
            groups=lambda model: self.groups(model, 1.0),
            optimizer=self.proximal,
            loss=self.loss,
            dense=plan,
            each=replace(plan, epochs=path.epochs_each or max(EPOCHS_EACH, math.ceil(STEPS_EACH / batches))),
            theta=self.options.reweight or None,
            hold=self.options.hold or None,
            lam=self.options.lam,
            lr_growth=path.lr_growth,
            collapse=path.collapse,
            regularisation=self.regularisation(rows, weights),
        )

    def compared(
        self,
        name: str,
        model: nn.Module,
        rows: KnownRows,
        lam: float,
        weights: Tensor | None = None,
    ) -> Training:
        """Make the training with torch's own optimizer: with the plain loss term at ``lam``, or without a penalty."""
        groups = self.groups(model, lam if name == LOSS_TERM else 0.0)
        term = (lambda *_: penalty(groups)) if name == LOSS_TERM else None
        trainer = self._trainer(model, self._plain(groups), rows, self.options.plan, term, weights)
        return Training(trainer, lambda: groups)

    def refit(
        self,
        model: nn.Module,
        rows: KnownRows,
        teacher: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Training:
        """Make the training of ``model`` without a penalty and with frozen zeros."""
        plan, groups = replace(self.options.plan, epochs=self.options.refit or 0), self.marked(model)
        optimizer = self._plain(groups, REFIT_RATE)
        freeze_zeros(optimizer, (p for group in groups if group["penalty"] for p in group["params"]))
        trainer = self._trainer(model, optimizer, rows, plan, self._taught(teacher), weights)
        return Training(trainer, lambda: groups)

    def regularisation(self, rows: KnownRows, weights: Tensor | None = None) -> Regularisation:
        """Make the regularisation of the options, and the loss to minimise, for a training on these rows."""
        options, (x, y) = self.options, rows
        transforms = [choices.parse_augmentation(text, x) for text in options.augment]
        if options.input_dropout:
            if self.inputs.embedded:
                raise ValueError("--input-dropout does not go with --encoding embedding: categories have no background")
            is_text = self.inputs.text is not None
            dropout = WordDropout if is_text else partial(InputDropout.fit, x)
            transforms.append(dropout(options.input_dropout))
        loss = choices.minimised_loss(
            options.loss, options.label_smoothing, options.class_weight, y, len(self.inputs.classes)
        )
        if weights is None:
            return Regularisation(transforms, loss)
        return Regularisation(transforms, loss, choices.weighted_loss(weights, loss or self.loss))

    def _trainer(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        rows: KnownRows,
        plan: Plan,
        extra: Term | None,
        weights: Tensor | None,
    ) -> Trainer:
        trainer = Trainer(model, optimizer, self.loss, rows, plan, extra)
        trainer.regularisation = self.regularisation(rows, weights)
        return trainer

    def _plain(self, groups: list[Group], rate: float = 1.0) -> torch.optim.Optimizer:
        base, extra = choices.parse_optimizer(self.options.optimizer)
        kept = ("params", "weight_decay")
        plain: list[Group] = [{key: group[key] for key in kept if key in group} for group in groups]
        return base(plain, lr=rate * self.options.lr, **extra)  # type: ignore[call-arg]

    def _taught(self, teacher: Tensor | None) -> Distillation | None:
        return None if teacher is None else Distillation(teacher, classes=bool(self.inputs.classes))
