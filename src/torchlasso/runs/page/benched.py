"""The measurements of ``torchlasso bench``, if there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torchlasso._core.files import read_json
from torchlasso._core.readable import byte_size
from torchlasso.html import paragraph, section, table
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown

# Columns for the largest batch or the model, by the name in the file: the heading, and the format of a value.
COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "rows_per_second": ("rows/s", lambda value: f"{value:,.0f}"),
    "peak_memory": ("memory", lambda value: byte_size(int(value))),
    "file_bytes": ("file", lambda value: byte_size(int(value))),
    "error": ("test error", lambda value: f"{100 * value:.2f} %"),
    "loss": ("test loss", lambda value: f"{value:.4f}"),
}

LARGEST = 1e18  # larger numbers in the file are not measurements

BenchRecord = Mapping[str, Any]  # a form of the model on batches of one size


@section_at(100)
def benched_section(run: Shown) -> str:
    """Compare the forms of the model in a table; empty if the file has no measurements."""
    record = read_json(run.folder.bench) if run.folder.bench.exists() else {}
    if not isinstance(record, dict):
        return ""
    measured = [each for each in _listed(record, "variants") if isinstance(each, dict) and _is_text(each.get("name"))]
    sizes = sorted({count for each in measured if (count := _number(each, "batch"))})
    keys = [key for key in COLUMNS if any(_number(each, key) is not None for each in measured)]
    rows = []
    for name in dict.fromkeys(each["name"] for each in measured):
        own = {_number(each, "batch"): each for each in measured if each["name"] == name}
        last = own[max(own, key=lambda count: count or 0)]
        rows.append([name, *(_time(own.get(count, {})) for count in sizes), *(_shown(last, key) for key in keys)])
    if not rows:
        return ""
    heads = ("", *(f"batch {count:,g}" for count in sizes), *(COLUMNS[key][0] for key in keys))
    missing = [paragraph(f"Not measured: {why}.", "note") for why in _listed(record, "missing") if _is_text(why)]
    return section(
        "Speed and size", table(heads, rows, "Forms of the model"), paragraph(_note(record), "note"), *missing
    )


def _note(record: BenchRecord) -> str:
    threads = _number(record, "threads")
    where = [f"on {record['device']}"] if _is_text(record.get("device")) else []
    where += [f"with {threads:g} thread{'s' * (threads != 1)}"] if threads else []
    return (
        "Milliseconds per batch: the median ± half of the interquartile range. Rows per second and memory are for the "
        f"largest batch.{' Measured ' * bool(where)}{' '.join(where)}{'.' * bool(where)}"
    )


def _listed(record: BenchRecord, key: str) -> Sequence[Any]:
    found = record.get(key)
    return found if isinstance(found, list) else []


def _number(record: BenchRecord, key: str) -> float | None:
    found = record.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) > LARGEST:
        return None
    return float(found)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _time(each: BenchRecord) -> str:
    median, spread = _number(each, "median_ms"), _number(each, "spread_ms")
    if median is None:
        return "–"
    digits = 3 if median < 1 else 2 if median < 10 else 1
    return f"{median:.{digits}f}" + ("" if spread is None else f" ± {spread / 2:.{digits}f}")


def _shown(each: BenchRecord, key: str) -> str:
    value = _number(each, key)
    return "–" if value is None else COLUMNS[key][1](value)
