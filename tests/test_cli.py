"""The command line: every verb, every kind of mistake as one line and exit code 2, and the same from Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import elegan
from conftest import elegan_command, make_npz, run_elegan
from elegan import cli
from elegan.errors import UserError
from elegan.training import checkpoint, plan


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `elegan` with these arguments in this process, from its `main`."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["elegan", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a conditional run `labelled` and an unconditional one `plain`."""
    root = tmp_path_factory.mktemp("cli")
    data = make_npz(root / "blobs.npz")
    quick: dict[str, Any] = {"data": data, "steps": 2, "precision": "fp32", "show": False, "batch": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "time_step", lambda step, *_, **__: (step(), 0.01)[1])
        elegan.train("tiny", out=root / "labelled", conditional=True, **quick)
        elegan.train("tiny", out=root / "plain", **quick)
    (root / "folder").mkdir()
    (root / "folder" / "note.txt").write_text("not a run")
    (root / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    return root


def assert_one_line(said: Said, *words: str) -> None:
    assert said.code == 2, said
    lines = said.err.rstrip("\n").split("\n")
    assert len(lines) == 1, said.err
    assert lines[0].startswith("elegan: ")
    assert len(lines[0]) < 600
    for word in words:
        assert word in lines[0], lines[0]


# Mistakes -----------------------------------------------------------------------------------------------------------

TRAIN = ("train", "--preset", "tiny", "--data", "blobs.npz", "--out", "new")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--preset", "fashon"), ("unknown preset 'fashon'", "did you mean 'fashion'")),
        (("train", "--data", "fashion-mnits", "--out", "new"), ("did you mean 'fashion-mnist'",)),
        ((*TRAIN, "--set", "D_lrr=1"), ("D_lrr", "did you mean 'D_lr'")),
        ((*TRAIN, "--set", "batch"), ("--set takes key=value",)),
        ((*TRAIN, "--set", "batch=many"), ("model.batch = 'many'",)),
        ((*TRAIN, "--set", "batch=1"), ("batch of at least 2",)),
        ((*TRAIN, "--budget", "soon"), ("'soon' is not a time",)),
        ((*TRAIN, "--budget", "1m", "--steps", "3"), ("--budget, --images, --epochs, --steps",)),
        ((*TRAIN, "--images", "9", "--epochs", "1"), ("not several",)),
        ((*TRAIN, "--epochs", "0"), ("epochs=0.0",)),
        ((*TRAIN, "--config", "nowhere.yaml"), ("no such configuration file",)),
        ((*TRAIN, "--device", "cuda"), ("--device cuda",)),
        ((*TRAIN, "--set", "G_widths=1000000,1000000,8"), ("not enough memory", "--set batch=")),
        ((*TRAIN, "--set", "batch=100000000"), ("not enough memory", "--set batch=50000000")),
        (("train", "fashion", "--out", "new"), ("'fashion' stands alone", "--preset fashion")),
        (("train", "--out", "new", "mnist"), ("'mnist' stands alone", "--data mnist")),
        (("tune", "blobs.npz", "--out", "new"), ("--data blobs.npz",)),
        (("bench", "blobs.npz"), ("'blobs.npz' stands alone", "`elegan bench --help`")),
        (("train", "--preset", "tiny", "--data", "nowhere", "--out", "new"), ("nowhere",)),
        (("train", "--preset", "tiny", "--data", "broken.npz", "--out", "new"), ("broken.npz",)),
        (("train", "--preset", "tiny", "--data", "folder", "--out", "new"), ("folder",)),
        (("train", "--preset", "tiny", "--data", "blobs.npz", "--out", "folder"), ("not a run folder",)),
        (("train", "--preset", "tiny", "--data", "blobs.npz", "--out", "broken.npz"), ("is a file",)),
        (("train", "--preset", "digits-mlp", "--data", "blobs.npz", "--out", "plain"), ("another configuration",)),
        (("sample", "plan", "--out", "x.png"), ("no such run folder", "did you mean 'plain'")),
        (("sample", "folder", "--out", "x.png"), ("not a run folder",)),
        (("sample", "plain", "--out", "x.jpg"), (".npz", ".png")),
        (("sample", "plain", "--out", "folder"), ("is not empty",)),
        (("sample", "plain", "--out", "broken.npz/x.png"), ("broken.npz",)),
        (("sample", "plain", "--out", "x.png", "--labels", "bag"), ("not conditional",)),
        (("sample", "plain", "--out", "x.png", "--truncation", "0"), ("truncation 0.0",)),
        (("sample", "plain", "--out", "x.png", "-n", "1000000000000"), ("samples need",)),
        (("sample", "labelled", "--out", "x.png", "--labels", "sneeker"), ("did you mean 'sneaker'",)),
        (("sample", "labelled", "--out", "x.png", "--labels", "0,7"), ("unknown label '7'", "2 sneaker")),
        (("evaluate", "blobs.npz"), ("--data is needed",)),
        (("evaluate", "broken.npz", "--data", "blobs.npz"), ("broken.npz",)),
        (("evaluate", "nowhere", "--data", "blobs.npz"), ("no such run, file or folder",)),
        (("info", "folder"), ("not a run folder",)),
        (("info", "nowhere"), ("no such run folder",)),
        (("presets", "fashon"), ("did you mean 'fashion'",)),
        (("data", "inspect", "nowhere"), ("nowhere",)),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_and_leaves_nothing(root, call, monkeypatch, arguments, words):
    monkeypatch.chdir(root)
    if "cuda" in arguments:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert_one_line(call(*arguments), *words)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")}.keys() == before.keys(), "something was left behind"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), ("no such command 'trian'", "`elegan --help`")),
        (("--foo",), ("no such option '--foo'", "--version")),
        (("train", "--presets", "x"), ("option '--presets'; did you mean '--preset'?", "`elegan train --help`")),
        (("sample", "plain", "-q"), ("no such option '-q'; known: --checkpoint, --columns",)),
        (("train", "--budget"), ("'--budget' requires an argument",)),
        (("train", "--images", "0"), ("'--images'", "1")),
        (("train", "--steps", "many"), ("'--steps'", "valid integer")),
        (("train", "--precision", "fp8"), ("'--precision'", "'fp8' is not one of 'auto', 'fp32', 'bf16'")),
        (("sample",), ("missing argument 'RUN'", "`elegan sample --help`")),
        (("sample", "plain"), ("missing option '--out'",)),
        (("sample", "plain", "--out", "x.png", "-n", "0"), ("'-n'", "1")),
        (("data", "look"), ("no such command 'look'", "`elegan data --help`")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_one_line(root, call, monkeypatch, arguments, words):
    monkeypatch.chdir(root)
    assert_one_line(call(*arguments), *words)


@pytest.mark.parametrize("arguments", [(), ("data",)], ids=str)
def test_nothing_asked_for_is_answered_by_help(call, arguments):
    said = call(*arguments)
    assert said.code == 2
    assert "Usage: elegan" in said.out + said.err and "Commands:" in said.out + said.err


def test_a_mistake_in_a_process_of_its_own(root):
    done = run_elegan("train", "--preset", "fashon", cwd=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "elegan: unknown preset 'fashon'; did you mean 'fashion'? (`elegan presets` lists them)\n"


def test_a_pipe_that_closes_is_no_error(root):
    pipe = " ".join(elegan_command("presets"))
    done = subprocess.run(["bash", "-c", f"{pipe} | true"], capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in done.stderr


# What it does -------------------------------------------------------------------------------------------------------


def test_train_again_and_longer(root, call, tmp_path):
    arguments = ("train", "--preset", "tiny", "--data", root / "blobs.npz", "--out", tmp_path / "run", "--steps", 3)
    options = ("--precision", "fp32", "--set", "batch=8", "--seed", 4)
    said = call(*arguments, *options)
    assert (said.code, said.err) == (0, "")
    assert "24 images" in said.out
    assert "elegan report" in said.out
    assert "\x1b" not in said.out
    again = call(*arguments, *options)
    assert again.code == 0
    done = [line for line in again.out.splitlines() if "note:" not in line]
    assert done == [f"{tmp_path / 'run'}: has seen its 24 images; --images N makes it train longer"]
    more = call("train", "--out", tmp_path / "run", "--images", 40)
    assert more.code == 0
    assert elegan.load(tmp_path / "run").images_seen == 40


def test_help_has_examples(call):
    root = call("--help")
    assert root.code == 0
    assert "elegan train --budget" in root.out
    verbs = re.findall(r"^  (\w+) ", root.out.split("Commands:")[1].split("\n\n")[0], re.M)
    assert {"train", "sample", "evaluate", "info", "presets", "families", "doctor", "data"} <= set(verbs)
    for verb in verbs:
        said = call(verb, "--help")
        assert said.code == 0
        assert "Usage: elegan" in said.out
    for verb in ("train", "sample", "evaluate"):
        assert f"Example:  elegan {verb}" in call(verb, "--help").out


def test_version(call):
    assert call("--version") == (0, f"{elegan.__version__}\n", "")


@pytest.mark.parametrize("name", ["labelled", "plain"])
def test_sample_to_an_npz(root, call, tmp_path, name):
    said = call("sample", root / name, "-n", 7, "--seed", 3, "--out", tmp_path / "new" / "s.npz")
    assert said == (0, f"7 samples in {tmp_path / 'new' / 's.npz'}\n", "")
    with np.load(tmp_path / "new" / "s.npz") as archive:
        assert set(archive.files) == ({"images", "labels"} if name == "labelled" else {"images"})
        images = archive["images"]
        assert (images.dtype, images.shape) == (np.uint8, (7, 12, 12, 1))
        if name == "labelled":
            assert archive["labels"].dtype == np.int64
            assert archive["labels"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert np.array_equal(images, elegan.load(root / name).sample(7, seed=3).images)


def test_sample_to_a_grid(root, call, tmp_path):
    assert call("sample", root / "plain", "-n", 6, "--columns", 3, "--out", tmp_path / "s.png").code == 0
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.mode == "L"
        scale = 5  # 12 pixels shown as 60
        assert picture.size == (scale * (3 * 14 - 2), scale * (2 * 14 - 2))


def test_sample_to_a_folder(root, call, tmp_path):
    out = tmp_path / "pictures"
    assert call("sample", root / "labelled", "-n", 4, "--labels", "sneaker,low hat", "--out", out).code == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "00000_sneaker.png", "00001_low-hat.png", "00002_sneaker.png", "00003_low-hat.png"
    ]  # fmt: skip
    with Image.open(out / "00001_low-hat.png") as picture:
        expected = elegan.load(root / "labelled").sample(4, ["sneaker", 0]).images[1, :, :, 0]
        assert np.array_equal(np.asarray(picture), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]


def test_a_folder_that_cannot_be_finished_is_not_left(root, tmp_path, monkeypatch):
    samples = elegan.load(root / "plain").sample(3)
    original, written = Path.write_bytes, []

    def full(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return original(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="nothing was left there"):
        samples.save(tmp_path / "pictures")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("balanced", [0, 1, 2, 0]),
        ("2", [2, 2, 2, 2]),
        ("BAG", [1, 1, 1, 1]),
        ("low hat", [0, 0, 0, 0]),
        ("0, sneaker", [0, 2, 0, 2]),
        ([2, "bag"], [2, 1, 2, 1]),
        (1, [1, 1, 1, 1]),
        (np.int64(1), [1, 1, 1, 1]),
        (np.array([2, 1, 0, 0]), [2, 1, 0, 0]),
        ((0, 2), [0, 2, 0, 2]),
    ],
    ids=str,
)
def test_labels(root, labels, expected):
    samples = elegan.load(root / "labelled").sample(4, labels=labels)
    assert samples.labels is not None
    assert samples.labels.tolist() == expected


@pytest.mark.parametrize(
    "labels", ["", ",", "3", "-1", "²", "99999999999999999999", [], [None], [0.5], [[True]]], ids=str
)
def test_labels_that_are_none(root, labels):
    with pytest.raises(UserError):
        elegan.load(root / "labelled").sample(4, labels=labels)


def test_a_name_comes_before_a_number(root):
    run = elegan.load(root / "labelled")
    run.data["class_names"] = ["1", "2", "0"]
    assert run.labels("0,1", 2).tolist() == [2, 0]
    assert run.labels([0, 1], 2).tolist() == [0, 1]


def test_a_damaged_checkpoint_is_told_while_sampling(root, call, tmp_path):
    shutil.copytree(root / "plain", tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))[-1]
    older = newest.with_name("000000008.safetensors")
    newest.rename(older)
    meta = older.with_name(newest.stem + ".json")
    content = json.loads(meta.read_text())
    content["counters"]["images"] = 8
    content["self"] = checkpoint.digest_of(content)
    older.with_suffix(".json").write_text(json.dumps(content))
    said = call("sample", tmp_path / "run", "-n", 1, "--out", tmp_path / "s.png")
    assert said.code == 0
    assert said.err.startswith("note: damaged checkpoint passed over: 000000016.safetensors")


def test_from_python(root):
    run = elegan.load(root / "labelled")
    assert "tiny (gan)" in repr(run)
    assert "16 images seen, 100% of the plan" in repr(run)
    assert run.stats[-1]["images"] == 16
    assert run.class_names == ["low hat", "bag", "sneaker"]
    samples = run.sample(6)
    assert repr(samples) == "Samples(6 images 12x12x1, labelled)"
    assert len(samples) == 6
    assert np.asarray(samples).shape == (6, 12, 12, 1)
    for thing in (run, samples):
        assert (thing._repr_png_() or b"").startswith(b"\x89PNG")
    with pytest.raises(UserError, match="at least 1"):
        run.sample(0)


@pytest.mark.parametrize("verb", ["presets", "families", "doctor", "info"])
def test_the_verbs_that_only_look(root, call, verb):
    arguments = [root / "labelled"] if verb == "info" else []
    said = call(verb, *arguments)
    assert (said.code, said.err) == (0, "")
    assert len(said.out) > 50
    assert json.loads(call(verb, *arguments, "--json").out)


def test_evaluate_prints_its_protocol(tmp_path, call):
    data = make_npz(tmp_path / "d.npz", side=8, count=600)
    make_npz(tmp_path / "s.npz", side=8, count=100)
    said = call("evaluate", tmp_path / "s.npz", "--data", data, "-n", 100)
    assert (said.code, said.err) == (0, "")
    assert "seed" in said.out


def test_evaluate_in_every_form(tmp_path, call, monkeypatch):
    monkeypatch.setattr("elegan.metrics.cas.LEAST_STEPS", 8)
    data = make_npz(tmp_path / "d.npz", side=8, count=300)
    samples = make_npz(tmp_path / "s_1.npz", side=8, count=60)
    base = ("evaluate", samples, "--data", data, "-n", 60, "--features", "pixels")
    text = call(*base, "--per-class").out
    assert "\nlow hat " in text and text.count("\n  real ") == 3 and "+- is one standard error" in text
    shown = {form: call(*base, "--format", form).out for form in ("json", "markdown", "latex")}
    assert json.loads(shown["json"]) == json.loads(call(*base, "--json").out)
    assert len(json.loads(shown["json"])["per_class"]) == 3
    assert "| s_1 | " in shown["markdown"] and "s\\_1 & $" in shown["latex"]
    taught = call(*base, "--format", "json", "--cas", "--cas-seeds", 2)
    assert "training 4 small classifiers on 60 images each: about" in taught.err
    scores = json.loads(taught.out)
    assert 0 <= scores["value"]["cas"] <= 1 and scores["floor"]["cas_error"] > 0
    np.savez(tmp_path / "bare.npz", images=np.load(samples)["images"])
    refused = call("evaluate", tmp_path / "bare.npz", "--data", data, "--cas")
    assert refused.code == 2 and refused.out == "" and "needs labelled samples" in refused.err
