"""Training a run: nothing is lost by a kill, an interrupt, a full disk or a diverged loss, and it can be watched."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import elegan
from conftest import elegan_command, make_npz
from elegan import families, images
from elegan.config import build
from elegan.errors import UserError
from elegan.families import gan
from elegan.families.base import Family, ImageSpec
from elegan.training import checkpoint, events, loop, plan
from elegan.training import run as run_module
from elegan.training.engine import Engine, has_bf16
from elegan.training.feed import Feed
from elegan.training.folder import RunFolder

pytestmark = pytest.mark.usefixtures("quick_plan")

#: Every quick run: small, saved every 4 steps, a row every 3, nothing decided by timing.
QUICK: dict[str, Any] = {
    "batch": 8,
    "precision": "fp32",
    "device": "cpu",
    "checkpoint_every": 4,
    "log_every": 3,
    "grids": 3,
    "grid_side": 2,
}
NARROW = {"G_widths": (8, 8, 8), "D_widths": (8, 8)}
SOON = {"ada_interval": 3, "ada_images": 400, "ada_target": 0.05}  # p rises within a few steps
CASES: dict[str, dict[str, Any]] = {
    "ema": {"preset": "tiny", "ema_half_life": 50, "lr_schedule": "linear", "mirror": True},
    "dropout": {"preset": "digits-dcgan", **NARROW},
    "labels": {"preset": "digits-cgan", **NARROW},
    "shared": {"preset": "fashion-dcgan", **NARROW},
    "separate": {"preset": "fashion-mlp", "G_widths": (16, 16), "D_widths": (16,)},
    "upsample": {
        "preset": "fashion-upsample",
        "G_widths": (8,) * 5,
        "D_widths": (8,) * 2,
        "D_strides": (1, 1),
        "D_kernels": (3, 3),
        "label_flip": 0.1,
    },
    "critic": {"preset": "tiny", "objective": "wasserstein", "D_steps": 3, "G_steps": 2, "weight_clip": 0.05},
    "default": {"preset": "sngan-tiny"},
    **{name: {"preset": f"{name}-tiny"} for name in families.names() if name not in ("gan", "sngan")},
    "ada": {"preset": "ada-tiny", **SOON},
    "stylegan2": {"preset": "stylegan2-tiny", "augment": "ada", **SOON},
    "progressive": {"preset": "progressive-tiny", "phase_images": 24},
}
STEPS = 10

#: Runs jobs, each in a child process that kills itself: no clean-up, no `finally`, as when the power goes.
KILLER = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import elegan, elegan.files
from elegan.training import plan, run
def time_step(step, *args, **options):
    step()
    return 0.01
plan.time_step = time_step
def die(): os.kill(os.getpid(), signal.SIGKILL)
for job in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        if "at_write" in job:  # in the middle of writing that file, its first half on the disk
            real = elegan.files.os.fsync
            def fsync(f):
                name = os.readlink(f"/proc/self/fd/{f}").split("/")[-1]
                number = (name.split(".") + [""])[1]
                if job["at_write"] in name and number.isdecimal() and int(number) >= job["after"]:
                    os.ftruncate(f, os.fstat(f).st_size // 2)
                    die()
                real(f)
            elegan.files.os.fsync = fsync
        if job.get("at_config"):
            run.RunFolder.write_config = lambda *_: die()
        if "at_step" in job:
            make = plan.make_step
            def make_step(*args):
                step, taken = make(*args), []
                def counted(seen):
                    if seen >= job["at_step"]: die()
                    return step(seen)
                return counted
            run.run_loop.__globals__["make_step"] = make_step
        elegan.train(**job["arguments"], show=False)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def kill(jobs: list[dict[str, Any]]) -> list[int]:
    """Run jobs and return how each child process ended: -9 for killed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(Path(elegan.__file__).parents[1])],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def train(out: Path, data: Path, case: str = "ema", **changes: Any) -> elegan.Run:
    return elegan.train(**arguments(out, data, case) | {"show": False} | changes)


