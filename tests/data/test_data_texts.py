"""Columns of texts: how they are found, how their words become numbers, and what is said of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from torchlasso.data import load, load_part
from torchlasso.data.dividing import SplitOptions
from torchlasso.data.loading import load_splits, selected
from torchlasso.data.text_options import TextOptions
from torchlasso.data.texts import Texts
from torchlasso.data.tokenizers_json import padded_by_zero
from torchlasso.data.tokenizing import TextEncoding
from torchlasso.training.token_rows import TokenRows

GOOD = [f"a lovely film, number {i}" for i in range(12)]
BAD = [f"an awful film; number {i}" for i in range(12)]
R8 = Path(__file__).parents[3] / "shared" / "data" / "r8"


def texts(*values: str) -> Texts:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return Texts(array, ("text",))


def write(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def reviews(path: Path, head: Sequence[str] = ("text", "label")) -> Path:
    pairs = [(text, label) for both in zip(GOOD, BAD, strict=True) for text, label in zip(both, "gb", strict=True)]
    return write(path, head, pairs)


def prepared(path: Path, **options: Any) -> Any:
    return load_splits(str(path), selected(**options), SplitOptions())


def words_of(path: Path, **options: Any) -> tuple[str, ...]:
    return prepared(path, **options).text.vocabulary


def test_a_column_named_text_is_read_alone(tmp_path: Path) -> None:
    rows = [(i, text, i % 3, "gb"[i % 2]) for i, text in enumerate(GOOD + BAD)]
    found = prepared(write(tmp_path / "a.csv", ("id", "text", "stars", "label"), rows))
    assert found.text.columns == ("text",)
    assert "film" in found.text.vocabulary
    assert "Only the text is read; 'id', 'stars' are not." in found.card.notes
    assert found.card.inputs.startswith("texts of column 'text'")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_only_column_is_text_if_it_holds_texts(tmp_path: Path, suffix: str) -> None:
    source = reviews(tmp_path / "a.csv", ("comment", "label"))
    if suffix != "csv":
        import pandas as pd

        table, source = pd.read_csv(source), tmp_path / f"a.{suffix}"
        table.to_parquet(source) if suffix == "parquet" else table.to_json(source, orient="records", lines=True)
    found = prepared(source)
    assert found.text.columns == ("comment",)
    assert found.text.vocabulary[:2] == ("[PAD]", "film")
    assert len(found.train[0]) + len(found.test[0]) == 24


@pytest.mark.parametrize(
    "values",
    [["red", "blue"], ["a rather long category of colour", "another long category of colour"]],
    ids=["short", "repeated"],
)
def test_categories_are_no_texts(tmp_path: Path, values: list[str]) -> None:
    found = prepared(write(tmp_path / "a.csv", ("text", "label"), [(values[i % 2], i // 2 % 2) for i in range(40)]))
    assert found.text is None
    assert found.features == tuple(f"text={value}" for value in sorted(values))


def test_a_long_text_among_other_columns_is_left_out_and_how_to_read_it_is_said(tmp_path: Path) -> None:
    rows = [(i % 7, f"Name {i} of a person with a long name", i % 2) for i in range(240)]
    path = write(tmp_path / "a.csv", ("age", "name", "label"), rows)
    assert "text= reads it, alone" in prepared(path).card.left_out["name"]
    assert prepared(path, text=("name",)).text.columns == ("name",)


def test_several_columns_are_joined(tmp_path: Path) -> None:
    rows = [(f"title {i % 3}", f"body {i % 5}", "gb"[i % 2]) for i in range(20)]
    path = write(tmp_path / "a.csv", ("title", "body", "label"), rows)
    assert {"title", "body", "1"} <= set(words_of(path, text=("title", "body")))


def test_quotes_commas_and_line_breaks_are_part_of_a_text(tmp_path: Path) -> None:
    rows = [(f'he said "yes, {i}"\nand\r\nleft; twice', "gb"[i % 2]) for i in range(20)]
    found = prepared(write(tmp_path / "a.csv", ("text", "label"), rows))
    assert {"said", '"', ",", "and", "left", ";"} <= set(found.text.vocabulary)
    assert len(found.train[0]) + len(found.test[0]) == 20


def test_words_emoji_and_chinese_characters() -> None:
    encoding = TextEncoding.fit(texts("Great film😀😀 我爱", "GREAT film 😀😀, 我爱你", "[PAD] ["), TextOptions())
    assert set(encoding.vocabulary) == {"[PAD]", "great", "film", "😀😀", "我", "爱", "["}
    numbers = encoding(texts("我 great", "你", "", "[PAD]"))[:]
    known = encoding.vocabulary.index
    assert numbers.tolist()[:3] == [[known("我"), known("great"), 0], [0, 0, 0], [0, 0, 0]]
    assert numbers[3].tolist() == [known("["), 0, 0]  # padding cannot be written


@pytest.mark.parametrize(
    ("letters", "note"),
    [("我你他是的在有了这那", "Chinese characters are read one by one"), ("กขคงจฉชซ", "Words have")],
)
def test_text_without_spaces_is_pointed_out(tmp_path: Path, letters: str, note: str) -> None:
    rng = np.random.default_rng(0)
    rows = [("".join(rng.choice(list(letters), 40)) + " end", "gb"[i % 2]) for i in range(20)]
    notes = prepared(write(tmp_path / "a.csv", ("text", "label"), rows)).card.notes
    assert any(found.startswith(note) for found in notes)


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    rows = [("a lovely film " * 4 + "end", "gb"[i % 2]) for i in range(19)]
    write(tmp_path / "train.csv", ("text", "label"), rows)
    write(tmp_path / "test.csv", ("text", "label"), [("nothing known", "g"), ("a film", "b"), ("", "b")])
    notes = prepared(tmp_path, text=("text",), texts=TextOptions(max_length=5)).card.notes
    assert "In the train part, 19 texts have more than 5 words, at most 13; the rest is not read." in notes
    assert "In the test part, 50.0 % of the words are not in the vocabulary, and are not read." in notes
    assert (
        "In the test part, 2 texts have no word of the vocabulary; the prediction is that for an empty text." in notes
    )
    assert "1 text is empty." in notes


def test_the_vocabulary_has_the_frequent_words_of_training_rows_only(tmp_path: Path) -> None:
    found = TextEncoding.fit(texts("a a a b b c", "d d d d"), TextOptions(vocabulary=2))
    assert found.vocabulary == ("[PAD]", "d", "a")
    write(tmp_path / "train.csv", ("text", "label"), [(f"one and one {i}", i % 2) for i in range(10)])
    write(tmp_path / "test.csv", ("text", "label"), [("later later later", 0), ("later later", 1)])
    assert "later" not in words_of(tmp_path, text=("text",))


def test_fewer_words_are_numbered_anew() -> None:
    encoding = TextEncoding.fit(texts("a b c", "a b c"), TextOptions())
    small = encoding.with_words(torch.tensor([0, 2]))
    assert small.vocabulary == ("[PAD]", "b")
    assert small(texts("a b c b"))[:].tolist() == [[0, 1, 0, 1]]
    for wrong in ([1, 2], [0, 4], [0, 2, 1], []):
        with pytest.raises(ValueError, match="increasing numbers from 0 to 3"):
            encoding.with_words(torch.tensor(wrong))


def made(model: Any, trainer: Any) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer(model)
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    found.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 5, trainer)
    first = found.id_to_token(1)
    found.post_processor = tokenizers.processors.TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 1)])
    return found


def of_every_kind(pad: str | None) -> list[tokenizers.Tokenizer]:
    special = [pad or "<unk>", "<s>", "<unk>"] if pad else ["<unk>", "<s>"]
    options = {"special_tokens": special, "show_progress": False}
    kinds, trainers = tokenizers.models, tokenizers.trainers
    return [
        made(kinds.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(**options)),
        made(kinds.BPE(unk_token="<unk>"), trainers.BpeTrainer(vocab_size=60, **options)),
        made(kinds.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(vocab_size=60, **options)),
        made(kinds.Unigram(), trainers.UnigramTrainer(vocab_size=40, unk_token="<unk>", **options)),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_the_numbers_of_a_tokenizer_move_up_unless_zero_is_padding(kind: int) -> None:
    text = "the fox é jumps"
    plain, padded = of_every_kind(None)[kind], of_every_kind("<pad>")[kind]
    moved = TextEncoding(padded_by_zero(plain.to_str(), "a"), 100)
    assert moved(texts(text, ""))[0:1].tolist() == [[number + 1 for number in plain.encode(text).ids]]
    kept = TextEncoding(padded_by_zero(padded.to_str(), "a"), 100)
    assert kept(texts(text))[:].tolist() == [padded.encode(text).ids]
    assert kept.words == padded.get_vocab_size()
    assert kept.is_of_words is (kind == 0)


def test_a_tokenizer_for_use_elsewhere_gives_the_same_numbers() -> None:
    encoding = TextEncoding.fit(texts("a b c d", "a b c d"), TextOptions(max_length=3))
    tokenizer = tokenizers.Tokenizer.from_str(encoding.padded)
    values = ["a b c d", "zzz", "c"]
    theirs = torch.tensor([found.ids for found in tokenizer.encode_batch(values)])
    assert torch.equal(theirs, encoding(texts(*values))[:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a tokenizer in JSON"),
        ("[1]", "it has no model"),
        ('{"model": 3}', "it has no model"),
        ('{"model": {}}', "not a tokenizer that can be used"),
        ("[" * 100_000, "not a tokenizer in JSON"),
        (json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 9}, "unk_token": "b"}}), "UNK"),
        (json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 4_000_000_000}}}), "a.json"),
    ],
)
def test_a_broken_tokenizer_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        TextEncoding.fit(texts("a"), TextOptions(tokenizer=str(tmp_path / "a.json")))
    assert "a.json" in str(caught.value)


def test_bytes_are_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"a\.json: not a tokenizer: it is not text in UTF-8"):
        TextEncoding.fit(texts("a"), TextOptions(tokenizer=str(tmp_path / "a.json")))


def test_a_folder_with_a_tokenizer_and_one_without(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(of_every_kind(None)[1].to_str())
    assert TextEncoding.fit(texts("the fox"), TextOptions(tokenizer=str(tmp_path))).noun == "tokens"
    with pytest.raises(FileNotFoundError, match=r"none/tokenizer.json|none: no such tokenizer"):
        TextEncoding.fit(texts("a"), TextOptions(tokenizer=str(tmp_path / "none")))


def test_numbers_beyond_the_vocabulary_are_refused() -> None:
    """Such as of a tokenizer whose special tokens have other numbers than its vocabulary."""
    content = json.loads(of_every_kind(None)[0].to_str())
    content["post_processor"]["special_tokens"]["<s>"]["ids"] = [999]
    with pytest.raises(ValueError, match="the number 999, and its vocabulary has"):
        TextEncoding(json.dumps(content), 10)(texts("the fox"))


REFUSED = [
    ({"text": ("nope",)}, "no column 'nope' for the text; there are 'text', 'label'"),
    ({"text": ("label",)}, "'label' cannot be both the text and something else"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_columns_that_cannot_be_text(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(reviews(tmp_path / "a.csv"), **options)


def test_numbers_named_as_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"x": {i}, "label": {i % 2}}}\n' for i in range(8)))
    with pytest.raises(ValueError, match="column 'x' holds values of type int64, not texts"):
        prepared(tmp_path / "a.jsonl", text=("x",))


def test_a_text_column_in_one_split_only(tmp_path: Path) -> None:
    reviews(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ("words", "label"), [("a film", "g"), ("a film", "b")])
    with pytest.raises(ValueError, match=r"test\.csv: no column 'text' for the text; there are 'words', 'label'"):
        prepared(tmp_path)


def test_the_column_is_found_in_training_rows_and_the_same_in_the_others(tmp_path: Path) -> None:
    reviews(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ("text", "label"), [("film", "g"), ("film", "b"), ("film", "b")])
    assert prepared(tmp_path).test[0][:].tolist() == [[1]] * 3


def test_texts_that_are_all_empty_or_all_rare(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all texts of column 'text' are empty"):
        prepared(write(tmp_path / "a.csv", ("text", "label"), [("", i % 2) for i in range(8)]), text=("text",))
    rows = [(f"one{i} two{i}", i % 2) for i in range(8)]
    with pytest.raises(ValueError, match="no word occurs at least 2 times in the training texts"):
        prepared(write(tmp_path / "b.csv", ("text", "label"), rows), text=("text",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "an empty file"),
        ('{"text": "a"}\n{"text": 5}\n', "not JSON lines with an object in each"),
        ("[1, 2]\n", "not JSON lines with an object in each"),
        ('{"text": "a"', "not JSON lines with an object in each"),
    ],
)
def test_damaged_json_lines(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_part(str(tmp_path / "a.jsonl"))


def test_lines_are_for_prediction(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one text\r\n\nanother, three\u2028words\n", encoding="utf8")
    assert load_part(str(path)).x.values.tolist() == ["one text", "", "another, three\u2028words"]
    with pytest.raises(ValueError, match="lines of text have no labels"):
        load(str(path))


def test_load_returns_padded_numbers(tmp_path: Path) -> None:
    found = load(str(reviews(tmp_path / "a.csv")), texts=TextOptions(max_length=3))
    assert found.x.dtype == torch.int64
    assert found.input_shape == (3, found.text.words)
    assert found.x.shape == (len(found.y), 3)


@pytest.mark.slow
def test_r8_as_it_is() -> None:
    if not R8.exists():
        pytest.skip("../shared/data is not there")
    found = prepared(R8)
    assert [len(part.classes) for part in found.card.parts] == [8, 8]
    assert (len(found.train[0]), len(found.test[0])) == (5485, 2189)
    assert 12_000 < found.text.words < 13_000
    assert int(found.train[0].values.max()) == found.text.words - 1


def random_rows(seed: int) -> tuple[TokenRows, list[list[int]]]:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 50, rng.integers(0, 6)).tolist() for _ in range(20)]
    values = torch.tensor([number for row in rows for number in row], dtype=torch.int32)
    return TokenRows(values, torch.tensor(np.cumsum([len(row) for row in rows])), 6), rows


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_tokens_are_padded_to_the_longest_of_those_taken(seed: int) -> None:
    tokens, rows = random_rows(seed)
    chosen = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:7]
    for batch, some in ((tokens[chosen], chosen.tolist()), (tokens[3:9], range(3, 9))):
        width = max(1, *(len(rows[i]) for i in some))
        assert batch.tolist() == [rows[i] + [0] * (width - len(rows[i])) for i in some]
    subset = tokens.rows(chosen)
    assert torch.equal(subset[:], tokens[chosen])
    assert subset.shape == (7, 6)
    assert len(tokens.rows(torch.arange(0))) == 0
    assert tokens.rows(torch.arange(0))[:].shape == (0, 1)


def test_notes_beside_the_data_of_a_folder_are_no_data(tmp_path: Path) -> None:
    reviews(tmp_path / "train.csv")
    (tmp_path / "train-notes.txt").write_text("notes")
    assert prepared(tmp_path).text.columns == ("text",)
