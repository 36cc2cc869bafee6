"""`elegan tune`: what may be searched, how trials are run, and that nothing is lost when a process dies."""

from __future__ import annotations

import json
import math
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import elegan
from conftest import elegan_command, make_npz, run_elegan
from elegan import UserError
from elegan.training.events import Lengthened, Planned, Saved, Step
from elegan.training.folder import RunFolder
from elegan.training.run import configure
from elegan.tuning import search as search_module
from elegan.tuning import trial as trial_module
from elegan.tuning.folder import SearchFolder
from elegan.tuning.plots import explained, importances
from elegan.tuning.results import Search
from elegan.tuning.scoring import Scorer, hold_out
from elegan.tuning.search import _take, own_values
from elegan.tuning.space import default_space, parse_space, with_values

BASE = configure("sngan-tiny", "garments")


@pytest.fixture(autouse=True)
def quick(quick_plan: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Planning costs one step, and only tests marked so draw pictures."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("elegan.training.run.plot_losses", lambda *_: None)
        for name in ("plot_history", "plot_what_mattered"):
            monkeypatch.setattr(f"elegan.tuning.plots.{name}", lambda *_: None)


@pytest.fixture
def drawn() -> None:
    """This test looks at the pictures."""


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return make_npz(tmp_path / "blobs.npz", count=400)


def tune(data: Path, out: Path, **options: Any) -> Search:
    settings = {"search": ["G_lr=1e-4..1e-2:log", "batch=8,16"], "steps": 8, "trials": 3, "samples": 100, "show": False}
    return elegan.tune("sngan-tiny", data, out, **settings | options)


# What may be searched


def test_a_search_is_not_judged_by_what_its_D_looks_through(blobs: Path) -> None:
    base = hold_out(configure("projected-tiny", str(blobs), settings={"features": "fashion-tuning"}))
    with pytest.raises(UserError, match="trained on the features 'fashion-tuning', so they cannot judge it"):
        Scorer(base, "frechet", "fashion-tuning", 100)
    Scorer(base, "frechet", "descriptors", 100)


def test_a_trial_that_looks_through_the_judge_fails_before_it_trains(tmp_path: Path) -> None:
    data = make_npz(tmp_path / "blobs.npz", side=28, count=400)
    choices = {"search": ["features=random,fashion-tuning"], "features": "fashion-tuning", "steps": 2, "samples": 100}
    found = elegan.tune("projected-tiny", data, tmp_path / "t", trials=4, show=False, **choices)
    own = [t for t in found.trials if t.values["features"] == "fashion-tuning"]
    assert own and all(t.outcome == "failed" and "cannot judge it" in t.why for t in own)
    assert not any(list(SearchFolder(tmp_path / "t").trial(t.number).glob("seed*")) for t in own)
    assert [t.outcome for t in found.trials if t not in own] == ["done"] * (4 - len(own))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("G_lr=1e-4..1e-3:log", "G_lr=0.0001..0.001:log"),
        ("G_lr=1e-4..1e-3", "G_lr=0.0001..0.001"),
        ("model.lr_hold=0.2..0.8:0.25", "lr_hold=0.2..0.7:0.25"),
        ("batch=32..128:32", "batch=32..128:32"),
        ("batch=10..128:32", "batch=10..106:32"),
        ("batch=32, 64,128", "batch=32,64,128"),
        ("upsampling=deconv,bilinear", "upsampling=deconv,bilinear"),
        ("upsampling=all", "upsampling=deconv,nearest,bilinear"),
        ("mirror=all", "mirror=true,false"),
        ("precision=fp32,bf16", "precision=fp32,bf16"),
    ],
)
def test_ranges_and_choices(item, expected):
    (dimension,) = parse_space([item], BASE)
    assert str(dimension) == expected
    assert parse_space([expected], BASE) == [dimension], "what a search writes down it reads back"


