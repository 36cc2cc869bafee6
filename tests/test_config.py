"""Settings: typed, strict, the same from flags, files and Python; and no input makes anything but a UserError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import make_npz
from elegan.config import RunConfig, duration, parse_set, read_file, seconds
from elegan.errors import UserError, nearest
from elegan.training.folder import RunFolder
from elegan.training.run import configure, default_folder

FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def settings_of(**given: Any) -> RunConfig:
    return configure("tiny", settings=given)


def test_one_name_for_a_setting_with_or_without_its_part():
    assert settings_of(D_lr="1e-4").model.D_lr == 1e-4
    assert configure("tiny", settings={"model.D_lr": 0.5}).model.D_lr == 0.5
    assert configure("tiny", settings={"train.keep": "7"}).train.keep == 7
    assert settings_of(size="16").data.size == 16


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("G_widths", "[32, 16, 8]", (32, 16, 8)),
        ("G_widths", "32,16,8", (32, 16, 8)),
        ("size", "28x32", (28, 32)),
        ("size", "28,32", (28, 32)),
        ("size", "none", None),
        ("budget", "none", None),
        ("conditional", "true", True),
        ("conditional", "no", False),
        ("beta1", "0", 0.0),
        ("batch", "8", 8),
        ("source", "1,2", "1,2"),  # a folder may be called so
        ("source", "none", "none"),
    ],
)
def test_texts_of_the_command_line(key, text, value):
    config = settings_of(**{key: text})
    found = next(getattr(part, key) for part in (config.data, config.train, config.model) if hasattr(part, key))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch", "many", "model.batch = 'many'"),
        ("batch", "0", "model.batch = '0'"),
        ("batch", "1", "batch of at least 2"),
        ("batch", "2.5", "model.batch"),
        ("G_lr", "-1", "model.G_lr"),
        ("G_lr", "nan", "model.G_lr"),
        ("G_lr", "inf", "model.G_lr"),
        ("objective", "gan", "'minimax'"),
        ("G_widths", "[8, 0, 8]", "model.G_widths"),
        ("G_widths", "[8, 8]", "one number per layer"),
        ("G_widths", "[8, [", "model.G_widths"),
        ("D_dropout", "1", "model.D_dropout"),
        ("channels", "2", "data.channels"),
        ("grid_side", "0", "train.grid_side"),
        ("seed", "-1", "train.seed"),
        ("label_smoothing", "1.0", "model.label_smoothing"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        settings_of(**{key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"updates": "shared", "G_steps": 2}, "updates=shared"),
        ({"updates": "shared", "D_eval_for_G": True}, "updates=shared"),
        ({"updates": "shared", "G_eval_for_D": True}, "updates=shared"),
        ({"objective": "hinge", "label_smoothing": 0.1}, "do not apply to 'hinge'"),
        ({"G_widths": (), "G_strides": (), "G_kernels": ()}, "at least one number"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        settings_of(**given)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("D_lrr", "did you mean 'D_lr'"),
        ("d_lr", "did you mean 'D_lr'"),
        ("model.D_rl", "did you mean 'model.D_lr'"),
        ("trian.keep", "did you mean 'train.keep'"),
        ("colour_of_the_sky", "lists the settings"),
        ("a\nb", "unknown setting"),
        ("", "unknown setting"),
        (".", "unknown setting"),
    ],
)
def test_unknown_settings(key, message):
    with pytest.raises(UserError, match=message) as caught:
        settings_of(**{key: 1})
    assert "\n" not in str(caught.value)


def test_later_sources_win(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("preset: tiny\ntrain: {seed: 1, keep: 9}\nmodel:\n  batch: 8\ndata:\n")
    config = configure(config=path, settings={"seed": "2", "batch": 4}, seed=3)
    assert (config.preset, config.train.seed, config.train.keep, config.model.batch) == ("tiny", 3, 9, 4)
    assert configure("digits-mlp", config={"train": {"seed": 1}}).train.seed == 1
    assert config.data.source == "garments"


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
def test_all_three_kinds_of_file(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    text = {
        ".yaml": "preset: tiny\nmodel: {batch: 8}\n",
        ".json": '{"preset": "tiny", "model": {"batch": 8}}',
        ".toml": 'preset = "tiny"\n[model]\nbatch = 8\n',
    }
    path.write_text(text[suffix])
    assert configure(config=path).model.batch == 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x: 1", "ends in .yaml"),
        ("missing.yaml", None, "no such configuration file"),
        ("a.yaml", "a: [1", "not valid YAML"),
        ("a.json", "{", "not valid JSON"),
        ("a.toml", "a = ", "not valid TOML"),
        ("a.yaml", "[1, 2]", "found list"),
        ("a.yaml", "1: 2", "table of settings"),
        ("a.yaml", "preset: [1]", "named by a text"),
        ("a.yaml", "preset: 5", "named by a text"),
        ("a.yaml", "preset: tinny", "did you mean 'tiny'"),
        ("a.yaml", "preset: tiny\nfamily: sngan", "is of family 'gan'"),
        ("a.yaml", "preset: tiny\nmodel: {1: 2}", "unknown setting 'model.1'"),
        ("a.yaml", "preset: tiny\nmodel: 5", "unknown setting 'model'"),
        ("a.json", "[" * 5000, "not valid JSON"),
        ("a.yaml", "a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        configure(config=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shortened():
    with pytest.raises(UserError) as caught:
        settings_of(batch="9" * 5000 + "x")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("given", [["a"], ["=1"], ["a=1", "b"], [" = "]])
def test_bad_set(given):
    with pytest.raises(UserError, match="key=value"):
        parse_set(given)


def test_set_splits_at_the_first_equals_sign():
    assert parse_set(["a = b=c", "x="]) == {"a": "b=c", "x": ""}


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2", 120), ("0.5h", 1800), (" 1M ", 60), ("1d", 86400)],
)
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "m", "10 m x", "-5m", "0s", "1y", "9999d", "1e3", "nan", "1h 30 m m"])
def test_times_that_are_none(text):
    with pytest.raises(UserError):
        seconds(text)


def test_durations():
    assert [duration(s) for s in (0, 59.6, 61, 120, 3_900)] == ["0 s", "1 min", "1 min 01 s", "2 min", "1 h 05 min"]


def test_nearest():
    assert nearest("FASHON", ["fashion", "digits"]) == "; did you mean 'fashion'?"
    assert nearest("zebra", ["b", "a"]) == "; known: a, b"


def test_the_same_command_finds_the_same_folder():
    config = configure("tiny", "photos/cats.zip", seed=4)
    assert str(default_folder(config)) == "runs/tiny-cats-seed4"


KEYS = ["preset", "family", "version", "data", "train", "model", "batch", "train.seed", "size", "G_widths", "source"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(["tiny", "gan"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@FUZZ
@given(content=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), ANYTHING, max_size=4))
def test_fuzz_any_table(content):
    try:
        configure(config=content)
    except UserError as error:
        assert "\n" not in str(error)


@FUZZ
@given(text=st.text(max_size=60) | st.binary(max_size=60), suffix=st.sampled_from([".yaml", ".json", ".toml"]))
def test_fuzz_any_file(tmp_path, text, suffix):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        configure(config=read_file(path))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, as far as its texts go."""
    root = tmp_path_factory.mktemp("run")
    make_npz(root / "d.npz")
    (root / "config.yaml").write_text(configure("tiny", root / "d.npz").to_yaml())
    data = {"name": "d", "channels": 1, "height": 8, "width": 8, "classes": 2, "class_names": ["a", "b"]}
    (root / "data.json").write_text(json.dumps(data | {"fingerprint": "00", "count": 5}))
    return root


