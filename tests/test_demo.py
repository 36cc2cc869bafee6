"""`elegan demo`: from nothing to scores and a sheet; again from where it stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from elegan import data, demo, families
from elegan.data import garments
from elegan.errors import UserError
from elegan.training.events import Step


def without_network(source: str, *_: Any, **__: Any) -> None:
    raise UserError(f"{source} is not on this machine and no mirror sent it (timed out); put the files into FOLDER")


def test_garments_where_there_is_no_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "open_data", without_network, raising=False)
    preset = demo.pick_preset()
    assert families.preset(preset)[1].data == "garments"
    assert capsys.readouterr().out.splitlines() == [
        "training on drawn garments instead: fashion-mnist is not on this machine and no mirror sent it "
        "(`elegan doctor` says where its files belong)"
    ]


def test_real_data_where_there_is_some(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(data, "open_data", lambda *_, **__: None, raising=False)
    assert demo.pick_preset() == families.DEFAULT_PRESET
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("preset", "size"), [("tiny", (10, 10)), ("sngan-tiny", (10, 10))])
def test_from_nothing_to_scores(
    preset: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(demo, "pick_preset", lambda: preset)
    monkeypatch.setattr(demo, "SAMPLES", 100)
    monkeypatch.setattr(garments, "DEFAULT_COUNT", {"train": 2_000, "test": 400})
    out = tmp_path / "demo"
    assert demo.demo(out, "1s") == 0
    printed = capsys.readouterr().out
    assert "Frechet distance" in printed and printed.splitlines()[-1] == f"samples: {out / 'sheet.png'}"
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == tuple(2 * (28 * n + 2 * (n - 1)) for n in size)

    monkeypatch.setattr("elegan.reports.evaluation.make", refuse)
    assert demo.demo(out, "1s") == 0  # done already: the same scores, at once
    again = capsys.readouterr().out
    assert again.startswith("going on with") and "Frechet distance" in again


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("scored again")


def test_a_wrong_budget_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a time"):
        demo.demo(tmp_path / "demo", "soon")
    assert not (tmp_path / "demo").exists()


def test_stopped_by_a_signal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def show(events: Any, folder: Path) -> None:
        steps = (event for event in events if isinstance(event, Step))
        next(steps)
        signal.raise_signal(signal.SIGTERM)
        assert len(list(steps)) <= 1  # the loop had asked before this step was shown

    monkeypatch.setattr(demo, "pick_preset", lambda: "tiny")
    monkeypatch.setattr("elegan.progress.show", show)
    monkeypatch.setattr(demo, "report", refuse)
    assert demo.demo(tmp_path / "demo", "5s") == 143
    assert list((tmp_path / "demo" / "checkpoints").glob("*.json"))
