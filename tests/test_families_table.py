"""The table of all families: ranked by the mean over seeds, milliseconds only where time is what all had alike."""

from __future__ import annotations

from typing import Any

from benchmarks import families


def row(preset: str, protocol: str, seed: int, frechet: float, accuracy: float | None = 0.9) -> dict[str, Any]:
    return {
        "preset": preset, "protocol": protocol, "seed": seed, "images": 1_000, "seconds": 10.0, "ms_per_step": 12.0,
        "batch": 64, "frechet": frechet, "precision": 0.8, "recall": 0.5, "coverage": 0.6, "label_accuracy": accuracy,
        "about": "here, today",
    }  # fmt: skip


def test_the_nearest_to_the_data_comes_first_and_each_protocol_has_its_columns() -> None:
    rows = [row("far", "90s", 0, 5.0, None), row("near", "90s", 0, 1.0), row("near", "90s", 1, 3.0)]
    text = families.report([*rows, row("far", "500 images", 0, 7.0)])
    tables = [part.splitlines() for part in text.split("\n## ")[1:]]
    by_time, by_images = ([line.split(" | ") for line in table if line.startswith("| ")] for table in tables)
    assert [len(cells) for cells in by_time] == [11, 11, 11] and [len(cells) for cells in by_images] == [10, 10]
    assert by_time[0][-1] == "ms |" and by_time[1][-1] == "12 |" and by_images[0][-1] == "batch |"
    assert [cells[0] for cells in by_time[1:]] == ["| `near`", "| `far`"]
    assert by_time[1][1:4] == ["2", "2.00", "3.00"] and by_time[2][7] == ""  # no labels, no accuracy
    assert "--budget 90s" in tables[0][2] and "--images 500" in tables[1][2]
    assert [line for line in tables[0] if line == "here, today"]


def test_a_named_machine_has_a_table_of_its_own() -> None:
    protocol = families.named({"budget": "90s"}, "an old core")
    text = families.report([row("near", "90s", 0, 1.0), row("far", protocol, 0, 5.0)])
    assert text.count("## 90s") == 2 and '`python -m benchmarks.families --budget 90s --on "an old core"`' in text
    here, there = text.split("\n## ")[1:]
    assert "`near`" in here and "`far`" not in here and "`far`" in there and "| 12 |" in there


def test_the_table_is_of_all_presets_for_fashion() -> None:
    assert {"fashion", "fashion-mlp", "fashion-stylegan2"} <= set(families.presets())
    assert not {"digits", "garments", "tiny"} & set(families.presets())
