"""Recipes of training: values for the options that depend on each other, used where the command line has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from torchlasso._core.functions import is_function_name
from torchlasso._core.specs import parse_spec, unknown
from torchlasso.integrations.pretrained import PREFIX
from torchlasso.models import reads_texts
from torchlasso.runs.choices import parse_blocks
from torchlasso.runs.model_blocks import INPUTS, OF_MODELS, UNITS
from torchlasso.runs.options import COSTS, LOSS_TERM, RECIPES, TARGETS, Options, is_by_recipe

Given = dict[str, Any]

# Optimizers whose steps have about the same length whatever the size of the gradients: the latent form has a λ without
# a unit under these.
ADAPTIVE = ("adam", "adamw", "nadam", "radam", "adamax", "rmsprop")
# Chosen on validation rows of several data sets, networks and lengths: docs/results/recipes.md.
RATE, HOLD, WARMUP, THETA, LAM = 5e-3, 0.25, 0.05, 0.2, 0.05
RATE_OF_WORDS = 1e-2  # chosen on validation rows: docs/results/text.md


def _proximal(given: Mapping[str, Any]) -> Given:
    return {}


def _latent(given: Mapping[str, Any]) -> Given:
    values = {"form": "latent", "lr": RATE, "schedule": "wsd", "warmup": WARMUP, "hold": HOLD, "lam": LAM}
    # other penalties shrink large blocks less by themselves
    is_reweighted = parse_spec(given["penalty"])[0] == "l1" and _has_weights(given["over"])
    return {**values, "reweight": THETA} if is_reweighted else values


def _words(given: Mapping[str, Any]) -> Given:
    return {"lr": RATE_OF_WORDS}


def _has_weights(over: str | None) -> bool:
    """Return whether the zeros of these blocks are weights, which can be held; those of singular values are not."""
    return over is None or parse_spec(over)[0] in OF_MODELS or parse_blocks(over).of_weights


# (the options that are given) ↦ the values of others; a value that is missing is the default of its field
CHOOSE: Mapping[str, Callable[[Mapping[str, Any]], Given]] = dict(
    zip(RECIPES, (_latent, _proximal, _words), strict=True)
)


def completed(given: Mapping[str, Any]) -> Given:
    """Return the options of a run with the values of their recipe in place of those that are None.

    A target, or a path, has the recipe ``latent``, or ``words`` over the words of texts, unless it needs the λ of the
    objective: the recipe is ``proximal`` under an optimizer that does not adapt its steps, where a loss term or values
    of λ are to be compared, and over singular values. A target for the number of features has the blocks ``inputs``,
    unless others are given, and one for the cost of a model of texts the blocks ``units``.

    Args:
        given: field of :class:`~torchlasso.runs.options.Options` ↦ its value; None where the recipe decides.

    Raises:
        ValueError: no recipe has this name.
    """
    if given.get("features") is not None and given["over"] is None:
        given = {**given, "over": INPUTS}  # the blocks that are counted
    if any(given.get(name) is not None for name in COSTS) and given["over"] is None and _is_of_texts(given):
        given = {**given, "over": f"{UNITS}:by=size"}  # an embedding has no FLOPs to go by
    name = given["recipe"] or _default(given)
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    values = CHOOSE[name](given)
    own = {field.name: values.get(field.name, field.default) for field in fields(Options) if is_by_recipe(field.name)}
    return {**given, **{key: value for key, value in own.items() if given[key] is None}, "recipe": name}


def nothing_given() -> Given:
    """Return the options of ``torchlasso train`` before any is given: None where the recipe decides."""
    return {
        field.name: None if is_by_recipe(field.name) or field.default is MISSING else field.default
        for field in fields(Options)
    }


def _default(given: Mapping[str, Any]) -> str:
    path = given.get("path")
    has_target = any(given.get(name) is not None for name in TARGETS) or (path is not None and not path.lams)
    is_free = given["form"] in (None, "latent") and LOSS_TERM not in given.get("compare", ())
    is_fit = parse_spec(given["optimizer"])[0] in ADAPTIVE and _has_weights(given["over"])
    if not (has_target and is_free and is_fit):
        return "proximal"
    return "words" if _is_of_words(given) else "latent"


def _is_of_words(given: Mapping[str, Any]) -> bool:
    """Return whether words of texts are to be chosen.

    Most words are rare, and an optimizer that adapts its steps moves their embeddings as far as those of frequent ones.
    The latent form compares how far blocks are moved, so it would keep rare words.
    """
    return _is_of_texts(given) and given["over"] is not None and parse_spec(given["over"])[0] == INPUTS


def _is_of_texts(given: Mapping[str, Any]) -> bool:
    name = given["model"]
    return not is_function_name(name) and not name.startswith(PREFIX) and reads_texts(parse_spec(name)[0])