def arguments(out: Path, data: Path, case: str = "ema") -> dict[str, Any]:
    return QUICK | {"out": str(out), "data": str(data), "steps": STEPS} | CASES[case]


def stats(run: Path) -> list[dict[str, Any]]:
    """stats.jsonl without what a clock and the system say."""
    rows = RunFolder(run).stats()
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "memory")} for row in rows]


def newest(run: Path) -> Path:
    return checkpoint.listing(run / "checkpoints")[0]


def assert_same_run(a: Path, b: Path) -> None:
    """Byte for byte the same weights, optimiser states, samples and grids; the same statistics."""
    assert newest(a).name == newest(b).name
    ours, theirs = (newest(run).with_suffix(".safetensors").read_bytes() for run in (a, b))
    assert ours == theirs
    assert stats(a) == stats(b)
    assert np.array_equal(elegan.load(a).sample(6, seed=3).images, elegan.load(b).sample(6, seed=3).images)
    for name in ("samples.png", *(f"grids/{p.name}" for p in RunFolder(a).grids())):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert [p.name for p in RunFolder(a).grids()] == [p.name for p in RunFolder(b).grids()]


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_stops_dead_goes_on_as_if_it_had_not(tmp_path, data, case):
    """2k steps equal k steps, the end of the process' memory, k steps: the generator is dropped where it stands."""
    given = arguments(tmp_path / "parts", data, case)
    settings = {k: v for k, v in given.items() if k not in ("out", "steps", "data", "preset")}
    run_folder, config = run_module.prepare(tmp_path / "parts", given["preset"], data, settings=settings)
    for event in run_module.events(config, run_folder, {"steps": STEPS}):
        if isinstance(event, events.Step) and event.steps == 6:
            break
    assert [int(p.stem) for p in checkpoint.listing(run_folder.checkpoints)] == [4 * event.images // 6]
    train(tmp_path / "parts", data, case)
    train(tmp_path / "whole", data, case)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_kill_9_and_the_same_command_again_is_an_uninterrupted_run(tmp_path, data):
    """SIGKILL in a step, in the middle of writing either file of a checkpoint, and while the folder is made."""
    ways = {
        "step": {"at_step": 6 * 8},
        "tensors": {"at_write": ".safetensors", "after": 64},
        "json": {"at_write": ".json", "after": 64},
        "start": {"at_config": True},
    }
    jobs = [{"arguments": arguments(tmp_path / way, data), **how} for way, how in ways.items()]
    assert kill(jobs) == [-9] * len(jobs)
    train(tmp_path / "whole", data)
    for way in ways:
        saved = checkpoint.listing(tmp_path / way / "checkpoints")
        assert [int(p.stem) for p in saved] == ([] if way == "start" else [32])
        train(tmp_path / way, data)
        assert_same_run(tmp_path / "whole", tmp_path / way)
        assert not list((tmp_path / way).rglob("*.tmp")), "a killed process' temporary files were left"


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="no bfloat16 in hardware")
def test_bfloat16_resumes_exactly_too(tmp_path, data):
    train(tmp_path / "whole", data, "dropout", precision="bf16")
    train(tmp_path / "parts", data, "dropout", precision="bf16", steps=4)
    train(tmp_path / "parts", data, "dropout", precision="bf16")
    ours, theirs = (newest(tmp_path / n).with_suffix(".safetensors").read_bytes() for n in ("whole", "parts"))
    assert ours == theirs


def test_training_from_config_yaml_again_gives_the_same_run(tmp_path, data):
    train(tmp_path / "a", data)
    elegan.train(config=tmp_path / "a" / "config.yaml", out=tmp_path / "b", show=False)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()


