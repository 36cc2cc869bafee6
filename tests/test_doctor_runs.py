"""The doctor in a run: it changes nothing, finds what is planted, keeps the best state, and acts where told to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import elegan
from conftest import run_elegan
from elegan.cli import app
from elegan.doctor import checks, evidence
from elegan.doctor.finding import Finding
from elegan.errors import UserError
from elegan.families import sngan
from elegan.families.base import Family
from elegan.training import checkpoint, loop, plan, remedy
from elegan.training import run as run_module
from elegan.training.events import Checked, Event, Finished
from elegan.training.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick_plan")

STEPS = 12
QUICK: dict[str, Any] = {
    "batch": 8,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 4,
    "log_every": 2,
    "grids": 2,
    "grid_side": 2,
    "check_every": 24,
    "check_samples": 24,
    "check_share": 1,
}


@pytest.fixture(autouse=True)
def no_demands(monkeypatch: pytest.MonkeyPatch) -> None:
    """After twelve steps no generator is near its data, and every run is young: that is not the subject here."""
    monkeypatch.setattr(checks, "FAR", 1e9)
    monkeypatch.setattr(evidence, "YOUNG_BATCHES", 0)
    monkeypatch.setattr(evidence, "LATE_BATCHES", 0)


def train(out: Path, data: Path, preset: str = "sngan-tiny", **changes: Any) -> elegan.Run:
    arguments = QUICK | {"preset": preset, "data": str(data), "out": str(out), "steps": STEPS, "show": False}
    return elegan.train(**arguments | changes)


def watch(out: Path, data: Path, stop_after: int = 10**6, **changes: Any) -> list[Event]:
    """The events of a run that is asked to stop after so many steps of this sitting."""
    folder, config = run_module.prepare(out, "sngan-tiny", data, settings=QUICK | changes)
    asked = iter(range(-1, 10**6))  # the first question comes before the first step
    return list(run_module.events(config, folder, {"steps": STEPS}, stop=lambda: next(asked) >= stop_after - 1))


def weights(run: elegan.Run) -> bytes:
    newest = checkpoint.listing(run.folder.checkpoints)[0]
    return newest.with_suffix(".safetensors").read_bytes()


def rows(run: elegan.Run | Path, name: str) -> list[dict[str, Any]]:
    return RunFolder(run.path if isinstance(run, elegan.Run) else run).stats(name)


def plant(monkeypatch: pytest.MonkeyPatch, failure: Callable[[Family, int], None]) -> None:
    """Have `failure(model, seen)` happen to the model before every step."""

    def make_step(model: Family, *args: Any) -> Callable[[int], dict[str, Any]]:
        step = plan.make_step(model, *args)

        def stricken(seen: int) -> dict[str, Any]:
            failure(model, seen)
            return step(seen)

        return stricken

    monkeypatch.setattr(loop, "make_step", make_step)


def one_picture(model: Family, seen: int, start: int = 40) -> None:
    """From image `start` on G hears nothing of its noise and labels: a collapse to one picture."""
    if seen >= start and not getattr(model, "stricken", False):
        model.stricken = True  # type: ignore[attr-defined]
        for name in ("G", "G_ema"):
            model.parts.nets[name].register_forward_pre_hook(
                lambda _, inputs: tuple(torch.zeros_like(x) for x in inputs if x is not None)
            )


@pytest.mark.parametrize("preset", ["sngan-tiny", "tiny", "improved-tiny"])
def test_a_run_with_the_doctor_is_bit_for_bit_the_run_without(tmp_path, data, preset):
    """Batch norm's statistics, spectral norm's vectors and the random numbers stay as they would be."""
    seen = train(tmp_path / "seen", data, preset)
    alone = train(tmp_path / "alone", data, preset, check_share=0)
    assert [row["images"] for row in rows(seen, "checks.jsonl")] == [24, 48, 72, 96]
    assert rows(alone, "checks.jsonl") == []
    assert weights(seen) == weights(alone)


def test_a_run_that_was_interrupted_is_looked_at_as_one_that_was_not(tmp_path, data):
    whole = train(tmp_path / "whole", data)
    watch(tmp_path / "parts", data, stop_after=5)
    assert [row["images"] for row in rows(tmp_path / "parts", "checks.jsonl")] == [24]
    parts = train(tmp_path / "parts", data)
    assert weights(whole) == weights(parts)
    a, b = rows(whole, "checks.jsonl"), rows(parts, "checks.jsonl")
    clock = ("seconds", "moved")  # what moved since the last look is not known after a stop
    assert [{k: v for k, v in row.items() if k not in clock} for row in a] == [
        {k: v for k, v in row.items() if k not in clock} for row in b
    ]
    best = [checkpoint.listing(run.folder / "best")[0] for run in (whole, parts)]
    assert best[0].read_bytes() == best[1].read_bytes()


def test_the_best_state_is_kept_beside_the_last(tmp_path, data):
    events = watch(tmp_path / "run", data)
    looks = {e.images: e.numbers["frechet"] for e in events if isinstance(e, Checked)}
    (kept,) = checkpoint.listing(tmp_path / "run" / "best")
    images = int(kept.stem)
    assert looks[images] == min(looks.values())
    assert [e.images for e in events if isinstance(e, Checked) and e.best][-1] == images
    last, best = elegan.load(tmp_path / "run"), elegan.load(tmp_path / "run", checkpoint="best")
    assert (last.images_seen, best.images_seen) == (96, images)
    again = train(tmp_path / "again", data, images=images, steps=None)  # another plan: only to have an unlike one
    assert best.sample(4).images.shape == again.sample(4).images.shape
    with pytest.raises(UserError, match="did you mean 'best'"):
        elegan.load(tmp_path / "run", checkpoint="bets")


def test_the_best_is_chosen_by_the_number_asked_for(tmp_path, data):
    events = watch(tmp_path / "run", data, best_by="diversity")
    looks = {e.images: e.numbers["diversity"] for e in events if isinstance(e, Checked)}
    assert looks[int(checkpoint.listing(tmp_path / "run" / "best")[0].stem)] == max(looks.values())


def test_a_run_without_looks_has_no_best_and_says_so(tmp_path, data):
    run = train(tmp_path / "run", data, check_share=0)
    with pytest.raises(UserError, match=r"no best checkpoint.*check_every"):
        elegan.load(run.path, checkpoint="best").sample(2)


def test_patience_ends_a_run_early_and_it_stays_ended(tmp_path, data, monkeypatch):
    def still(model: Family, seen: int) -> None:  # nothing is learnt: no look is better than the first
        for optimizer in model.parts.optimizers.values():
            optimizer.step = lambda *_, **__: None  # type: ignore[method-assign]
        model.G_ema.eval()

    plant(monkeypatch, still)
    events = watch(tmp_path / "run", data, patience=2, best_by="recall")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.images == 72
    assert finished.checks == 3
    assert "ended at 72 of 96 images" in events[-2].text
    again = watch(tmp_path / "run", data, patience=2, best_by="recall")
    assert again[-1].images == 72
    assert elegan.load(tmp_path / "run", checkpoint="best").images_seen == 24


def test_a_collapse_is_found_at_the_next_look_and_shown(tmp_path, data, monkeypatch):
    plant(monkeypatch, one_picture)
    events = watch(tmp_path / "run", data)
    found = [e for e in events if isinstance(e, Finding) and e.check == "collapse"]
    assert [e.images for e in found] == [48], "told once, at the look after image 40"
    row = next(row for row in rows(tmp_path / "run", "findings.jsonl") if row["check"] == "collapse")
    assert row == found[0].row()
    assert (tmp_path / "run" / row["picture"]).is_file()
    assert row["evidence"]["twins"] == 1
    assert [row["images"] for row in rows(tmp_path / "run", "checks.jsonl") if "collapse" in row["findings"]] == [
        48,
        72,
        96,
    ]


def test_a_run_stops_at_a_collapse_when_told_to(tmp_path, data, monkeypatch):
    plant(monkeypatch, one_picture)
    with pytest.raises(remedy.Collapsed, match="stopped and saved at 48 images: The generator has collapsed") as error:
        watch(tmp_path / "run", data, on_collapse="stop")
    assert error.value.exit_code == 3
    assert elegan.load(tmp_path / "run").images_seen == 48


def test_a_run_goes_back_from_a_collapse_with_half_the_rates(tmp_path, data, monkeypatch):
    first: list[Family] = []

    def once(model: Family, seen: int) -> None:
        if not first:
            first.append(model)
        if model is first[0]:  # the model that the run goes back to is another one, and well
            one_picture(model, seen)

    plant(monkeypatch, once)
    events = watch(tmp_path / "run", data, on_collapse="rollback")
    assert isinstance(events[-1], Finished)
    assert events[-1].images == 96
    (back,) = rows(tmp_path / "run", "rollbacks.jsonl")
    assert (back["images"], back["from"], back["check"]) == (24, 48, "collapse")
    assert back["settings"] == {"G_lr": 1.5e-4, "D_lr": 3e-4}
    assert RunFolder(tmp_path / "run").config().model.G_lr == 3e-4, "config.yaml stays what was asked for"
    newest = checkpoint.read(checkpoint.listing(tmp_path / "run" / "checkpoints")[0])[1]
    assert newest["counters"]["steps"] == STEPS
    assert newest["optimizers"]["D"][0]["lr"] < 3e-4


def test_a_run_that_went_back_goes_on_exactly(tmp_path, data, monkeypatch):
    """Killed after it went back, it ends as one that was not: its settings are those that it went on with."""

    def until_there(model: Family, seen: int) -> None:
        if not (tmp_path / name / "rollbacks.jsonl").exists():
            one_picture(model, seen)

    plant(monkeypatch, until_there)
    name = "whole"
    watch(tmp_path / name, data, on_collapse="rollback")
    name = "parts"
    watch(tmp_path / name, data, stop_after=8, on_collapse="rollback")
    assert rows(tmp_path / name, "rollbacks.jsonl")
    watch(tmp_path / name, data, on_collapse="rollback")
    assert weights(elegan.load(tmp_path / "whole")) == weights(elegan.load(tmp_path / "parts"))


def test_a_run_does_not_go_back_for_ever(tmp_path, data, monkeypatch):
    plant(monkeypatch, lambda model, seen: one_picture(model, seen, start=0))
    with pytest.raises(remedy.Collapsed, match="has gone back 3 times"):
        watch(tmp_path / "run", data, on_collapse="rollback")
    assert [row["settings"]["G_lr"] for row in rows(tmp_path / "run", "rollbacks.jsonl")] == [1.5e-4, 7.5e-5, 3.75e-5]


def test_a_run_without_a_good_state_begins_again_and_looks_at_the_data_again(tmp_path, data, monkeypatch):
    def collapse(model: Family, seen: int) -> None:
        shutil.rmtree(tmp_path / "run" / "good", ignore_errors=True)
        if model is looked[0]:
            one_picture(model, seen, start=0)

    looked: list[Family] = []
    monkeypatch.setattr(sngan.Model, "prepare", lambda model, images, labels: looked.append(model))
    plant(monkeypatch, collapse)
    events = watch(tmp_path / "run", data, on_collapse="rollback")
    assert [row["images"] for row in rows(tmp_path / "run", "rollbacks.jsonl")] == [0]
    assert len(looked) == 2 and looked[0] is not looked[1]
    assert isinstance(events[-1], Finished) and events[-1].images == 96


def test_a_loss_that_is_no_number_is_recorded_with_the_tensor(tmp_path, data, monkeypatch):
    def break_down(model: Family, seen: int) -> None:
        if seen >= 40:
            with torch.no_grad():
                model.D.linear.parametrizations.weight.original.fill_(float("nan"))

    plant(monkeypatch, break_down)
    with pytest.raises(UserError, match=r"diverged after 48 images \([GD]'s .*weight"):
        watch(tmp_path / "run", data)
    (row,) = [row for row in rows(tmp_path / "run", "findings.jsonl") if row["check"] == "not finite"]
    assert "'s " in row["text"]


def test_looks_that_would_take_too_long_are_left_out(tmp_path, data):
    run = train(tmp_path / "run", data, check_share=1e-6)
    assert len(rows(run, "checks.jsonl")) == 1  # what the first costs is not known before


def test_the_run_says_what_the_looks_cost(tmp_path, data, capsys):
    run = train(tmp_path / "run", data, show=True)
    out = capsys.readouterr().out
    assert "4 looks by the doctor took" in out
    assert "look at 24: frechet" in out
    assert "WARNING: There are only 91 pictures" in out
    assert sum(row["seconds"] for row in rows(run, "checks.jsonl")) > 0


def test_the_plan_gives_looks_a_small_part_of_the_time():
    settings = plan.TrainConfig()
    long = plan.plan_checks(settings, images=100_000, run_seconds=600, block_seconds=0.1)
    looks = -(-100_000 // long["check_every"])
    assert looks * (5 * 0.1 + plan.CHECK_SECONDS) < plan.CHECK_SHARE * 600
    assert long["check_samples"] == 500
    assert plan.plan_checks(settings, 100_000, 60, 0.3)["check_samples"] == 250
    assert plan.plan_checks(settings, 1_000, 5, 0.3)["check_every"] == 0, "no looks in a short run"
    acting = plan.TrainConfig(on_collapse="stop")
    assert plan.plan_checks(acting, 1_000, 5, 0.3)["check_every"] == 100, "but where something hangs on them"


def test_the_doctor_on_demand(tmp_path, data):
    train(tmp_path / "run", data)
    done = run_elegan("doctor", tmp_path / "run", "-n", "24", "--json")
    content = json.loads(done.stdout)
    assert done.returncode == (0 if content["healthy"] else 1), done.stderr
    assert content["images"] == 96
    assert "small data" in [finding["check"] for finding in content["findings"]]
    assert content["numbers"].keys() >= {"frechet", "D_memory", "twins"}
    kept = rows(tmp_path / "run", "findings.jsonl")
    run_elegan("doctor", tmp_path / "run", "-n", "24", "--json")
    assert rows(tmp_path / "run", "findings.jsonl") == kept, "nothing is written down twice"


def test_the_doctor_of_a_collapsed_run_ends_with_1(tmp_path, data):
    run = train(tmp_path / "run", data)
    (path, *_) = checkpoint.listing(run.folder.checkpoints)
    model = run.model
    tensors, meta = checkpoint.read(path)
    with torch.no_grad():
        for name, value in tensors.items():
            if name.startswith("nets/G_ema/start") or "G_ema/embed" in name:
                value.zero_()
    checkpoint.restore(model.parts, tensors, meta["optimizers"])
    checkpoint.save(run.folder.checkpoints, model.parts, meta["counters"])
    done = CliRunner().invoke(app, ["doctor", str(run.path), "-n", "24"])
    assert done.exit_code == 1, done.output
    assert "PROBLEM   The generator has collapsed" in done.output
    assert "try       --set" in done.output


def test_the_doctor_of_no_run(tmp_path):
    done = run_elegan("doctor", tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_best_checkpoint_from_the_command_line(tmp_path, data):
    train(tmp_path / "run", data)
    done = run_elegan("sample", tmp_path / "run", "-n", "4", "--checkpoint", "best", "--out", tmp_path / "a.npz")
    assert done.returncode == 0, done.stderr
    done = run_elegan("evaluate", tmp_path / "a.npz", "--data", data, "--checkpoint", "best")
    assert done.returncode == 2
    assert "only a run has a best checkpoint" in done.stderr


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_discriminator_that_stops_between_two_looks_is_found_at_the_next(tmp_path, data, monkeypatch, steps):
    """Against the weights of the look before, it would still have moved."""

    def make_step(model: Family, *args: Any) -> Callable[[int], Any]:
        step = plan.make_step(model, *args)

        def stepped(seen: int) -> Any:
            if seen >= 8 * (2 * steps - 1):  # a step before the second look
                model.parts.optimizers["D"].step = lambda *_, **__: None
            return step(seen)

        return stepped

    monkeypatch.setattr(loop, "make_step", make_step)
    watch(tmp_path / "run", data, check_every=8 * steps)
    rows = RunFolder(tmp_path / "run").stats("checks.jsonl")
    found = ["D does not learn" in row["findings"] for row in rows]
    assert rows[1]["images"] == 16 * steps
    assert found[:2] == [False, True]
