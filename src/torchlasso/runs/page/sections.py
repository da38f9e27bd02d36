"""The registry of the sections of a run's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torchlasso._core.registry import Registry
from torchlasso.runs.page.shown import Shown

Section = Callable[[Shown], str]
_SECTIONS: Registry[int, Section] = Registry("the section at")


def section_at(place: int) -> Callable[[Section], Section]:
    """Return a decorator of a section: a function from a run to HTML, empty if there is nothing to say.

    Args:
        place: where it stands; sections are in the order of their places.

    Raises:
        ValueError: another section stands there.
    """

    def entered(function: Section) -> Section:
        _SECTIONS.enter(place, function)
        return function

    return entered


def sections() -> Mapping[int, Section]:
    """Return all sections by their places, in their order."""
    return dict(sorted(_SECTIONS.items()))
