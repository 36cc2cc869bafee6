"""The harness of docs/evidence.md: every row can be measured, verdicts follow from results, results are kept."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.evidence import __main__ as command
from benchmarks.evidence import cost, page, table
from benchmarks.evidence import lab as lab_module
from benchmarks.evidence.gate import Gate
from benchmarks.evidence.gates import critics, drawn, labels, plain, scales, small, techniques
from benchmarks.evidence.lab import Lab
from benchmarks.evidence.table import GATES

from conftest import make_npz


def gate(holds: Any = lambda m: m["x"] > 1, **changes: Any) -> Gate:
    """A row that holds above 1."""
    row = {"name": "g", "family": "f", "claim": "c", "threshold": "t", "holds": holds, "measure": "plain.dcgan"}
    return Gate(**(row | changes))


def test_every_row_can_be_measured():
    assert len({g.name for g in GATES}) == len(GATES)
    for row in GATES:
        assert callable(row.function()), row.name
        assert row.claim.endswith("."), row.name
        assert row.control or row.broken, f"{row.name}: a gate needs a planted fault or a control"


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    for module in (page, command):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def measure(row: Gate, value: Any, seed: int = 0, broken: bool = False, monkeypatch: Any = None) -> bool:
    monkeypatch.setattr(Gate, "function", lambda self: lambda lab: {"x": value})
    return command.measure(row, seed, broken, Path("runs"), math.inf)


def test_a_gate_holds_when_all_its_seeds_do(results, monkeypatch):
    row = gate()
    assert page.verdict(row) == "not run"
    assert measure(row, 2.0, monkeypatch=monkeypatch)
    assert page.verdict(row) == "**holds** (1 of 1 seed)"
    assert page.verdict(gate(holds=lambda m: m["x"] > 3)) == "**missed** (0 of 1 seed)", "judged by today's threshold"
    measure(row, torch.tensor(0.5), seed=1, monkeypatch=monkeypatch)
    assert page.verdict(row) == "**missed** (1 of 2 seeds)"
    assert page.verdict(gate(control=True)) == "**neutral** (1 of 2 seeds)"
    stored = json.loads((results / "g-seed1.json").read_text())
    assert stored["measured"] == {"x": 0.5}
    assert stored["command"] == "python -m benchmarks.evidence g --seeds 1"


def test_what_is_not_a_number_never_holds(results, monkeypatch):
    measure(gate(holds=lambda m: True), float("nan"), monkeypatch=monkeypatch)
    assert page.verdict(gate()) == "**missed** (0 of 1 seed)"
    assert "x not a number" in page.page([gate()], "")


def test_the_planted_fault_must_miss(results, monkeypatch):
    row = gate(broken="a fault")
    assert page.calibration(row) == "Planted fault (a fault): not run."
    measure(row, 0.0, broken=True, monkeypatch=monkeypatch)
    assert "missed, as it must (x 0)" in page.calibration(row)
    assert page.verdict(row) == "not run", "a broken variant is no result"
    measure(row, 5.0, broken=True, monkeypatch=monkeypatch)
    assert "passed too: the gate cannot tell" in page.calibration(row)


def test_a_measurement_is_not_repeated_and_stops_in_time(results, monkeypatch, capsys):
    row, calls = gate(), []

    def function(self: Gate) -> Any:
        def run(lab: Lab) -> dict[str, float]:
            calls.append(lab.seed)
            if len(calls) == 1:
                raise lab_module.OutOfTime("half way")
            return {"x": 3.0}

        return run

    monkeypatch.setattr(Gate, "function", function)
    monkeypatch.setattr(table, "GATES", [row])
    for expected in (75, 0, 0):
        monkeypatch.setattr("sys.argv", ["evidence", "f", "--seeds", "4"])
        assert command.main() == expected
    assert calls == [4, 4]
    assert "half way" in capsys.readouterr().out


def test_training_stops_goes_on_and_keeps_checkpoints(tmp_path, data, monkeypatch):
    lab = Lab(3, False, tmp_path, deadline=0.0)  # the time is over after the first step
    settings: dict[str, Any] = {"data": data, "checkpoints": 2, "batch": 8, "train.device": "cpu"}
    with pytest.raises(lab_module.OutOfTime):
        lab.train("a", "tiny", 64, **settings)
    lab.deadline = math.inf
    run = lab.train("a", "tiny", 64, **settings)
    assert [seen for seen, _ in lab.models(run)][-2:] == [32, 64]
    assert lab.picture == tmp_path / "a-seed3" / "samples.png"
    monkeypatch.setattr(lab_module, "SAMPLES", 10)
    images, asked = lab.samples(run)
    assert images.shape == (10, 12, 12, 1)
    assert asked is None


def test_the_broken_variant_is_another_run_of_a_changed_model(tmp_path, data):
    changed = []
    for broken in (False, True):
        lab = Lab(0, broken, tmp_path)
        run = lab.train("a", "tiny", 16, data=data, batch=8, sabotage=changed.append if broken else None)
        assert run.path.name == ("a-broken-seed0" if broken else "a-seed0")
    assert len(changed) >= 1


def test_faults_change_what_they_say(data):
    from elegan import families
    from elegan.families.base import Batch, Clock, ImageSpec

    model = families.get("gan").Model(families.preset("tiny")[1].config, ImageSpec(1, 12, 12, 3))
    logits = torch.tensor([5.0, -5.0])
    before = model.objective.G(logits)
    plain.wrong_sign(model)
    assert model.objective.G(logits) == -before
    plain.mixed_codings(model)
    assert model.objective.G(logits) > model.objective.G(torch.zeros(2)) == 0
    conditional = families.get("sngan").Model(families.preset("sngan-tiny")[1].config, ImageSpec(1, 12, 12, 3))
    labels.shuffled(conditional)
    seen: list[torch.Tensor] = []
    conditional.D.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    conditional.D(torch.rand(30, 1, 12, 12), torch.arange(30) % 3)
    assert not torch.equal(seen[0], torch.arange(30) % 3)
    grown = families.get("progressive").Model(families.preset("progressive-tiny")[1].config, ImageSpec(1, 12, 12))
    scales.forgetful(grown)
    last, kept = grown.D.out.weight, []
    for place in (0, 100, 900):  # steady, steady, grown
        kept.append(last.detach().clone())
        grown.step([Batch(torch.rand(16, 1, 12, 12), None)] * grown.batches_per_step, Clock(place, 1000))
    moved = [(after - before).abs().max() for before, after in itertools.pairwise([*kept, last])]
    assert moved[0] < 0.01 and moved[1] < 0.01 < moved[2]


def test_measures_on_what_is_known():
    """A checkerboard has all its power at the highest frequency; a leaning bar has its slant; 25 Gaussians are 25."""
    board = np.indices((28, 28)).sum(0) % 2 * 255
    smooth = np.full((1, 28, 28), 200)
    assert plain.nyquist(board[None]) > 1e3 * plain.nyquist(smooth)
    bar = np.zeros((28, 28), np.uint8)
    for y in range(4, 24):
        bar[y, 4 + y // 2] = 255
    assert labels.shape_of(bar)[0] == pytest.approx(0.5, abs=0.02)
    assert labels.shape_of(np.eye(28, dtype=np.uint8) * 255)[0] == pytest.approx(1, abs=0.01)
    left, right = drawn.halves(torch.cat([bars := torch.rand(2, 1, 4, 3), bars.flip(3)], 3))
    assert torch.equal(left, right)
    points = critics.points(5_000)
    assert len(torch.unique(points.round(), dim=0)) == 25
    assert ((points - points.round()).norm(dim=1) < 0.2).float().mean() > 0.99


def test_few_pictures_are_the_same_in_every_class(tmp_path, monkeypatch):
    path = make_npz(tmp_path / "all.npz")
    first = lab_module.few(str(path), 30, tmp_path / "few")
    with np.load(first) as archive:
        assert np.bincount(archive["labels"]).tolist() == [10, 10, 10]
        assert archive["images"].shape == (30, 12, 12, 1)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_every_gate_runs_through(broken, tmp_path, monkeypatch):
    """Each measurement from end to end, after a few steps and on few samples: the numbers mean nothing."""
    monkeypatch.setattr(lab_module, "SAMPLES", 400)
    monkeypatch.setattr(critics, "STEPS", 5)
    monkeypatch.setattr(techniques, "STEPS", 5)
    monkeypatch.setattr(small, "DETECTOR", 640)
    monkeypatch.setattr(drawn, "READER_STEPS", 5)
    monkeypatch.setattr(critics, "PUBLISHED", 400)
    train = Lab.train
    monkeypatch.setattr(
        Lab,
        "train",
        lambda self, name, preset, images, **options: train(
            self, name, preset, 4_000 if options.get("checkpoints", 1) > 1 else 640, **options
        ),
    )
    for row in GATES:
        if row.broken or not broken:
            with lab_module.one_thread():  # in this process, whose trainings are that short
                found = row.function()(Lab(0, broken, tmp_path))
            numbers = [float(value) for value in found.values() if not isinstance(value, str)]  # a text is a curve
            assert numbers, row.name
            assert all(map(math.isfinite, numbers)), (row.name, found)
            measured = {k: v if isinstance(v, str) else float(v) for k, v in found.items()}
            assert row.holds(measured) in (True, False)


def test_gates_are_measured_side_by_side(results, monkeypatch, tmp_path):
    asked: list[list[str]] = []
    monkeypatch.setattr(command, "run_all", lambda commands, jobs: asked.extend(commands) or jobs)
    monkeypatch.setattr("sys.argv", ["evidence", "r1", "ema", "--seeds", "1,2", "--jobs", "2", "--runs", str(tmp_path)])
    assert command.main() == 2
    assert [(c[-3], c[-1]) for c in asked] == [("r1", "1"), ("r1", "2"), ("ema", "1"), ("ema", "2")]
    assert all(c[3:5] == ["--runs", str(tmp_path)] for c in asked)


def test_gates_that_have_a_result_are_not_measured_again(results, monkeypatch, tmp_path):
    results.mkdir()
    (results / "r1-seed1.json").write_text("{}")
    asked: list[list[str]] = []
    monkeypatch.setattr(command, "run_all", lambda commands, jobs: asked.extend(commands) or 0)
    monkeypatch.setattr("sys.argv", ["evidence", "r1", "--seeds", "1,2", "--jobs", "2"])
    assert command.main() == 0
    assert [c[-1] for c in asked] == ["2"]
    monkeypatch.setattr("sys.argv", ["evidence", "r1", "--jobs", "2", "--stop-after", "60"])
    with pytest.raises(SystemExit, match="2"):
        command.main()


def test_a_cut_training_tells_what_the_whole_would_take(tmp_path, data):
    lab = Lab(0, False, tmp_path, cut=8)
    run = lab.train("a", "tiny", 800, data=data, batch=8, **{"train.device": "cpu"})
    assert run.images_seen == 64
    assert lab.trained == ["a: tiny, 800 images"]
    slowest, quickest = (8 / pick(row["images_per_second"] for row in run.stats) for pick in (min, max))
    assert 92 * quickest <= lab.left["a-seed0"] <= 92 * slowest
    assert lab.seconds(run) == pytest.approx(run.stats[-1]["seconds"] + lab.left["a-seed0"])
    whole = Lab(1, False, tmp_path)
    done = whole.train("a", "tiny", 64, data=data, batch=8, **{"train.device": "cpu"})
    assert whole.left == {}
    assert whole.seconds(done) == done.stats[-1]["seconds"]


@pytest.mark.parametrize("threads", [1, 2])
def test_trainings_at_once(threads, tmp_path, data, monkeypatch):
    """They are what they are one after the other, and take as long as the longest of them."""
    tiny = {"preset": "tiny", "images": 800, "data": data, "batch": 8, "train.device": "cpu"}
    asked = [tiny | {"name": "a", "G_lr": 1e-3}, tiny | {"name": "b", "images": 1600}]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    lab = Lab(0, False, tmp_path, cut=4)
    lab.left = {"before": 1.0}
    runs = lab.together(*asked)
    assert lab.trained == ["a: tiny, 800 images", "b: tiny, 1,600 images"]
    assert [run.images_seen for run in runs] == [32, 32]
    assert runs[0].config.model.G_lr == 1e-3
    alone = Lab(0, False, tmp_path, cut=4)
    for arguments in asked:
        alone.train(**arguments)
    left = list(alone.left.values())
    assert lab.left == {"before": 1.0, "a-seed0 and b-seed0": pytest.approx(sum(left) if threads == 1 else max(left))}
    again = Lab(0, False, tmp_path / "again", cut=4).train(**asked[1])
    np.testing.assert_array_equal(runs[1].sample(9, seed=1).images, again.sample(9, seed=1).images)


def test_the_page_tells_what_a_gate_takes_on_every_machine(results, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "COST", tmp_path / "cost.json")
    unmeasured = page.page([gate()], "")
    assert "Minutes:" not in unmeasured
    assert "minutes on A" not in unmeasured
    known = {
        "a laptop": {"date": "2026-11-29", "minutes": {"g": 7.5}},
        "a server": {"date": "2026-12-01", "minutes": {"g": 2.5, "h": 3.0}},
    }
    (tmp_path / "cost.json").write_text(json.dumps(known), encoding="utf-8")
    text = page.page([gate(), gate(name="h")], "")
    assert "| minutes on A | minutes on B |" in text
    assert "| f | [g](#g) | not run | 7.5 | 2.5 |" in text
    assert "| f | [h](#h) | not run |  | 3.0 |" in text
    assert "A is 2026-11-29, a laptop; B is 2026-12-01, a server." in text


def test_minutes_of_another_machine_stay():
    laptop = {"date": "2026-11-29", "minutes": {"g": 7.5}}
    known = {"a laptop, 2 threads": laptop}
    more = cost.joined(known, "h", 66.0, "2026-12-01, a laptop, 2 threads")
    assert more == {"a laptop, 2 threads": {"date": "2026-12-01", "minutes": {"g": 7.5, "h": 1.1}}}
    both = cost.joined(known, "h", 66.0, "2026-12-01, a server")
    assert both == {"a laptop, 2 threads": laptop, "a server": {"date": "2026-12-01", "minutes": {"h": 1.1}}}
