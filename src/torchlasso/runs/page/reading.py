"""The inputs that the network still reads: pixels on mean images, or ranked features of a table."""

from __future__ import annotations

import torch
from torch import Tensor

from torchlasso.figures._embedding import pictured
from torchlasso.figures._inputs import pixel_map, pixels_on, ranked
from torchlasso.graph import UnitMap, read_in, strengths_in
from torchlasso.html import Bar, beside, figure, paragraph, section, table
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.rows import InputSpec
from torchlasso.training.rows import InputRows, evaluation_batches, input_batches

CLASSES = 10  # the most classes with a mean image
RANKED = 30  # the most features with a row in the table
NAMED = 10  # the most features named in a sentence


def mean_images(inputs: InputSpec, rows: tuple[InputRows, Tensor]) -> Tensor | None:
    """Return the mean training image of each of the first classes, before standardisation: (n, channels, …).

    Without classes, it is the mean of all rows; None if the rows are not images.
    """
    x, y = rows
    if len(x.shape) != 4:
        return None
    classes = len(inputs.classes)
    sums = torch.zeros(max(1, classes), *x.shape[1:], device=x.device)
    batches = evaluation_batches(x)
    for some, images in zip(batches, input_batches(x, batches), strict=True):
        codes = y[some] if classes else torch.zeros(len(some), dtype=torch.int64, device=y.device)
        sums.index_add_(0, codes, images)
    counts = torch.bincount(y, minlength=classes) if classes else torch.tensor([len(x)], device=y.device)
    means = sums / counts.clamp(min=1).view(-1, 1, 1, 1)  # a class may have no training rows
    return inputs.standardizer.undone(means[: CLASSES if classes else 1]).cpu()


@section_at(60)
def reading_section(run: Shown) -> str:
    """Show the inputs that the run's model reads; the words of texts have a section of their own."""
    if run.experiment.inputs.text is not None:
        return ""
    try:
        if isinstance(run.units, str):
            raise ValueError(run.units)
        read, strengths = read_in(run.units), strengths_in(run.units)
    except ValueError as error:
        return section("Inputs that are read", paragraph(f"They are not known: {error}."))
    parts = [paragraph(sentence(run, read))]
    if read.dim() == 3:
        parts.append(beside(*_on_images(run, read, strengths)))
    elif read.dim() == 1:
        parts += _features(run, read, strengths)
    return section("Inputs that are read", *parts)


def names_read(run: Shown) -> list[str] | None:
    """Return the names of the features that are read, or the words, strongest first; None where none are known."""
    if run.experiment.inputs.text is not None:
        found, vocabulary = run.folder.read_words(), run.experiment.inputs.text.vocabulary
        order = None if found is None else found.words[found.strengths.argsort(descending=True)].tolist()
        return None if order is None else [vocabulary[number] for number in order]
    if len(run.experiment.inputs.shape) != 1 or isinstance(run.units, str):
        return None
    try:
        read, strengths = read_in(run.units), strengths_in(run.units)
    except ValueError:
        return None
    return [name for name, _ in ranked(read, strengths, run.experiment.inputs.features)]


def sentence(run: Shown, read: Tensor) -> str:
    """State the number of inputs that are read."""
    count, total = int(read.sum()), read.numel()
    what = "pixels" if read.dim() == 3 and len(read) == 1 else "inputs"
    if count == total:
        return f"All {total:,} {what} can change the outputs."
    if not count:
        return f"No {what[:-1]} changes the outputs: they are always the same."
    return f"{count:,} of {total:,} {what} can change the outputs; the others have no effect."


def briefly(run: Shown, units: UnitMap | str) -> str:
    """Show the inputs of one of many models: a small map of pixels if some are unread, or the strongest features."""
    if run.experiment.inputs.text is not None:
        return ""
    try:
        if isinstance(units, str):
            return ""
        read, strengths = read_in(units), strengths_in(units)
    except ValueError:
        return ""
    text = sentence(run, read)
    if read.dim() == 3:
        return "" if read.all() else figure(pictured(pixel_map(read, strengths), text), text)
    names = [name for name, _ in ranked(read, strengths, run.experiment.inputs.features)] if read.dim() == 1 else []
    return paragraph(text + f" Most: {joined_names(names, NAMED)}." * bool(names))


def _on_images(run: Shown, read: Tensor, strengths: Tensor | None) -> list[str]:
    parts, images = [], run.folder.read_means()
    if strengths is not None:
        label = f"Map of the pixels: {sentence(run, read)}"
        caption = "The strength with which each pixel is read: the norm of its weights. A dot: not read."
        parts.append(figure(pictured(pixel_map(read, strengths), label), caption))
    if images is not None and images.shape[1:] == read.shape:
        classes = run.experiment.inputs.classes[: len(images)]
        whose = f"The mean images of the classes {', '.join(classes)}" if classes else "The mean of all training images"
        label = f"Mean images with the pixels that are read. {sentence(run, read)}"
        dots = "" if read.any(dim=0).all() else " A dot marks a pixel that is not read."
        caption = f"{whose}, as the network sees them.{dots}"
        parts.append(figure(pictured(pixels_on(read, images), label), caption))
    return parts


def _features(run: Shown, read: Tensor, strengths: Tensor | None) -> list[str]:
    names, parts = run.experiment.inputs.features, []
    found = ranked(read, strengths, names)
    if strengths is not None and found:
        largest = found[0][1] or 1.0
        rows: list[list[str | Bar]] = [[name, Bar(size / largest, f"{size:.3g}")] for name, size in found[:RANKED]]
        parts.append(table(("feature", "norm of its weights"), rows, "Features that are read, strongest first"))
    elif found:
        parts.append(paragraph(f"Read: {joined_names([name for name, _ in found])}."))
    if len(found) > RANKED and strengths is not None:
        parts.append(paragraph(f"Also read, but more weakly: {joined_names([name for name, _ in found[RANKED:]])}."))
    unread = [name for name, _ in ranked(~read, None, names)]
    if unread:
        parts.append(paragraph(f"Not read: {joined_names(unread)}."))
    return parts


def joined_names(names: list[str], most: int = 100) -> str:
    """List the first few names.

    >>> joined_names(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
