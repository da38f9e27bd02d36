"""Training, validation and test rows: own files, shares, whole groups and later rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from torchlasso.data import load
from torchlasso.data.dividing import SplitData, SplitOptions, split_data
from torchlasso.data.loading import selected
from torchlasso.data.preparing import prepare
from torchlasso.data.splits import holdout_groups, holdout_last
from torchlasso.data.stored.options import StreamOptions


def write(path: Path, rows: int, start: int = 0, header: str = "x,who,when,label", when: str | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{i},p{i // 5},{when or f'2020-01-{1 + i % 28:02}'},{'ab'[i // 5 % 2]}" for i in range(start, start + rows)
    ]
    path.write_text("\n".join([header, *lines, ""]))
    return str(path)


def divided(spec: str | Path, division: SplitOptions | None = None, **options: object) -> SplitData:
    return split_data(str(spec), selected(**options), division or SplitOptions(validation=None))  # type: ignore[arg-type]


def sizes(found: SplitData) -> dict[str, int]:
    return {name: len(split.rows.x) for name, split in found.parts.items()}


@pytest.mark.parametrize("name", ["valid.csv", "val.csv", "my-validation.csv"])
def test_files_are_what_their_names_say(tmp_path: Path, name: str) -> None:
    for file, rows in (("train.csv", 40), (name, 7), ("test.csv", 9)):
        write(tmp_path / file, rows)
    found = divided(tmp_path)
    assert sizes(found) == {"train": 40, "validation": 7, "test": 9}
    assert name in found.parts["validation"].how
    without = divided(tmp_path, SplitOptions(validation=0.25))
    assert sizes(without) == {"train": 30, "validation": 10, "test": 9}
    assert name in without.notes[0]


@pytest.mark.parametrize("stream", ["never", "always"])
def test_columns_of_one_part_only_can_be_left_out(tmp_path: Path, stream: str) -> None:
    write(tmp_path / "train.csv", 40, header="x,who,here,label", when="2")
    write(tmp_path / "test.csv", 9, start=40, header="x,who,there,label", when="3")
    division = SplitOptions(validation=None, stream=StreamOptions(stream))
    with pytest.raises(ValueError, match="missing: 'here'; only here: 'there'"):
        prepare(divided(tmp_path, division, group="who"))
    found = divided(tmp_path, division, group="who", ignore=("here", "there"))
    assert [split.rows.features for split in found.parts.values()] == [("x",)] * 3
    with pytest.raises(ValueError, match=r"no column 'nowhere' to ignore; its inputs are 'x'"):
        divided(tmp_path, division, ignore=("here", "there", "nowhere", "who"))


def test_without_parts_there_are_shares(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 100)
    assert sizes(divided(path)) == {"train": 72, "validation": 8, "test": 20}
    assert sizes(divided(path, SplitOptions(validation=0.0, test=0.5))) == {"train": 50, "test": 50}
    held = write(tmp_path / "held.csv", 11)
    assert sizes(divided(path, SplitOptions(validation=held, test=0.3))) == {"train": 70, "validation": 11, "test": 30}


def test_no_group_is_divided(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 200)
    found = divided(path, group="who")
    groups = {name: set(split.rows.groups.tolist()) for name, split in found.parts.items()}  # type: ignore[union-attr]
    assert not groups["train"] & groups["validation"]
    assert not (groups["train"] | groups["validation"]) & groups["test"]
    assert sum(map(len, groups.values())) == 40
    assert sizes(found)["test"] == 40
    for split in found.parts.values():
        assert set(split.rows.y.tolist()) == {"a", "b"}  # type: ignore[union-attr]
    stem = divided(path, group="who:^p.")
    assert all(len(group) == 2 for group in np.unique(stem.parts["train"].rows.groups).tolist())  # type: ignore[arg-type]


def test_a_group_of_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", 20)
    write(tmp_path / "test.csv", 20, start=15)
    with pytest.raises(ValueError, match=r"the group 'p3' has rows in the train.* part and in the test part"):
        divided(tmp_path, group="who")


def test_the_last_rows_are_held_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 84)
    found = divided(path, SplitOptions(validation=0.25, test=0.25), time="when")
    parts = {name: split.rows.times for name, split in found.parts.items()}
    assert parts["train"].max() < parts["validation"].min()  # type: ignore[union-attr]
    assert parts["validation"].max() < parts["test"].min()  # type: ignore[union-attr]
    assert sizes(found)["test"] == 21
    assert "the last 25 %" in found.parts["test"].how
    assert found.parts["train"].how == f"{path}, the earlier rows"


def test_numbers_are_stratified_on_request(tmp_path: Path) -> None:
    lines = [f"{i},{i * 0.5}" for i in range(1000)]
    (tmp_path / "a.csv").write_text("\n".join(["x,label", *lines, ""]))
    found = divided(tmp_path / "a.csv", SplitOptions(validation=0.1, test=0.1, stratify=True))
    y = found.parts["test"].rows.y
    assert y is not None
    assert np.histogram(y, bins=10, range=(0, 500))[0].tolist() == [10] * 10


def test_a_column_that_looks_like_an_identity_is_pointed_out(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 100, header="x,user_id,when,label")
    assert "'user_id' looks like an identity" in prepare(divided(tmp_path / "a.csv")).card.notes[0]
    assert not prepare(divided(tmp_path / "a.csv", group="user_id")).card.notes
    lines = [f"{i // 10}_{i % 10},{i},{'ab'[i // 10 % 2]}" for i in range(100)]
    (tmp_path / "b.csv").write_text("\n".join(["MouseID,x,label", *lines, ""]))
    assert any("group='MouseID:^[^_/ ]+" in note for note in prepare(divided(tmp_path / "b.csv")).card.notes)


@pytest.mark.parametrize(
    ("options", "division", "message"),
    [
        ({"group": "whom"}, {}, "no column 'whom' for groups"),
        ({"time": "then"}, {}, "no column 'then' for the time"),
        ({"time": "who"}, {}, "column 'who' holds neither dates, as in 2024-01-31, nor numbers"),
        ({"group": "who:^q"}, {}, r"column 'who' has 'p0' in row 0 \(from 0\), without a match of '\^q'"),
        ({"group": "who:["}, {}, "'\\[' is not a regular expression"),
        ({}, {"validation": "nowhere.csv"}, "validation: nowhere.csv is neither a share, such as 0.1, nor a file"),
        ({"group": "label2"}, {}, "no validation rows can be held out|no test rows can be held out"),
    ],
)
def test_divisions_that_are_refused(
    tmp_path: Path, options: dict[str, str], division: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.csv"
    write(path, 30)
    if "label2" in options.values():
        path.write_text(
            "\n".join(
                f"{line},{line.split(',')[-1] if i else 'label2'}" for i, line in enumerate(path.read_text().split())
            )
        )
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        divided(path, SplitOptions(**{"validation": 0.1, **division}), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [1.0, -0.1, 2])
def test_shares_are_shares(bad: float) -> None:
    with pytest.raises(ValueError, match="validation must be a share"):
        SplitOptions(validation=bad)
    with pytest.raises(ValueError, match="test must be"):
        load("digits", test=bad)


def test_groups_of_very_different_sizes(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(30), rng.integers(1, 60, 30))
    y = torch.from_numpy(rng.integers(0, 3, len(groups)))
    shares = []
    for seed in range(20):
        kept, held = holdout_groups(y, groups, 0.2, seed)
        assert not set(groups[kept].tolist()) & set(groups[held].tolist())
        assert len(kept) + len(held) == len(groups)
        shares.append(len(held) / len(groups))
    assert 0.1 < min(shares) < max(shares) < 0.3


def test_rows_of_the_same_time_stay_together() -> None:
    kept, held = holdout_last(np.array([1.0, 1.0, 2.0, 2.0, 2.0]), 0.2)
    assert (kept.tolist(), held.tolist()) == ([0, 1], [2, 3, 4])
    with pytest.raises(ValueError, match="all rows have the same time"):
        holdout_last(np.ones(4), 0.2)
