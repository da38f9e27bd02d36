"""The stability of the support, and the distance from a stationary point."""

from __future__ import annotations

from itertools import pairwise

from torchlasso.figures import stability as draw
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.html import figure, paragraph, section
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown, support_of

SMALL = 0.1  # of a distance, in units of λ


@section_at(80)
def stability_section(run: Shown) -> str:
    """Show the share of weights that become zero or nonzero, by epoch or by point of a path."""
    if run.path is None:
        shares, what = [float(line["switched"]) for line in run.metrics["torchlasso"]], "epoch"
    else:
        shares, what = _along_path(run), "step along the path"
    if not shares:
        return ""
    text = f"In the last {what}, {100 * shares[-1]:.2g} % of the penalised weights became zero or nonzero."
    drawing = ""
    if run.drawable and len(shares) > 1:
        label = f"Share of the penalised weights that became zero or nonzero, by {what}: "
        label += f"from {100 * shares[0]:.2g} % to {100 * shares[-1]:.2g} %"
        drawing = figure(embedded(draw(shares, page_axes(), x=what), "stability", label))
    return section("Stability of the support", paragraph(text), drawing)


def _along_path(run: Shown) -> list[float]:
    supports = [support_of(model, run.record) for _, model in run.models()]
    return [float((now != before).double().mean()) for before, now in pairwise(supports)]


@section_at(90)
def certificate_section(run: Shown) -> str:
    """Show the distance from a stationary point."""
    far = run.summary.stationarity
    if far is None:
        hold = run.experiment.options.hold
        end = f"In the last {100 * hold:.3g} % of the steps the zeros are frozen and there" if hold else "There"
        return section("Certificate", paragraph(f"{end} is no penalty, so there is nothing to certify."))
    text = (
        f"Distance from a stationary point of loss + λ·penalty, over all blocks, in units of λ: at most {far.max:.2g}, "
        f"on average {far.mean:.2g}. A distance of zero is a stationary point. The gradient is over all training rows."
    )
    if far.max > SMALL:
        text += (
            f" It is not small here: some weight would still move, by a gradient that is {far.max:.2g} times λ beyond "
            "what the penalty balances. More epochs, or a rate that falls further, bring it down."
        )
    if run.experiment.options.input_dropout or run.experiment.options.augment:
        text += " It is taken without input dropout and augmentation, so it is not quite the loss that was minimised."
    if run.summary.refit is not None and run.summary.refit.kept:
        text += " Afterwards the model was refitted without the penalty, which moves it away from such a point."
    return section("Certificate", paragraph(text))