def test_a_dict_is_the_same():
    texts = parse_space(["G_lr=1e-4..1e-3:log", "batch=32,64", "mirror=true,false"], BASE)
    assert parse_space({"G_lr": "1e-4..1e-3:log", "batch": [32, 64], "mirror": [True, False]}, BASE) == texts
    assert texts[1].choices == (32, 64)
    assert texts[1].whole is False, "choices are taken as they are"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("G_rl=1e-4..1e-3", "unknown setting 'G_rl'; did you mean 'G_lr'"),
        ("G_lr", "a range is KEY="),
        ("=1..2", "a range is KEY="),
        ("G_lr=1e-4-1e-3", "valid number"),
        ("G_lr=1e-4", "leaves nothing to search"),
        ("G_lr=1e-3..1e-4", "lower end comes first"),
        ("G_lr=1e-3..1e-3", "lower end comes first"),
        ("G_lr=0..1e-3:log", "greater than 0"),
        ("beta1=0..0.9:log", "begins above 0"),
        ("beta1=0..1", "less than 1"),
        ("G_lr=1e-4..1e-3:lgo", "did you mean 'log'"),
        ("G_lr=1e-4..1e-3:1", "does not fit"),
        ("batch=1.5..4", "batch = '1.5'"),
        ("batch=8..64:0.5", "whole number"),
        ("batch=8,8", "names a value twice"),
        ("batch=all", "not one of a few values"),
        ("G_lr=a..b", "G_lr = 'a'"),
        ("upsampling=deconv,bilinaer", "did you mean 'bilinear'"),
        ("upsampling=bilinear", "it may be deconv, nearest, bilinear"),
        ("upsampling=1..3", "is not a number"),
        ("mirror=0..1", "is not a number"),
        ("seed=0,1", "--seeds 3"),
        ("budget=1m,2m", "equally long"),
        ("size=28,32", "would not compare"),
        ("keep=1,2", "how a run is watched"),
    ],
)
def test_mistakes_are_told_before_anything_runs(item, words):
    with pytest.raises(UserError) as caught:
        parse_space([item], BASE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_is_searched_once():
    with pytest.raises(UserError, match="given twice"):
        parse_space(["batch=8,16", "model.batch=32,64"], BASE)


@pytest.mark.parametrize("preset", ["fashion", "tiny", "wgan-tiny", "r3gan-tiny", "infogan-tiny"])
def test_every_recipe_has_a_space_of_its_own_around_its_own_values(preset):
    base = configure(preset, "garments")
    space = default_space(base)
    assert {"batch"} < {d.name for d in space}
    assert own_values(base, space).keys() == {d.name for d in space}, "the recipe itself lies inside"
    for d in space:
        for end in d.choices or (d.low, d.high):
            with_values(base, {d.key: end})


# Trials


def test_a_search_ends_with_the_best_settings_that_train_takes(blobs, tmp_path, drawn):
    found = tune(blobs, tmp_path / "s", trials=4)
    assert [t.number for t in found.trials] == [0, 1, 2, 3]
    assert found.trials[0].recipe
    assert found.trials[0].values == {"G_lr": BASE.model.G_lr} | {"batch": found.trials[0].values["batch"]}
    assert {t.outcome for t in found.trials} <= {"done", "pruned"}
    scores = [t.score for t in found.trials if t.score is not None]
    assert found.best.score == min(scores)
    text = str(found)
    assert "frechet (lower is better)" in text
    assert f"trial {found.best.number}" in found.best_yaml()
    for name in ("best.yaml", "what-mattered.png", "history.png", "search.db"):
        assert (tmp_path / "s" / name).is_file()
    content = yaml.safe_load((tmp_path / "s/best.yaml").read_text())
    assert content["model"]["G_lr"] == found.best.values["G_lr"]
    run = elegan.train(config=tmp_path / "s/best.yaml", out=tmp_path / "run", steps=2, show=False)
    assert run.config.model == found.config().model
    assert run.config.data.validation == 0, "the final run learns from all training images"


def test_trials_learn_and_are_scored_on_different_training_images(blobs, tmp_path, monkeypatch):
    from elegan.data.inspect import pixel_keys
    from elegan.metrics.evaluate import Judge

    judged: list[Any] = []
    monkeypatch.setattr(Judge, "__init__", spy(Judge.__init__, judged))
    found = tune(blobs, tmp_path / "s", trials=1)
    (train, held_out), run = judged[0], found.run(found.trials[0])
    assert run.data["fingerprint"] == train.fingerprint, "what it learns from"
    sides = [set(pixel_keys(np.asarray(d.images))) for d in (train, held_out, elegan.open_data(blobs, "test"))]
    assert not sides[0] & sides[1]
    assert not sides[1] & sides[2]
    assert len(held_out) >= 60, "small data holds out more than a tenth"


def spy(function: Any, seen: list) -> Any:
    def wrapped(self: Any, *args: Any, **options: Any) -> None:
        seen.append(args)
        function(self, *args, **options)

    return wrapped


def test_equal_time_is_timed_once_for_what_trains_equally_fast(blobs, tmp_path, monkeypatch):
    from elegan.training import plan

    monkeypatch.setattr(plan, "time_step", lambda step, engine, *a, **o: (step(), next(times))[1])
    times = iter([0.01 * (1 + i % 7) for i in range(1000)])
    found = tune(
        blobs,
        tmp_path / "s",
        steps=None,
        budget="0.2s",
        trials=5,
        prune="none",
        search=["G_lr=1e-4..1e-2", "batch=8,16"],
    )
    lengths: dict[int, set[int]] = {8: set(), 16: set()}
    for t in found.trials:
        path = tmp_path / f"s/trials/{t.number:04}/seed0/config.yaml"
        lengths[t.values["batch"]].add(yaml.safe_load(path.read_text())["train"]["images"])
    assert {len(seen) for seen in lengths.values()} == {1}, lengths
    assert lengths[8] != lengths[16]


def test_equal_images_are_planned_once(blobs, tmp_path):
    found = tune(blobs, tmp_path / "s", steps=None, budget="0.1s", equal="images", trials=2, prune="none")
    assert found.terms.length == {"images": 9 * 16}
    seen = {json.loads(p.read_text().splitlines()[-1])["images"] for p in tmp_path.glob("s/trials/*/scores.jsonl")}
    assert seen == {9 * 16}
    again = tune(blobs, tmp_path / "s", steps=None, budget="0.1s", equal="images", trials=2, prune="none")
    assert len(again.trials) == 2


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained: the score is a function of the settings."""
    monkeypatch.setattr(trial_module.Trial, "_score_at", scores_of(lambda c, share, seed: c.model.G_lr * (2 - share)))


def scores_of(values: Any) -> Any:
    """A stand-in for the judge: the score is a function of the trial's settings and the share trained."""

    def scored(self: Any, run: Any, config: Any, share: float, seed: int) -> float:
        return float(values(config, share, seed))

    return scored


def test_the_worse_half_is_given_up_early(blobs, tmp_path, untrained):
    found = tune(blobs, tmp_path / "s", trials=16)
    pruned = [t for t in found.trials if t.outcome == "pruned"]
    assert pruned
    assert all(len(t.reached) < 4 for t in pruned)
    assert min(t.values["G_lr"] for t in pruned) > found.best.values["G_lr"]
    assert not any(t.outcome == "pruned" for t in tune(blobs, tmp_path / "n", trials=16, prune="none").trials)


def test_what_mattered_is_what_the_score_follows(blobs, tmp_path, monkeypatch):
    def score(config: Any, share: float, seed: int) -> float:
        far = abs(math.log(config.model.G_lr / 1e-3)) + 0.1 * abs(math.log(config.model.D_lr / 1e-3))
        return (3 - 2 * share) * (1 + far + 2 * (config.model.upsampling == "deconv"))

    monkeypatch.setattr(trial_module.Trial, "_score_at", scores_of(score))
    space = ["D_lr=1e-4..1e-2:log", "G_lr=1e-4..1e-2:log", "batch=8,16", "upsampling=deconv,bilinear"]
    found = tune(blobs, tmp_path / "s", search=space, trials=24)
    shares = importances(found)
    assert set(list(shares)[:2]) == {"G_lr", "upsampling"}
    assert max(shares["D_lr"], shares["batch"]) < min(shares["G_lr"], shares["upsampling"])
    assert importances(tune(blobs, tmp_path / "few", search=space, trials=3)) == {}


def test_noise_explains_nothing():
    rng = np.random.default_rng(0)
    y = rng.random(40)
    assert explained((rng.integers(0, 3, (40, 1)) == rng.integers(0, 3, 40)).astype(float), y) < 0.2
    assert explained((y[:, None] // 0.2 == y[None] // 0.2).astype(float), y) > 0.7


@pytest.mark.parametrize(("count", "expected"), [("mean", 1.0), ("worst", 2.0)])
def test_several_seeds_count_together(blobs, tmp_path, monkeypatch, count, expected):
    monkeypatch.setattr(trial_module.Trial, "_score_at", scores_of(lambda c, share, seed: seed + 1 - share))
    found = tune(blobs, tmp_path / "s", trials=1, seeds=3, count=count)
    assert found.best.score == expected
    assert len(found.best.reached) == 12


def test_a_trial_that_diverges_is_recorded_and_the_search_goes_on(blobs, tmp_path):
    found = tune(blobs, tmp_path / "s", search=["G_lr=1e-4,1e30", "D_lr=1e-4..1e-3"], trials=4, prune="none")
    failed = [t for t in found.trials if t.outcome == "failed"]
    assert failed
    assert all(t.values["G_lr"] == 1e30 for t in failed)
    assert all("diverged" in t.why for t in failed)
    assert "diverged" in str(found)
    assert found.best.values["G_lr"] == 1e-4


def test_a_search_without_a_single_score_says_so(blobs, tmp_path):
    found = tune(blobs, tmp_path / "s", search=["G_lr=1e29,1e30"], trials=2)
    assert not found.ranked()
    assert "no trial is done yet" in str(found)
    assert not (tmp_path / "s/best.yaml").exists()
    with pytest.raises(UserError, match="no trial is done"):
        found.best


def test_only_the_best_keep_their_checkpoints(blobs, tmp_path):
    found = tune(blobs, tmp_path / "s", trials=4, prune="none")
    kept = {int(p.parent.parent.name) for p in tmp_path.glob("s/trials/*/seed0/checkpoints")}
    assert kept == {t.number for t in found.ranked()[:3]}
    assert found.run().sample(2).images.shape == (2, 12, 12, 1)


# Going on


def test_the_same_command_goes_on_and_another_is_refused(blobs, tmp_path, untrained):
    tune(blobs, tmp_path / "s", trials=2, prune="none")
    more = elegan.tune(out=tmp_path / "s", trials=3, show=False)
    assert [t.outcome for t in more.trials] == ["done"] * 3
    for change in ({"score": "recall"}, {"steps": 17}, {"search": ["G_lr=1e-4..1e-3"]}, {"z_dim": 3}, {"seed": 9}):
        with pytest.raises(UserError, match="on other terms"):
            tune(blobs, tmp_path / "s", prune="none", **change)


def test_an_interrupted_search_tries_what_an_unbroken_one_does(blobs, tmp_path, untrained):
    whole = tune(blobs, tmp_path / "whole", trials=12)
    for trials in (1, 5, 12):
        parts = tune(blobs, tmp_path / "parts", trials=trials)
    assert [(t.values, t.reached, t.score) for t in parts.trials] == [
        (t.values, t.reached, t.score) for t in whole.trials
    ]


def test_a_trial_that_was_killed_is_taken_up_where_its_run_stopped(blobs, tmp_path, monkeypatch):
    whole = tune(blobs, tmp_path / "whole", trials=2, prune="none")
    real, calls, died = trial_module.train_to, [], []

    def dies(run: Any, config: Any, length: Any, share: float, *rest: Any) -> None:
        real(run, config, length, share, *rest)
        if len(calls) == 6 and not died:  # after half of trial 1, before its score
            died.append(True)
            raise MemoryError("as if the system had killed it")
        calls.append(share)

    monkeypatch.setattr(trial_module, "train_to", dies)
    with pytest.raises(MemoryError):
        tune(blobs, tmp_path / "s", trials=2, prune="none")
    assert Search(tmp_path / "s").trials[1].outcome == "running"
    assert "not finished" in str(Search(tmp_path / "s"))
    found = tune(blobs, tmp_path / "s", trials=2, prune="none")
    assert calls == [0.125, 0.25, 0.5, 1.0, 0.125, 0.25, 0.5, 1.0]
    assert [(t.number, t.values, t.reached, t.score) for t in found.trials] == [
        (t.number, t.values, t.reached, t.score) for t in whole.trials
    ]


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(blobs, tmp_path, monkeypatch):
    def dies(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(trial_module, "train_to", dies)
    for _ in range(search_module.ATTEMPTS):
        with pytest.raises(MemoryError):
            tune(blobs, tmp_path / "s", trials=2)
    monkeypatch.setattr(trial_module.Trial, "_score_at", scores_of(lambda c, share, seed: 1.0))
    found = elegan.tune(out=tmp_path / "s", show=False)
    assert found.trials[0].outcome == "failed"
    assert "ended its process 3 times" in found.trials[0].why
    assert found.trials[1].outcome == "done"


def test_a_trial_belongs_to_one_process(blobs, tmp_path, untrained):
    tune(blobs, tmp_path / "s", trials=1)
    folder = SearchFolder(tmp_path / "s")
    terms, base, dimensions = folder.config()
    with folder.study() as study:
        more = terms.model_copy(update={"trials": 3})
        first = _take(folder, study, more, base, dimensions)
        second = _take(folder, study, more, base, dimensions)
        assert first is not None
        assert second is not None
        assert first[0].number != second[0].number
        assert _take(folder, study, more, base, dimensions) is None, "both are at work"
        first[1].close()  # as the system does when a process dies
        again = _take(folder, study, more, base, dimensions)
        assert again is not None
        assert again[0].number == first[0].number
        again[1].close()
        second[1].close()


# As its user runs it

QUICK = ("--preset", "sngan-tiny", "--budget", "0.4s", "--precision", "fp32", "--samples", 100)
ARGUMENTS = (*QUICK, "--search", "G_lr=1e-4..1e-2:log")


def test_killed_and_run_again(blobs, tmp_path):
    command = elegan_command("tune", "--data", blobs, *ARGUMENTS, "--trials", 3, "--out", tmp_path / "s")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial 1  "):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    done = run_elegan("tune", "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert "trial 0 of" not in done.stdout, "a trial that is done is not run again"
    assert "trial 1 of 3" in done.stdout
    found = Search(tmp_path / "s")
    assert [t.number for t in found.trials] == [0, 1, 2]
    assert {t.outcome for t in found.trials} <= {"done", "pruned"}


def test_two_workers_share_one_search(blobs, tmp_path):
    done = run_elegan(
        "tune", "--data", blobs, *ARGUMENTS, "--trials", 3, "--workers", 2, "--prune", "none", "--out", tmp_path / "s"
    )
    assert done.returncode == 0, done.stderr
    found = Search(tmp_path / "s")
    assert [t.number for t in found.trials] == [0, 1, 2]
    assert [t.outcome for t in found.trials] == ["done"] * 3
    assert len({t.values["G_lr"] for t in found.trials}) == 3
    assert all(f"trial {i} done" in done.stdout for i in range(3))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--search", "G_rl=1..2"], "did you mean"),
        (["--score", "frecht"], "did you mean 'frechet'"),
        (["--score", "copies"], "is not a number to search by"),
        (["--score", "label_accuracy"], "does not give it"),
        (["--trials", 0], "at least 1"),
        (["--workers", 0], "at least one process"),
        (["--prune", "medain"], "is one of median, hyperband, none"),
        (["--budget", "soon"], "is not a time"),
        (["--budget", "1m", "--steps", 3], "not several"),
        (["--features", "nowhere.safetensors"], "no feature weights"),
        (["--show", "nowhere"], "no such folder"),
    ],
)
def test_mistakes_leave_nothing_behind(blobs, tmp_path, monkeypatch, capsys, arguments, words):
    from elegan import cli

    monkeypatch.setattr("sys.argv", ["elegan", "tune", "--data", str(blobs), "--out", str(tmp_path / "s")])
    import sys

    sys.argv += ["--preset", "sngan-tiny", *map(str, arguments)]
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_the_state_of_a_search_is_shown_without_touching_it(blobs, tmp_path, monkeypatch, capsys, untrained):
    from elegan import cli

    tune(blobs, tmp_path / "s", trials=2)
    before = {p.name for p in (tmp_path / "s").iterdir()}
    monkeypatch.setattr("sys.argv", ["elegan", "tune", "--show", str(tmp_path / "s"), "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    shown = json.loads(capsys.readouterr().out)
    assert [t["number"] for t in shown["results"]] == [0, 1]
    assert shown["best"] == Search(tmp_path / "s").best.number
    assert {p.name for p in (tmp_path / "s").iterdir()} == before


def test_other_folders_are_left_alone(blobs, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no search"):
        tune(blobs, tmp_path / "s")
    with pytest.raises(UserError, match="not the folder of a search"):
        Search(tmp_path / "s")
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["thesis.txt"]


def test_damage_is_told_in_one_line(blobs, tmp_path, untrained):
    tune(blobs, tmp_path / "s", trials=1)
    (tmp_path / "s/search.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match=r"search\.db: cannot be used"):
        Search(tmp_path / "s")


def test_without_the_extra_one_line_says_so(blobs, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else find(name, *a))
    with pytest.raises(UserError, match=r"pip install 'elegan\[tune\]'"):
        tune(blobs, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_trial_whose_length_follows_the_machine_stops_at_its_share_of_that(tmp_path, monkeypatch):
    """What is remembered for the trials after it is the length that it came to."""
    told: list[tuple[int, bool]] = []

    def follows(*_: Any, stop: Any) -> Any:
        plan = {"preset": "", "family": "", "data": "", "device": "", "precision": "fp32", "parameters": {}, "batch": 8}
        yield Planned(**plan, images=80, seen=0, step_seconds=1.0, seconds=10.0, memory=0)
        yield Lengthened(8, 80, 160)
        for images in range(16, 161, 8):
            yield Step(images, 160, images // 8, 1.0, 8.0, 0, {})
            if stop():
                yield Saved(images, tmp_path)
        raise AssertionError("it went on")

    monkeypatch.setattr(trial_module, "events", follows)
    steps: list[int] = []

    def never() -> bool:
        steps.append(1)
        return False

    run = RunFolder(tmp_path / "run")
    trial_module.train_to(run, BASE, {"budget": "10s"}, 0.5, never, lambda *length: told.append(length))
    assert told == [(80, False), (160, True)]
    assert len(steps) == 80 // 8 - 2, "it stopped at half of 160 images"
