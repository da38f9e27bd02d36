"""Two things under one name: the second is refused, whatever they are, and the first stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso import models, penalties
from torchlasso.data.registry import Reader
from torchlasso.data.registry import register as register_reader
from torchlasso.graph.operators import rule
from torchlasso.graph.rules.opaque import Unknown
from torchlasso.inference.executions import execution
from torchlasso.optim import metric_of, metrics
from torchlasso.optim.fused import updates
from torchlasso.penalties import blocks
from torchlasso.runs.page.sections import section_at


class Mine(Reader):
    form = "digits"

    def accepts(self, spec):
        return True

    def open(self, spec, columns):
        raise NotImplementedError


TWICE = {
    "penalty": (lambda: penalties.register("l1")(type("Mine", (tl.L1,), {})), "penalty 'l1'", "separable.L1"),
    "blocks": (lambda: blocks.register("rows")(type("Mine", (tl.Rows,), {})), "blocks 'rows'", "partitions.Rows"),
    "model": (lambda: models.register("cnn")(nn.Linear), "model 'cnn'", "models.cnn.cnn"),
    "reader": (lambda: register_reader(Mine), "reader of 'digits'", "Digits"),
    "operator": (lambda: rule("linear")(Unknown), "rule of 'aten.linear'", "contractions.Linear"),
    "metric": (lambda: metric_of(torch.optim.Adam)(metrics.RAdamMetric), "metric of", "AdamMetric"),
    "update": (lambda: updates.update_of(torch.optim.SGD)(lambda group: None), "update of", "_sgd"),
    "section": (lambda: section_at(10)(lambda run: ""), "the section at 10", "won.won_section"),
    "execution": (lambda: execution("csr")(lambda layer: None), "way to run a layer 'csr'", "executions.csr"),
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_name_is_taken_once(kind):
    make, name, by = TWICE[kind]
    before = known()
    with pytest.raises(ValueError, match=rf"{name}.* is registered already, by torchlasso\..*{by}") as error:
        make()
    assert "\n" not in str(error.value)
    assert known() == before


def known() -> list[dict]:
    registries = penalties.registry(), blocks.registry(), metrics.known_metrics(), updates.fused_updates()
    return [*map(dict, registries), dict.fromkeys(models.names())]


def test_only_a_penalty_or_a_kind_of_blocks_is_registered_as_one():
    with pytest.raises(TypeError, match="decorates a class that derives from Penalty; got the class Linear"):
        penalties.register("mine")(nn.Linear)
    with pytest.raises(TypeError, match=r"derives from Penalty; got L1\("):
        penalties.register("mine")(tl.L1())
    assert "mine" not in penalties.registry()
    with pytest.raises(TypeError, match="decorates a class that derives from Blocks; got the class Linear"):
        blocks.register("mine")(nn.Linear)
    assert "mine" not in blocks.registry()
