"""`elegan info`, `presets`, `families`, `doctor`: the facts are right, and a damaged run is told of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import elegan
from elegan import about, catalogue, families
from elegan.config import DataConfig, TrainConfig
from elegan.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ten steps, with two checkpoints."""
    path = tmp_path_factory.mktemp("runs") / "small"
    elegan.train(preset="tiny", out=path, steps=10, checkpoint_every=5, log_every=5, grids=2, show=False)
    return path


def test_info_says_what_the_run_is(run: Path) -> None:
    info = about.run_info(run).to_dict()
    assert (info["preset"], info["family"]) == ("tiny", "gan")
    assert (info["images"], info["planned"], info["steps"]) == (160, 160, 10)
    assert info["data"] == {
        "source": "garments", "name": "garments", "count": 20_000,
        "height": 28, "width": 28, "channels": 1, "classes": 10,
    }  # fmt: skip
    assert [(c["images"], c["fault"]) for c in info["checkpoints"]] == [(80, None), (160, None)]
    assert info["values"]["D_loss"] > 0 and Path(info["last_grid"]).name == "000000160.png"
    assert json.loads(json.dumps(info)) == info


@pytest.mark.parametrize("preset", ["tiny", "sngan-tiny"])
def test_info_counts_parameters_without_loading_them(preset: str, tmp_path: Path) -> None:
    run = elegan.train(preset=preset, out=tmp_path / "run", steps=1, grids=0, show=False)
    nets = run.model.parts.nets
    expected = {n: sum(p.numel() for p in net.parameters()) for n, net in nets.items() if not n.endswith("_ema")}
    assert about.run_info(run.path).to_dict()["networks"] == expected


def test_info_needs_no_torch(run: Path) -> None:
    code = (
        f"import sys; from elegan.about import run_info; str(run_info({str(run)!r})); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_info_of_a_damaged_run(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    (damaged / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/000000160.json", "checkpoints/000000080.json"):
        (damaged / name).write_bytes((run / name).read_bytes())
    (damaged / "checkpoints/000000160.safetensors").write_bytes(b"\xff" * 100)
    (damaged / "stats.jsonl").write_text('{"images": 80, "steps": 5, "seconds": 1.0, "images_per_second"', "utf-8")
    report = about.run_info(damaged)
    late, early = sorted(report.to_dict()["checkpoints"], key=lambda c: -c["images"])
    assert "100 bytes of" in late["fault"] and "no such file" in early["fault"]
    assert "DAMAGED" in str(report) and "data.json is damaged" in str(report)


def test_info_of_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'small'"):
        about.run_info(run.with_name("smal"))
    with pytest.raises(UserError, match="not a run folder"):
        about.run_info(tmp_path)
    (tmp_path / "config.yaml").write_text("preset: tiny\ntrain: 3\n", "utf-8")
    with pytest.raises(UserError, match="damaged"):
        about.run_info(tmp_path)


def test_presets_and_families_are_all_there() -> None:
    entries = catalogue.preset_table().to_dict()
    assert {e["name"] for e in entries} == set(families.presets())
    assert entries[0]["default"] and entries[0]["name"] == families.DEFAULT_PRESET
    shown = {e["name"]: e["presets"] for e in catalogue.family_table().to_dict()}
    assert set(shown) == set(families.names()) and sum(map(len, shown.values())) == len(entries)


@pytest.mark.parametrize("name", families.names())
def test_a_family_says_its_idea_and_what_it_is_for(name: str) -> None:
    report = catalogue.family_details(name)
    content = report.to_dict()
    assert content["idea"][0].isupper() and content["idea"].endswith(".") and content["idea"].count(". ") == 0
    assert content["use"] and not content["use"].endswith(".")
    assert content["cost"] is None and content["text"].startswith(families.get(name).__doc__.split("\n")[0])
    assert all(preset in str(report) for preset in content["presets"])


def test_a_family_is_timed_when_asked() -> None:
    report = catalogue.family_details("sngan", seconds=0.01)  # not "gan", whose first preset has steps of seconds
    cost = report.to_dict()["cost"]
    assert cost["preset"] == "fashion" and cost["images_per_second"] > 0 and "images/s" in str(report)
    with pytest.raises(UserError, match="did you mean 'wgan'"):
        catalogue.family_details("wgam")


@pytest.mark.parametrize("name", sorted(families.presets()))
def test_every_setting_has_help_and_its_value(name: str) -> None:
    report = catalogue.preset_settings(name)
    content, preset = report.to_dict(), families.preset(name)[1]
    for section, config in (("data", DataConfig()), ("train", TrainConfig()), ("model", preset.config)):
        assert set(content[section]) == set(type(config).model_fields)
        for key, entry in content[section].items():
            assert entry["help"].endswith("."), f"{section}.{key} has no help"
            assert key in str(report)
    assert content["model"]["batch"]["value"] == preset.config.batch
    assert content["data"]["source"]["value"] == preset.data
    assert not content["train"]["images"]["default"]


def test_the_marks_of_a_preset_are_its_own_changes() -> None:
    model = catalogue.preset_settings("fashion-dcgan").to_dict()["model"]
    assert not model["slope"]["default"] and model["slope"]["value"] == 0.3
    assert model["conditional"]["default"]
    assert model["updates"]["choices"] == ["joint", "separate", "shared"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_keep_to_the_width(width: int) -> None:
    for report in (catalogue.preset_table(), catalogue.family_table(), catalogue.preset_settings("fashion")):
        lines = report.text(width).splitlines()
        rest = [len(line) for line in lines if len(line) > width]
        assert not rest or width < 80, rest  # narrow terminals: the last column keeps twenty letters
        assert all(line == line.rstrip() for line in lines)


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELEGAN_DATA", str(tmp_path))
    monkeypatch.setenv("ELEGAN_CACHE", str(tmp_path / "cache"))
    report = about.machine()
    facts = report.to_dict()
    assert facts["torch"] == torch.__version__ and facts["cache"] == str(tmp_path / "cache")
    assert facts["bf16"]["speed_over_fp32"] > 0 and facts["memory"]["total"] > 1e8
    assert "downloads it" in facts["data"]["fashion-mnist"] and "no files" in facts["data"]["garments"]
    assert "track" in facts["extras"] and "dev" not in facts["extras"]
    assert "fashion-mnist" in str(report)