@FUZZ
@given(data=st.data())
def test_fuzz_a_run_folders_texts(tmp_path, run, data):
    for name, read in (("config.yaml", "config"), ("data.json", "data")):
        content = bytearray((run / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (tmp_path / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            getattr(RunFolder(tmp_path), read)()
        except UserError as error:
            assert "\n" not in str(error)


@FUZZ
@given(key=st.sampled_from(["channels", "height", "classes", "class_names", "fingerprint", "count"]), value=ANYTHING)
def test_fuzz_data_json(tmp_path, run, key, value):
    content = json.loads((run / "data.json").read_text()) | {key: value}
    (tmp_path / "data.json").write_text(json.dumps(content))
    try:
        found = RunFolder(tmp_path).data()
    except UserError:
        return
    assert len(found["class_names"]) == found["classes"]


@FUZZ
@given(part=st.sampled_from(["data", "train", "model", "family", "preset", "version"]), value=ANYTHING)
def test_fuzz_config_yaml(tmp_path, run, part, value):
    content = yaml.safe_load((run / "config.yaml").read_text()) | {part: value}
    (tmp_path / "config.yaml").write_text(json.dumps(content).replace("\\ud", "\\\\ud"))  # JSON is YAML
    try:
        RunFolder(tmp_path).config()
    except UserError as error:
        assert "\n" not in str(error)


def test_a_truncated_config_yaml_is_refused(tmp_path, run):
    text = (run / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text[: text.index("model:")])
    with pytest.raises(UserError, match="'model' must be a table"):
        RunFolder(tmp_path).config()
