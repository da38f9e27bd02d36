"""The figures of a model's quality, and for classes those of each class and their confusion."""

from __future__ import annotations

from torchlasso.html import Bar, beside, matrix, paragraph, section, table
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.quality import MEASURES, NO_FIGURES, ClassScore, Judge, Quality
from torchlasso.runs.quality.tables import figures_of, interval

LISTED = 50  # the most classes in the table
SQUARE = 60  # for more classes, a list takes the place of the matrix
CONFUSIONS = 20  # the length of that list


@section_at(22)
def quality_section(run: Shown) -> str:
    """Show all figures on the test rows, with their intervals and those of a constant answer."""
    test, held = run.summary.test, run.summary.validation
    if test is None:
        return "" if Judge.is_possible() else section("Quality", paragraph(NO_FIGURES, "note"))
    compared = {name: each.test for name, each in run.summary.runs.items() if each is not run.summary}
    head, *rows = figures_of(test, "test", {"validation": held, **compared})
    note = _note(test, held, is_grouped=run.experiment.options.group is not None)
    listed = table(head, rows, "Figures on the test rows")
    return section("Quality", listed, _by_target(test), paragraph(note, "note"))


@section_at(24)
def classes_section(run: Shown) -> str:
    """Show precision, recall and F1 of each class, and the confusion matrix."""
    test = run.summary.test
    if test is None or not test.classes:
        return ""
    shown = sorted(test.classes, key=lambda each: (each.f1 is None, each.f1)) if len(test.classes) > LISTED else None
    less = "" if shown is None else f" The {LISTED} of {len(test.classes)} classes with the lowest F1 are listed."
    text = (
        "Recall is the share of the rows of a class that are predicted as it, precision the share of the rows "
        f"predicted as it that are of it; F1 is their harmonic mean.{less}"
    )
    listed = table(
        ("class", "rows", "recall", "precision", "F1"),
        [_of_class(each) for each in (test.classes if shown is None else shown[:LISTED])],
        "Figures of each class on the test rows",
    )
    return section("Classes", beside(listed, _confusion(test)), paragraph(text, "note"))


def _of_class(each: ClassScore) -> list[str | Bar]:
    return [each.name, f"{each.support:,}", *map(_bar, (each.recall, each.precision, each.f1))]


def _bar(share: float | None) -> str | Bar:
    return "–" if share is None else Bar(share, f"{100 * share:.1f} %")


def _confusion(test: Quality) -> str:
    names = [each.name for each in test.classes]
    if not test.confusion:
        return ""
    if len(names) <= SQUARE:
        return matrix(
            names, test.confusion, "class ↓ predicted\u00a0→", "Confusion matrix: rows by class and prediction"
        )
    pairs = [
        (count, true, guess)
        for true, row in enumerate(test.confusion)
        for guess, count in enumerate(row)
        if count and true != guess
    ]
    rows = [
        [names[true], names[guess], f"{count:,}", f"{100 * count / test.classes[true].support:.1f} %"]
        for count, true, guess in sorted(pairs, key=lambda pair: -pair[0])[:CONFUSIONS]
    ]
    return (
        table(("class", "predicted as", "rows", "of the class"), rows, "The most frequent confusions") if rows else ""
    )


def _by_target(test: Quality) -> str:
    if not test.targets:
        return ""
    keys = list(test.scores)
    heads = ("target", *(cell for key in keys for cell in (MEASURES[key].title, "95 % interval")))
    rows = [
        [
            each.name,
            *(
                cell
                for key in keys
                for cell in (MEASURES[key].shown(each.scores[key].value), interval(MEASURES[key], each.scores[key]))
            ),
        ]
        for each in test.targets
    ]
    return table(heads, rows, "Figures of each target on the test rows")


def _note(test: Quality, held: Quality | None, *, is_grouped: bool) -> str:
    validation = "" if held is None else f" and {held.rows:,} validation rows"
    if test.classes and test.constant:
        most = max(range(len(test.constant)), key=test.constant.__getitem__)
        constant = (
            f" The constant answer is {test.classes[most].name}, the most frequent class of the training rows, with "
            "the shares of the classes as its probabilities."
        )
    else:
        constant = " The constant answer is the mean of the training rows." if test.constant else ""
    alike = ", and take rows of a group to be alike" * is_grouped
    means = " For several targets, the figures are means over them." if test.targets else ""
    return f"On {test.rows:,} test rows{validation}. Intervals are for the test rows{alike}.{constant}{means}"
