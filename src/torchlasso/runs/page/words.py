"""The words that a model of texts still reads, by class."""

from __future__ import annotations

from torchlasso.html import Bar, paragraph, section, table
from torchlasso.runs.page.reading import joined_names
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.word_effects import WordEffects

OF_A_CLASS = 25  # the most words in the line of a class
RANKED = 25  # the most words with a row in the table
MOST = 1000  # the most words that are listed beneath it


@section_at(62)
def words_section(run: Shown) -> str:
    """Show the words that the run's model reads, those that speak for each class, and the strongest ones."""
    text = run.experiment.inputs.text
    if text is None:
        return ""
    found = run.folder.read_words()
    if found is None:
        return section("Words that are read", paragraph("They are not known: the model has several tables of words."))
    names = [text.vocabulary[number] for number in found.words.tolist()]
    total = text.words - 1
    if len(names) == total:
        counted = f"All {total:,} {text.noun} of the vocabulary are read."
    else:
        counted = (
            f"{len(names):,} of {total:,} {text.noun} of the vocabulary are read; the others are as if they were not "
            "there, and leave a gap in the text."
        )
    order = found.strengths.argsort(descending=True).tolist()
    parts = [paragraph(counted), _by_output(run, found, names)]
    if order:
        largest = float(found.strengths.max()) or 1.0
        rows: list[list[str | Bar]] = [
            [
                names[i],
                f"{int(found.texts[i]):,}",
                Bar(float(found.strengths[i]) / largest, f"{found.strengths[i]:.3g}"),
            ]
            for i in order[:RANKED]
        ]
        parts.append(table((text.noun[:-1], "texts", "norm of its embedding"), rows, "The strongest words"))
    if len(order) > RANKED:
        parts.append(paragraph(f"Also read: {joined_names([names[i] for i in order[RANKED:]], MOST)}."))
    return section("Words that are read", *parts)


def _by_output(run: Shown, found: WordEffects, names: list[str]) -> str:
    """List the words with the largest effects on each class, or on a number."""
    classes = run.experiment.inputs.classes[: len(found.effects)]
    signs = [1.0] * len(classes) if classes else [1.0, -1.0]
    heads = list(classes) or ["more", "less"]
    if not names:
        return ""
    best = found.effects.argmax(dim=0) if classes else None  # a word stands with one class
    rows = []
    for k, (head, sign) in enumerate(zip(heads, signs, strict=True)):
        effects = sign * found.effects[k if classes else 0]
        effects = effects if best is None else effects.where(best == k, 0.0)
        order = [i for i in effects.argsort(descending=True)[:OF_A_CLASS].tolist() if float(effects[i]) > 0]
        rows.append([head, ", ".join(names[i] for i in order) or "none"])
    note = (
        "Each word stands with the class that it speaks for most, by the mean change that it makes to the output of "
        "its texts, to first order, relative to the other classes; strongest first."
        if classes
        else "Words by the mean change that each makes to the number, to first order, strongest first."
    )
    what = "class" if classes else "the number becomes"
    return table((what, "words that speak for it"), rows, "Words of each class", words=True) + paragraph(note, "note")
