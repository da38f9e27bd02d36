"""The effect of each word on the outputs of a model, on texts of the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchlasso.runs.experiment import Experiment
from torchlasso.runs.words import words_read
from torchlasso.training.rows import InputRows, evaluation_batches

ROWS = 2000  # the most texts
CLASSES = 20  # the most classes


@dataclass(frozen=True)
class WordEffects:
    """The words that a model reads, and what each adds to the outputs of the texts that contain it.

    The effect of a word is −∂f/∂e·(0 − e): the change of an output, to first order, if the embedding e of the word were
    not zero as that of an unread word is, as the mean over the texts with the word. Of classes, the mean over the
    classes is taken from it, since only differences of outputs matter.

    Attributes:
        words: their numbers, increasing, (read,).
        strengths: the norms of their embeddings, (read,).
        texts: the number of texts with each of them, (read,).
        effects: on each output, (outputs, read); 0 for words that are in none of the texts.
    """

    words: Tensor
    strengths: Tensor
    texts: Tensor
    effects: Tensor

    def __post_init__(self) -> None:
        read = len(self.words)
        if self.effects.dim() != 2 or {len(self.strengths), len(self.texts), self.effects.shape[1]} != {read}:
            raise ValueError(f"{read} words have other numbers of effects")

    def to_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name, for a file."""
        return {"words": self.words, "strengths": self.strengths, "texts": self.texts, "effects": self.effects}


def word_effects(experiment: Experiment, model: nn.Module, x: InputRows) -> WordEffects | None:
    """Compute the effects of the words that a model reads, on at most 2,000 texts.

    Args:
        experiment: of the run.
        model: the trained model.
        x: the training texts.

    Returns:
        None if the inputs are not texts, or the model does not read words from one table.
    """
    if experiment.inputs.text is None:
        return None
    try:
        name, read = words_read(model, experiment)
    except ValueError:
        return None
    read = read[read > 0].to(x.device)
    table = dict(model.named_parameters())[name]
    outputs = min(CLASSES, experiment.inputs.outputs)
    totals = torch.zeros(outputs, len(table), dtype=torch.float64, device=x.device)
    texts = torch.zeros(len(table), dtype=torch.float64, device=x.device)
    model.eval()
    some = torch.arange(0, len(x), -(-len(x) // ROWS), device=x.device)
    for part in evaluation_batches(x):
        rows = x[part[torch.isin(part, some)]]
        if not len(rows):
            continue
        found = model(rows)
        centred = found - found.mean(dim=1, keepdim=True) if experiment.inputs.classes else found
        for k in range(outputs):
            [slope] = torch.autograd.grad(centred[:, k].sum(), [table], retain_graph=k + 1 < outputs)
            totals[k] += (slope * table.detach()).sum(dim=1)
        places = torch.arange(len(rows), device=x.device)[:, None] * len(table) + rows
        texts += torch.bincount(torch.unique(places) % len(table), minlength=len(table))
    effects = totals / texts.clamp_min(1)
    strengths = table.detach().norm(dim=1)
    return WordEffects(read.cpu(), strengths[read].cpu(), texts[read].long().cpu(), effects[:, read].float().cpu())
