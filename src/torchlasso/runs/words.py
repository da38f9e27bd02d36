"""The words that a model of texts reads, and the model and its tokenizer without the others."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchlasso.compaction.verify import difference
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.graph import Inputs
from torchlasso.runs.experiment import Experiment

TOLERANCE = 1e-10  # of outputs in float64, relative to the largest
TESTED = 256  # random texts on which the outputs of both models are compared


def words_read(model: nn.Module, experiment: Experiment) -> tuple[str, Tensor]:
    """Return the name of the embeddings of a model, and the numbers of the words with one other than zero, increasing.

    Raises:
        ValueError: the model does not read words from one table; the message says why.
    """
    found = Inputs(model, experiment.example)
    if len(found.names) != 1 or found.features != experiment.inputs.shape[1]:
        raise ValueError(f"the words are read by {', '.join(found.names)}, not by one table of embeddings")
    return found.names[0], found.live(model).nonzero().flatten()


def without_unread_words(model: nn.Module, experiment: Experiment) -> tuple[nn.Module, Tensor] | None:
    """Return a copy of a model with a smaller table, and the numbers of the words that stay, the padding among them.

    The words whose embedding is zero become the number 0, which has the embedding 0 too.

    Args:
        model: of texts.
        experiment: of the run.

    Returns:
        The smaller model for the words that stay, numbered anew in their order; None if no word can be left out.

    Raises:
        ValueError: the smaller model computes other outputs.
    """
    text = experiment.inputs.text
    if text is None:
        return None
    try:
        name, read = words_read(model, experiment)
    except ValueError:
        return None
    kept = torch.cat([read.new_zeros(1), read[read > 0]])
    module = model.get_submodule(name.rpartition(".")[0])
    if len(kept) == text.words or not isinstance(module, nn.Embedding) or bool(module.weight[0].any()):
        return None
    small = copy.deepcopy(model)
    table = small.get_submodule(name.rpartition(".")[0])
    assert isinstance(table, nn.Embedding)  # for mypy; it is a copy of the one above
    table.weight = nn.Parameter(module.weight.detach()[kept], module.weight.requires_grad)
    table.num_embeddings = len(kept)
    _verify(model, small, kept, text, experiment.inputs.shape[0])
    return small, kept


class Renumbered(nn.Module):
    """A model of some tokens that takes all numbers of the tokenizer.

    Args:
        model: the model.
        numbers: the number in the model of each number of the tokenizer, int32 (tokens,).
    """

    def __init__(self, model: nn.Module, numbers: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(self.get_buffer("numbers")[x].long())
        return out


def with_own_numbers(model: nn.Module, experiment: Experiment) -> tuple[nn.Module, Experiment]:
    """Return a model that takes the numbers of its tokenizer, and the experiment with that tokenizer, for an export."""
    text = experiment.inputs.text
    if text is None or not text.kept:
        return model, experiment
    whole = replace(text, kept=())
    inputs = replace(experiment.inputs, text=whole, shape=whole.shape)
    device = next(model.parameters()).device
    return Renumbered(model, text.renumbered.to(device)), replace(experiment, inputs=inputs)


def with_words(experiment: Experiment, kept: Tensor) -> Experiment:
    """Return the experiment whose texts have these words only.

    Raises:
        ValueError: its inputs are not texts, or do not have these words.
    """
    if experiment.inputs.text is None:
        raise ValueError("the inputs of the model are not texts")
    text = experiment.inputs.text.with_words(kept)
    return replace(experiment, inputs=replace(experiment.inputs, text=text, shape=text.shape))


def _verify(model: nn.Module, small: nn.Module, kept: Tensor, text: TextEncoding, longest: int) -> None:
    """Compare both models on random texts, and both tokenizers on all words."""
    numbers = torch.zeros(text.words, dtype=torch.long)
    numbers[kept] = torch.arange(len(kept))
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, text.words, (TESTED, min(longest, 64)), generator=generator)
    device = next(model.parameters()).device
    with torch.no_grad():
        ours = [copy.deepcopy(model).double().eval()(x.to(device))]
        theirs = [copy.deepcopy(small).double().eval()(numbers[x].to(device))]
    if difference(ours, theirs) > TOLERANCE:
        raise ValueError("without the words that are not read, the model computes other outputs")
    if text.with_words(kept).numbers_of(text.vocabulary) != numbers[text.numbers_of(text.vocabulary)].tolist():
        raise ValueError("without the words that are not read, the tokenizer finds other words")