def test_a_planned_budget_is_not_planned_again(tmp_path, data):
    run = train(tmp_path / "a", data, steps=None, budget="0.96s")
    assert run.config.train.budget == "0.96s"
    assert run.config.train.images == 90 * 8  # 0.94 of 960 ms at 10 ms a step
    again = elegan.train(config=tmp_path / "a" / "config.yaml", out=tmp_path / "b", show=False)
    assert again.config.train.images == run.config.train.images
    assert train(tmp_path / "a", data, steps=None, budget="0m0.96s").images_seen == 90 * 8
    with pytest.raises(UserError, match="planned for 720 images; give --images"):
        train(tmp_path / "a", data, steps=None, budget="2s")


def test_seeds_and_repeats(tmp_path, data):
    a, b, c = (train(tmp_path / name, data, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert np.array_equal(a.sample(4).images, b.sample(4).images)
    assert not np.array_equal(a.sample(4).images, c.sample(4).images)


# What is in the folder --------------------------------------------------------------------------------------------


def test_the_run_folder(tmp_path, data):
    run = train(tmp_path / "run", data)
    names = {p.name for p in run.path.iterdir()}
    assert names == {
        "config.yaml", "data.json", "stats.jsonl", "real.png", "grids", "samples.png", "training.gif", "losses.png",
        "checkpoints", "sittings.jsonl",
    }  # fmt: skip
    assert [row["steps"] for row in run.stats] == [3, 6, 9, 10]
    assert {"D_loss", "G_loss", "D_real", "D_fake", "images", "seconds", "images_per_second"} <= run.stats[0].keys()
    assert [int(p.stem) for p in checkpoint.listing(run.path / "checkpoints")] == [80, 64]
    assert run.folder.grids()[0].stem == "000000000"
    content = yaml.safe_load((run.path / "config.yaml").read_text())
    assert content["train"]["images"] == 80
    assert content["model"]["ema_half_life"] == 50
    for name in ("samples.png", "real.png", "losses.png", "training.gif"):
        assert (run.path / name).stat().st_size > 100


def test_a_moved_run_still_samples_and_goes_on(tmp_path, data):
    run = train(tmp_path / "run", data)
    images = run.sample(3).images
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    shutil.move(run.path, moved)
    (tmp_path / "elsewhere" / "data").mkdir()
    shutil.move(data, tmp_path / "elsewhere" / "data" / "blobs.npz")
    assert np.array_equal(elegan.load(moved).sample(3).images, images)
    again = elegan.train(out=moved, data=tmp_path / "elsewhere" / "data" / "blobs.npz", steps=STEPS + 2, show=False)
    assert again.images_seen == 96


def test_scores_during_a_run_do_not_change_it(tmp_path):
    data = make_npz(tmp_path / "many.npz", side=8, count=400)
    train(tmp_path / "plain", data)
    run = train(tmp_path / "scored", data, score_every=40, score_samples=100)
    assert [row["images"] for row in run.folder.stats("scores.jsonl")] == [40, 80]
    assert_same_run(tmp_path / "plain", tmp_path / "scored")


# Going on -----------------------------------------------------------------------------------------------------------


def watch(out: Path, data: Path, length: dict[str, Any] | None = None, **changes: Any) -> list[Any]:
    """The events of a run, as the command line would see them."""
    settings = {
        k: v for k, v in (arguments(out, data) | changes).items() if k not in ("out", "steps", "data", "preset")
    }
    run_folder, config = run_module.prepare(out, "tiny", data, settings=settings)
    return list(run_module.events(config, run_folder, length or {"steps": STEPS}))


def kinds(found: list[Any]) -> list[str]:
    return [type(event).__name__ for event in found]


def test_a_finished_run_says_so(tmp_path, data):
    watch(tmp_path / "run", data)
    before = newest(tmp_path / "run").stat().st_mtime_ns
    found = watch(tmp_path / "run", data)
    assert kinds(found) == ["Warned", "Finished"]  # the note on the npz' test side, and the end
    assert newest(tmp_path / "run").stat().st_mtime_ns == before


def test_lengths_that_no_batch_divides(tmp_path, data):
    """The same command with --images 50 or --epochs 0.5 finds its own plan again."""
    for name, length, seen in (("a", {"images": 50}, 56), ("b", {"epochs": 0.5}, 48), ("c", {"epochs": 1.0}, 96)):
        assert kinds(watch(tmp_path / name, data, length))[-1] == "Finished"
        assert kinds(watch(tmp_path / name, data, length)) == ["Warned", "Finished"]
        assert int(newest(tmp_path / name).stem) == seen


def test_what_a_run_leaves_half_done_is_said_before_it_begins(tmp_path, data, monkeypatch):
    monkeypatch.setattr(Family, "unfinished", lambda self, total: f"{total} images are too few")
    found = watch(tmp_path / "run", data)
    assert [e.text for e in found if isinstance(e, events.Warned)][-1] == "80 images are too few"
    assert kinds(found)[-1] == "Finished"


def test_longer(tmp_path, data):
    watch(tmp_path / "run", data)
    found = watch(tmp_path / "run", data, {"images": 120})
    assert any(isinstance(e, events.Warned) and "from 80 to 120" in e.text for e in found)
    assert kinds(found)[-1] == "Finished"
    assert int(newest(tmp_path / "run").stem) == 120
    with pytest.raises(UserError, match="has already seen 120 images; 40 is less"):
        watch(tmp_path / "run", data, {"images": 40})
    train(tmp_path / "whole", data, "ema", steps=None, images=120)
    assert stats(tmp_path / "run")[:3] != []


def test_the_folder_alone_is_enough(tmp_path, data):
    train(tmp_path / "run", data, steps=4)
    run = elegan.train(out=tmp_path / "run", show=False)
    assert (run.images_seen, run.config.preset) == (32, "tiny")
    run = elegan.train(out=tmp_path / "run", images=48, keep=1, show=False)  # an unnamed preset is the run's own
    assert run.images_seen == 48
    assert len(checkpoint.listing(run.path / "checkpoints")) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "train.seed: 0 there, 1 asked"),
        ({"batch": 4}, "model.batch: 8 there, 4 asked"),
        ({"preset": "sngan-tiny"}, "family: 'gan' there, 'sngan' asked"),
        ({"mirror": False}, "data.mirror"),
        ({"G_lr": 0.1, "D_lr": 0.2}, "model.D_lr.*model.G_lr"),
    ],
)
def test_another_configuration_is_refused_by_name(tmp_path, data, changes, named):
    train(tmp_path / "run", data, steps=4)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    asked = arguments(tmp_path / "run", data) | changes
    if changes.get("preset"):
        asked = {key: asked[key] for key in ("out", "data", "preset")}
    with pytest.raises(UserError, match=named):
        elegan.train(**asked, show=False)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_other_data_is_refused(tmp_path, data):
    train(tmp_path / "run", data, steps=4)
    make_npz(data, channels=3)
    with pytest.raises(UserError, match="started on other data"):
        train(tmp_path / "run", data)


