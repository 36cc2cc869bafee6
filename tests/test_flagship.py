"""The verdicts of benchmarks/results/flagship.md: the worst seed counts, machine by machine, and misses are told."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from benchmarks import ablation, curves, flagship

from conftest import make_npz
from elegan.families import sngan
from elegan.families.base import ImageSpec


def row(goal: str = "fashion-10m", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A run that meets its goal in time."""
    good: dict[str, Any] = {
        "goal": goal, "seed": seed, "about": "2026-11-28, AVX2, 2 threads", "images": 300_000, "seconds": 590.0,
        "frechet": 0.3, "precision": 0.9, "recall": 0.7, "coverage": 0.9, "label_accuracy": 0.92, "uneven": 0.05,
        "copies": 0.0, "copies_of_test_images": 0.0009, "findings": [], "looks": 3, "looks_share": 0.01,
    }  # fmt: skip
    return good | changes


def verdicts(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """{(goal, number): worst and verdict} of the report's first table."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in flagship.report(rows).splitlines()]
    return {(cells[0], cells[1]): f"{cells[3]} {cells[5]}".strip() for cells in lines if len(cells) == 6}


def test_the_worst_seed_decides():
    rows = [row(), row(seed=1, frechet=0.39, recall=0.61), row(seed=2, frechet=0.41, recall=0.59)]
    found = verdicts(rows)
    assert found["fashion-10m", "frechet"] == "0.41 **missed**"
    assert found["fashion-10m", "recall"] == "0.59 **missed**"
    assert found["fashion-10m", "coverage"] == "0.9 met"
    assert verdicts(rows[:2])["fashion-10m", "frechet"] == "0.39 met"


@pytest.mark.parametrize(("number", "bad"), [("uneven", 0.21), ("copies", 0.002), ("label_accuracy", 0.9099)])
def test_every_number_of_a_goal_can_miss(number, bad):
    assert verdicts([row()])["fashion-10m", number].endswith("met")
    assert verdicts([row(**{number: bad})])["fashion-10m", number].endswith("**missed**")


def test_machines_stand_apart_and_what_was_not_run_is_said():
    found = verdicts([row(), row("fashion-10m on two cores of 2021", frechet=0.5)])
    assert found["fashion-10m", "frechet"].endswith("met")
    assert found["fashion-10m on two cores of 2021", "frechet"].endswith("**missed**")
    assert "not run" in found["digits-5m", "recall"]


def test_a_run_that_took_longer_is_late():
    assert verdicts([row(), row(seed=1, seconds=660.0)])["fashion-10m", "recall"] == "0.7 met, 10% late"


def test_the_picture_has_every_seed_and_machine(tmp_path):
    points = [{"seconds": 30, "frechet": 20}, {"seconds": 60, "frechet": 9}]
    rows = [{"preset": "fashion-mlp", "seed": 0, "points": points}]
    ends = [row("fashion-2m", seconds=110), row(), row("fashion-60m", seconds=3500, frechet=0.07)]
    ends += [
        row(f"{goal} on two cores of 2021", seed=seed) for goal in ("fashion-2m", "fashion-10m") for seed in (0, 1)
    ]
    curves.draw_panels(rows, ends, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert curves.of_goal(ends, "fashion-10m on two cores of 2021") == [(590 / 60, 0.3)] * 2
    assert curves.middle([(1.0, 2.0), (3.0, 6.0)]) == (2.0, 4.0)


# The ablation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ablation.WITHOUT)
def test_what_is_taken_out_is_gone_and_the_rest_stays(row):
    def model() -> Any:
        return sngan.Model(sngan.PRESETS["tiny"].config, ImageSpec(1, 16, 16, 3))

    def parts(m: Any) -> dict[str, bool]:
        assert m.G(torch.ones(3, m.config.z_dim), torch.arange(3)).shape == (3, 1, 16, 16)
        assert m.D(torch.ones(3, 1, 16, 16), torch.arange(3)).shape == (3,)
        return {
            "without G's class norms": all(hasattr(norm, "scale") for norm in m.G.norms),
            "without the class in D": m.D.embed is not None,
            "without D's spectral norms": all(hasattr(m.D.features[i], "parametrizations") for i in (0, 2)),
        }

    whole = parts(model())
    with mock.patch.object(*ablation.WITHOUT[row]):
        assert whole.pop(row)
        less = parts(model())
    assert not less.pop(row)
    assert less == whole


def test_a_row_is_trained_and_scored_without_its_part(tmp_path, monkeypatch):
    data = make_npz(tmp_path / "data.npz", count=900)
    options = ["--preset", "sngan-tiny", "--data", str(data), "--images", "64", "--samples", "40", "--seeds", "0"]
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--features", "pixels"]
    monkeypatch.setattr("sys.argv", ["ablation", *options, *places, "--without", "the class in D"])
    ablation.main()
    page = (tmp_path / "out" / "ablation-sngan-tiny.md").read_text()
    assert "| the recipe | 1 | 64 |" in page
    assert "| without the class in D | 1 | 64 |" in page
    monkeypatch.setattr("sys.argv", ["ablation", *options, *places, "--without", "hope"])
    with pytest.raises(SystemExit, match="2"):
        ablation.main()