def test_a_lost_checkpoint_folder_is_told(tmp_path, data):
    watch(tmp_path / "run", data)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    found = watch(tmp_path / "run", data)
    assert any(isinstance(e, events.Warned) and "no checkpoint" in e.text for e in found)
    assert kinds(found)[-1] == "Finished"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "json"])
def test_a_damaged_checkpoint_is_passed_over_told_and_made_good(tmp_path, data, damage):
    train(tmp_path / "whole", data)
    train(tmp_path / "run", data)
    path = newest(tmp_path / "run")
    tensors = path.with_suffix(".safetensors")
    content = tensors.read_bytes()
    if damage == "truncated":
        tensors.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        tensors.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "missing":
        tensors.unlink()
    else:
        path.write_text('{"format": 1')
    run = elegan.load(tmp_path / "run")
    run.sample(1)
    assert len(run.faults) == 1
    found = watch(tmp_path / "run", data, **CASES["ema"])
    told = [e.text for e in found if isinstance(e, events.Warned) and "damaged" in e.text]
    assert len(told) == 1
    assert path.stem in told[0]
    assert next(e for e in found if isinstance(e, events.Planned)).seen == 64
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_all_checkpoints_damaged(tmp_path, data):
    train(tmp_path / "run", data)
    for path in checkpoint.listing(tmp_path / "run" / "checkpoints"):
        path.with_suffix(".safetensors").write_bytes(b"")
    rows = stats(tmp_path / "run")
    for use in (lambda: train(tmp_path / "run", data), lambda: elegan.load(tmp_path / "run").sample(1)):
        with pytest.raises(UserError, match="no checkpoint can be read"):
            use()
    assert stats(tmp_path / "run") == rows


# What goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["checkpoint", "grid", "stats"])
def test_a_full_disk(tmp_path, data, monkeypatch, place):
    train(tmp_path / "whole", data)
    run = tmp_path / "run"

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        target = {
            "checkpoint": (checkpoint, "write_bytes"), "grid": (images, "save_png"), "stats": (RunFolder, "append")
        }[place]  # fmt: skip
        original = getattr(*target)

        def late(*arguments: Any) -> Any:
            full_now = len(checkpoint.listing(run / "checkpoints")) > 0
            return full() if full_now else original(*arguments)

        patch.setattr(*target, late)
        with pytest.raises(UserError, match=r"disk is full|No space left") as caught:
            train(run, data)
    assert "\n" not in str(caught.value)
    assert not list(run.rglob("*.tmp"))
    assert elegan.load(run).sample(1).images.shape == (1, 12, 12, 1)
    train(run, data)
    assert_same_run(tmp_path / "whole", run)


def test_a_kernel_that_writes_no_more(tmp_path, data):
    """A limit on file sizes, as a full disk: real writes fail half-way, in a process of its own."""
    code = f"""
import resource, elegan
from elegan.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    elegan.train("tiny", {str(data)!r}, {str(tmp_path / "run")!r}, steps=4, precision="fp32", show=False)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)
    assert "the disk is full" in done.stdout, done.stderr
    assert checkpoint.listing(tmp_path / "run" / "checkpoints") == []
    assert not list((tmp_path / "run").rglob("*.tmp"))
    run = elegan.train(out=tmp_path / "run", show=False)
    assert run.images_seen == 64


def test_a_loss_that_is_not_a_number(tmp_path, data, monkeypatch):
    original = gan.Model.step

    def step(self: Any, batches: Any, clock: Any) -> dict[str, torch.Tensor]:
        values = original(self, batches, clock)
        return values | {"D_loss": values["D_loss"] * (float("nan") if clock.seen >= 48 else 1)}

    monkeypatch.setattr(gan.Model, "step", step)
    with pytest.raises(UserError, match=r"diverged after 72 images \(D_loss = nan\); the checkpoint at 64") as caught:
        train(tmp_path / "run", data, checkpoint_every=2)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert len(stats(tmp_path / "run")) == 2
    assert elegan.load(tmp_path / "run").sample(2).images.shape[0] == 2


def test_weights_that_are_not_numbers_are_never_saved(tmp_path, data):
    with pytest.raises(UserError, match="diverged"):
        train(tmp_path / "run", data, G_lr=1e38, D_lr=1e38, log_every=1000, checkpoint_every=1)
    for path in checkpoint.listing(tmp_path / "run" / "checkpoints"):
        tensors, _ = checkpoint.read(path)
        assert all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize(
    ("preset", "rates"), [("tiny", "--set G_lr=... --set D_lr=..."), ("r3gan-tiny", "--set lr=...")]
)
def test_what_to_do_against_divergence_names_the_familys_own_rates(tmp_path, preset, rates):
    family, chosen = families.preset(preset)
    model = families.get(family).Model(chosen.config, ImageSpec(1, 28, 28))
    next(model.parts.nets["G"].parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match=re.escape(f"learning rates ({rates})")):
        loop.save(model, RunFolder(tmp_path / "run"), loop.Progress(), keep=1)


def test_two_processes_in_one_folder(tmp_path, data):
    with RunFolder(tmp_path / "run").lock():
        with pytest.raises(UserError, match="another process is training here"):
            train(tmp_path / "run", data)
        assert (tmp_path / "run" / ".lock").exists(), "the one turned away must not unlock"
    assert not (tmp_path / "run").exists()
    train(tmp_path / "run", data, steps=1)
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_folder_with_something_else(tmp_path, data):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UserError, match="not empty and not a run folder"):
        train(tmp_path / "thesis", data)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    with pytest.raises(UserError, match="is a file"):
        train(data, data)


@pytest.mark.parametrize("changes", [{"data": "nowhere.npz"}, {"batch": 10**7}, {"z_dim": 10**12}, {"z_dim": 10**30}])
def test_a_run_that_cannot_start_leaves_nothing(tmp_path, data, changes):
    with pytest.raises(UserError):
        elegan.train(**arguments(tmp_path / "run", data) | changes, show=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("widths", [(10**6, 10**6, 8), (10**10, 8, 8), (10**18, 10**18, 8)])
def test_too_little_memory(tmp_path, data, widths):
    with pytest.raises(UserError, match="not enough memory") as caught:
        train(tmp_path / "run", data, G_widths=widths)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


LENGTHS = [("images", 0), ("images", -5), ("epochs", 0.0), ("steps", -1), ("epochs", float("nan"))]
LENGTHS += [("images", float("inf")), ("steps", "many"), ("budget", "soon"), ("budget", "0m"), ("budget", "")]


@pytest.mark.parametrize("length", [*({key: value} for key, value in LENGTHS), {"images": 8, "steps": 2}], ids=str)
def test_lengths_that_are_none(tmp_path, data, length):
    with pytest.raises(UserError):
        train(tmp_path / "run", data, **({"steps": None} | length))
    assert not (tmp_path / "run").exists()


# Interrupts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, data, monkeypatch, capsys, number):
    train(tmp_path / "whole", data)
    original = gan.Model.step

    def step(self: Any, batches: Any, clock: Any) -> dict[str, torch.Tensor]:
        if clock.seen == 40 and clock.total == 80:
            signal.raise_signal(number)
        return original(self, batches, clock)

    monkeypatch.setattr(gan.Model, "step", step)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path / "run", data, show=True)
    assert caught.value.signal == number  # type: ignore[attr-defined]
    assert signal.getsignal(number) is before
    assert "stopped and saved at 48 of 80 images; run the same command again" in capsys.readouterr().out
    assert newest(tmp_path / "run").stem == "000000048"
    monkeypatch.undo()
    train(tmp_path / "run", data)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("place", ["open_split", "plan", "build_model"])
def test_an_interrupt_before_training_leaves_nothing(tmp_path, data, monkeypatch, place):
    original = getattr(run_module, place)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(run_module, place, interrupted)
    with pytest.raises(run_module.Interrupted):
        train(tmp_path / "run", data)
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_does_not_wait(tmp_path, data, monkeypatch):
    original = gan.Model.step

    def step(self: Any, batches: Any, clock: Any) -> dict[str, torch.Tensor]:
        if clock.seen == 40 and clock.total == 80:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return original(self, batches, clock)

    monkeypatch.setattr(gan.Model, "step", step)
    with pytest.raises(run_module.Interrupted):
        train(tmp_path / "run", data)
    assert newest(tmp_path / "run").stem == "000000032"
    assert not (tmp_path / "run" / ".lock").exists()


def wait_for(path: Path, process: subprocess.Popen[Any]) -> None:
    end = time.monotonic() + 200
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists()


LONG = ("--steps", 10**6, "--precision", "fp32", "--set", "log_every=5", "--set", "batch=8", "--set", "grids=0")


def test_sigterm_to_the_command(tmp_path, data):
    command = elegan_command("train", "--preset", "tiny", "--data", data, "--out", tmp_path / "run", *LONG)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run" / "stats.jsonl", process)
    process.terminate()
    out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (143, "")
    assert "stopped and saved at" in out
    assert "\x1b" not in out, "control codes without a terminal"
    seen = int(newest(tmp_path / "run").stem)
    assert seen % 8 == 0
    assert elegan.load(tmp_path / "run").images_seen == seen


def test_ctrl_c_in_a_terminal_with_a_live_bar(tmp_path, data):
    command = elegan_command("train", "--preset", "tiny", "--data", data, "--out", tmp_path / "run", *LONG)
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = b""

    def read() -> bytes:
        try:
            return os.read(ours, 1 << 16)
        except OSError:
            return b""

    end = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < end:
        shown += read()
        if b"/8,000,000" in shown and b"real" in shown:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    while process.poll() is None and time.monotonic() < end:
        shown += read()
        time.sleep(0.02)
    shown += read()
    os.close(ours)
    assert process.returncode == 130, shown.decode()
    assert b"\x1b[" in shown, "a live bar moves the cursor"
    assert b"stopped and saved at" in shown
    assert checkpoint.listing(tmp_path / "run" / "checkpoints")


# The loop and the feed ----------------------------------------------------------------------------------------------


def test_events_come_one_by_one(tmp_path, data):
    run_folder, config = run_module.prepare(tmp_path / "run", "tiny", data, settings={"batch": 8, "precision": "fp32"})
    stream = run_module.events(config, run_folder, {"steps": 3})
    first = list(islice(stream, 3))
    stream.close()
    assert kinds(first) == ["Warned", "Planned", "Grid"]
    assert first[1].images == 24
    assert not (tmp_path / "run" / ".lock").exists()


def test_every_image_is_seen_once_an_epoch_in_a_new_order():
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    feed = Feed(images, None, 0, torch.device("cpu"))
    epochs = [feed.indices(10 * e, 10).tolist() for e in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = Feed(images, None, 1, torch.device("cpu"))
    assert other.indices(0, 10).tolist() != epochs[0]
    # any place can be asked for, in any order, across epochs
    assert feed.indices(7, 6).tolist() == epochs[0][7:] + epochs[1][:3]
    assert feed.indices(0, 25).tolist() == epochs[0] + epochs[1] + epochs[2][:5]


def test_batches_keep_images_with_their_labels():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1).repeat(4, 3)
    feed = Feed(images, np.arange(12) * 10, 0, torch.device("cpu"))
    batch = feed.batch(5, 20)
    pixels = (batch.images[:, 0, 0, 0] + 1) * 127.5
    assert batch.labels is not None
    assert torch.equal((pixels * 10).round().long(), batch.labels)


def test_mirrored_half_of_the_time_and_the_same_each_time():
    images = np.tile(np.array([0, 255], np.uint8), (400, 1, 1, 1))
    feed = Feed(images, None, 0, torch.device("cpu"), mirror=True)
    a, b = feed.batch(0, 400).images, feed.batch(0, 400).images
    assert torch.equal(a, b)
    assert 140 < int((a[:, 0, 0, 0] > 0).sum()) < 260


def test_a_read_only_array_is_not_written_to():
    images = np.zeros((4, 1, 2, 2), np.uint8)
    images.flags.writeable = False
    assert Feed(images, None, 0, torch.device("cpu")).batch(0, 4).images.min() == -1


def test_torn_and_odd_statistics_are_left_out(tmp_path):
    run = RunFolder(tmp_path)
    run.append({"images": 8, "D_loss": 1.0})
    with (tmp_path / "stats.jsonl").open("a") as f:
        f.write('12\n"x"\n[]\n{"steps": 3}\n{"images": "y"}\n{"images": 16, "D_lo')
    assert run.stats() == [{"images": 8, "D_loss": 1.0}]
    run.rewind(100)
    run.append({"images": 16})
    assert [row["images"] for row in run.stats()] == [8, 16]


def test_a_step_costs_what_its_kinds_cost_on_average(monkeypatch):
    """Networks that grow and lazy penalties: the plan asks the family which steps stand for all."""
    cost = {0: 5.0, 10: 1.0, 20: 3.0}
    model: Any = type("Growing", (), {"typical": lambda self, total: {0: 0.25, total // 10: 0.5, total // 5: 0.25}})()
    monkeypatch.setattr(plan, "time_step", lambda step, *_, **__: step())
    engine = Engine(torch.device("cpu"), "fp32")
    assert plan.typical_seconds(model, cost.__getitem__, engine, 1.0, 100) == 0.25 * 5 + 0.5 * 1 + 0.25 * 3


@pytest.mark.parametrize("preset", ["progressive-tiny", "stylegan2-tiny"])
def test_what_is_drawn_from_a_run_has_its_small_tensors(tmp_path, data, preset):
    """How far a network has grown, a mean style: sampling a run is sampling the model that was trained."""
    settings = {k: v for k, v in QUICK.items() if k != "batch"}
    run = elegan.train(preset, data, images=160, out=tmp_path / "run", **settings)
    tensors = checkpoint.newest(run.folder.checkpoints)[0]
    values = {name: value for name, value in tensors.items() if name.startswith("values/")}
    assert values
    model = elegan.load(run.path).model
    for name, value in values.items():
        assert value.abs().sum() > 0, name
        assert torch.equal(model.parts.values[name.removeprefix("values/")], value)


def test_the_plan_decides_once(tmp_path, data):
    config = build("tiny", "gan", gan.PRESETS["tiny"].config, train={"precision": "fp32"}, data={"source": str(data)})
    split = run_module.open_split(config, "train")
    spec = gan.ImageSpec(1, 12, 12, 3)
    planned, engine, event = plan.plan(
        config, spec, lambda device: Feed(split.images, split.labels, 0, device), {"budget": "10m"}
    )
    assert planned.train.images == int(0.94 * 600 / 0.01) * 16 == event.images
    assert planned.train.checkpoint_every == 12_000  # two minutes at 10 ms a step
    assert (planned.train.device, planned.train.precision, engine.precision) == ("cpu", "fp32", "fp32")
    assert event.parameters.keys() == {"G", "D"}
    assert event.memory > 1e6


def test_the_loop_waits_for_the_device_only_to_log(tmp_path, data, monkeypatch):
    """Reading a value stops a GPU: between rows of statistics no step's value may be read."""
    reads: list[int] = []
    original = loop.Sums.means
    monkeypatch.setattr(loop.Sums, "means", lambda self: (reads.append(self.steps), original(self))[1])
    train(tmp_path / "run", data, steps=7, log_every=3, checkpoint_every=100)
    assert reads == [3, 3, 1]


def test_every_step_has_its_own_noise_keyed_to_the_seed(tmp_path, data, monkeypatch):
    drawn: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    original = gan.Model.step
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):

        def step(self: Any, batches: Any, clock: Any, name: str = name) -> dict[str, torch.Tensor]:
            if clock.total == 80:  # not while planning
                drawn[name].append(torch.rand(()).item())
            return original(self, batches, clock)

        monkeypatch.setattr(gan.Model, "step", step)
        train(tmp_path / name, data, seed=seed)
    assert len(set(drawn["a"] + drawn["c"])) == 2 * STEPS
    assert drawn["a"] == drawn["b"]


def test_a_missing_tensorboard_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"elegan\[track\]"):
        elegan.train("tiny", out=tmp_path / "run", steps=1, tensorboard=True, show=False)
    assert not (tmp_path / "run").exists()


def test_bf16_is_refused_where_the_hardware_lacks_it(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elegan.train("tiny", data, tmp_path / "run", steps=1, precision="fp32", show=False)
    for module in ("plan", "engine"):
        monkeypatch.setattr(f"elegan.training.{module}.has_bf16", lambda device: False)
    with pytest.raises(UserError, match="fp32"):
        elegan.train("tiny", data, tmp_path / "new", steps=1, precision="bf16", show=False)
    with pytest.raises(UserError, match="fp32"):
        elegan.train(out=tmp_path / "run", steps=2, precision="bf16", show=False)
    assert not (tmp_path / "new").exists()
