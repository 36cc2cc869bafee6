"""The contract of a family (families/base.py), for every family that is found and every preset that it has."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import yaml

from elegan import families
from elegan.config import RunConfig, build, parse
from elegan.families.base import Batch, Clock, Family, FamilyConfig, ImageSpec, Preset, mix
from elegan.training import checkpoint
from elegan.training.engine import Engine
from elegan.training.plan import images_per_step

FAMILIES = families.names()
PRESETS = families.presets()
GREY = ImageSpec(1, 24, 24, 3)
ENGINE = Engine(torch.device("cpu"), "fp32")


def small(config: FamilyConfig) -> FamilyConfig:
    """The same recipe with a batch of 4 and narrow layers."""
    changes: dict[str, Any] = {"batch": 4}
    for key, value in config.model_dump().items():
        if key.endswith("_widths"):
            changes[key] = tuple(min(width, 8) for width in value)
        elif key.endswith(("_width", "_widest")):
            changes[key] = min(value, 8)
    return type(config)(**(config.model_dump() | changes))


def make(preset: str, spec: ImageSpec = GREY, seed: int = 0, **changes: Any) -> Family:
    """A small model of a preset, placed as the trainer places it."""
    family, recipe = PRESETS[preset]
    config = small(recipe.config)
    config = type(config)(**(config.model_dump() | changes))
    torch.manual_seed(seed)
    model: Family = families.get(family).Model(config, spec)
    ENGINE.place(model)
    return model


def batches(model: Family, seed: int = 0) -> list[Batch]:
    """Random real batches for one step."""
    spec, n = model.spec, model.config.batch
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(model.batches_per_step):
        images = torch.rand((n, spec.channels, spec.height, spec.width), generator=generator) * 2 - 1
        labels = torch.randint(spec.classes, (n,), generator=generator) if spec.classes else None
        found.append(Batch(images.contiguous(memory_format=torch.channels_last), labels))
    return found


def train(model: Family, steps: int, start: int = 0) -> dict[str, torch.Tensor]:
    """Some steps, keyed to the images seen as in the loop."""
    values = {}
    for i in range(start, start + steps):
        torch.manual_seed(mix(0, i))
        values = model.step(batches(model, i), Clock(i * images_per_step(model), 1000))
    return values


def state(model: Family) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in checkpoint.flatten(model.parts)[0].items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """The names under which two states differ in any bit."""
    return [name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name])]


def test_what_a_family_calls_steady_knows_nothing_of_the_length():
    """Its runs may get another length there and stay the runs of that length; after it the length plays its part."""
    held = set()
    for family in FAMILIES:
        preset = next(name for name, (of, _) in PRESETS.items() if of == family)
        share = make(preset).steady
        if not share:
            continue
        held.add(family)
        for seen, alike in ((int(900 * share), True), (990, share == 1)):
            models = [make(preset), make(preset)]
            for model, total in zip(models, (1_000, 30_000), strict=True):
                torch.manual_seed(0)
                model.step(batches(model), Clock(seen, total))
            assert (same(*map(state, models)) == []) == alike, f"{family} at {seen} of 1,000"
    short = {"short_run": 500, "lr_schedule": "linear", "lr_hold": 0.5}
    models = [make("sngan-tiny", **short) for _ in range(3)]
    for model, total in zip(models, (600, 1_000, 1_001), strict=True):
        torch.manual_seed(0)
        model.step(batches(model), Clock(0, total))
    a, b, c = map(state, models)
    assert models[0].regime(600) == models[0].regime(1_000) != models[0].regime(1_001)
    assert not same(a, b) and same(b, c)
    assert held >= {"biggan", "cgan", "gan", "infogan", "lapgan", "projected", "sngan", "wgan"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_exports_its_three_names(name):
    module = families.get(name)
    assert issubclass(module.Config, FamilyConfig)
    assert issubclass(module.Model, Family)
    assert "tiny" in module.PRESETS
    assert all(isinstance(p, Preset) and isinstance(p.config, module.Config) for p in module.PRESETS.values())
    assert module.__doc__ and "Deviations" in module.__doc__


@pytest.mark.parametrize("name", FAMILIES)
def test_every_setting_has_a_help_text_and_a_default(name):
    for key, field in families.get(name).Config.model_fields.items():
        assert field.description, f"{name}.Config.{key} has no docstring"
        assert not field.is_required(), f"{name}.Config.{key} has no default"


@pytest.mark.parametrize("name", FAMILIES)
def test_settings_are_frozen_and_strict(name):
    config = families.get(name).Config()
    with pytest.raises(ValueError, match="frozen"):
        config.batch = 3
    with pytest.raises(ValueError, match=r"[Ee]xtra"):
        type(config)(no_such_setting=1)


def test_the_default_and_the_tutorials_are_presets():
    tutorials = {"fashion-upsample", "fashion-mlp", "fashion-dcgan", "digits-mlp", "digits-dcgan", "digits-cgan"}
    assert tutorials | {"faces-dcgan", "tiny", families.DEFAULT_PRESET} <= PRESETS.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_configuration_survives_yaml(preset):
    family, recipe = PRESETS[preset]
    config = build(preset, family, recipe.config, data={"source": recipe.data, "size": (24, 20)})
    again = parse(yaml.safe_load(config.to_yaml()), families.get(family).Config, "here")
    assert isinstance(again, RunConfig)
    assert again == config
    assert again.model == recipe.config


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_is_finite_and_moves_every_trainable_weight(preset):
    model = make(preset)
    trainable = {name: net for name, net in model.parts.nets.items() if any(p.requires_grad for p in net.parameters())}
    assert trainable
    before = {(name, key): p.detach().clone() for name, net in trainable.items() for key, p in net.named_parameters()}
    values = train(model, 3)
    if "p" in model.parts.values:
        model.parts.values["p"].fill_(0.5)  # of what an augmentation did D learns only where it does something
    for place in (300, 600, 1000):  # layers may join later in the run
        values |= train(model, 1, start=place // images_per_step(model))
    assert values
    for name, value in values.items():
        assert value.ndim == 0, name
        assert torch.isfinite(value), name
    for name, net in trainable.items():
        for key, p in net.named_parameters():
            assert torch.isfinite(p).all(), (name, key)
            # a bias before a batch norm has no gradient but rounding
            assert p.ndim < 2 or not torch.equal(p, before[name, key]), f"{name}.{key} did not move"
            assert p.requires_grad, f"{name}.{key} was left frozen"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_in_bfloat16_is_finite_and_keeps_weights_in_float32(family):
    name = next(name for name, (owner, _) in PRESETS.items() if owner == family and name.endswith("tiny"))
    model = make(name)
    with Engine(torch.device("cpu"), "bf16").context():
        values = train(model, 2)
    assert all(torch.isfinite(value) for value in values.values())
    for key, value in state(model).items():
        assert torch.isfinite(value).all(), key
        assert not value.is_floating_point() or value.dtype == torch.float32, key


@pytest.mark.parametrize("preset", PRESETS)
def test_the_sampler_follows_the_training(preset):
    model = make(preset)
    before = model.sample(3, seed=1)
    train(model, 2)
    assert not torch.equal(model.sample(3, seed=1), before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("spec", [ImageSpec(1, 24, 20, 3), ImageSpec(3, 20, 30), ImageSpec(3, 24, 24, 2)], ids=str)
def test_any_shape_can_be_trained_and_sampled(preset, spec):
    changes = (
        {"conditional": False}
        if not spec.classes and "conditional" in type(PRESETS[preset][1].config).model_fields
        else {}
    )
    model = make(preset, spec, **changes)
    assert all(torch.isfinite(v) for v in train(model, 1).values())
    images = model.sample(3, seed=0)
    assert images.shape == (3, spec.channels, spec.height, spec.width)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_four_channels_and_odd_sides(family):
    name = next(name for name, (owner, _) in PRESETS.items() if owner == family and name.endswith("tiny"))
    model = make(name, ImageSpec(4, 29, 37, 2))
    train(model, 1)
    assert model.sample(2, seed=0).shape == (2, 4, 29, 37)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_sample_depends_on_its_seed_and_index_alone(preset):
    model = make(preset)
    train(model, 1)
    many = model.sample(230, seed=5)
    assert torch.equal(model.sample(7, seed=5), many[:7])
    assert torch.equal(model.sample(101, seed=5), many[:101])
    assert torch.equal(model.sample(230, seed=5), many)
    assert not torch.equal(model.sample(7, seed=6), many[:7])
    assert not torch.equal(many[:100], many[100:200]), "blocks repeat"
    assert not torch.equal(model.sample(2), model.sample(2)), "without a seed samples must differ"


@pytest.mark.parametrize("preset", PRESETS)
def test_sampling_leaves_the_training_alone(preset):
    a, b = make(preset), make(preset)
    train(a, 1)
    train(b, 1)
    a.sample(3, seed=0)
    train(a, 1, start=1)
    train(b, 1, start=1)
    assert same(state(a), state(b)) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_logits_are_larger_for_what_is_real_and_leave_the_training_alone(preset):
    model, other = make(preset), make(preset)
    bright = [Batch(b.images * 0.2 + 0.8, b.labels) for b in batches(model)]  # (N, C, H, W), unlike any new G's
    images, labels = bright[0]
    fake = model.sample(len(images), labels if model.categories else None, seed=0)

    def gap() -> torch.Tensor:
        return model.logits(images, labels).mean() - model.logits(fake, labels).mean()

    before = gap()
    for i in range(80):
        for m in (model, other):
            torch.manual_seed(i)
            m.step(bright, Clock(0, 10**6))
        if i >= 5 and gap() > before:
            break
    assert gap() > before, "D learns to tell them apart"
    modes = {name: [module.training for module in net.modules()] for name, net in model.parts.nets.items()}
    real_logits, fake_logits = model.logits(images, labels), model.logits(fake, labels)
    assert real_logits.shape == fake_logits.shape == (len(images),)
    assert real_logits.dtype == torch.float32
    assert not real_logits.requires_grad
    assert torch.equal(model.logits(images, labels), real_logits), "evaluation mode has no randomness"
    assert modes == {name: [module.training for module in net.modules()] for name, net in model.parts.nets.items()}
    train(model, 2)
    train(other, 2)
    assert same(state(model), state(other)) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_labels_choose_the_class(preset):
    model = make(preset)
    if not model.conditional:
        return
    train(model, 3)
    ones, twos = (model.sample(4, torch.full((4,), c), seed=0) for c in (1, 2))
    assert not torch.equal(ones, twos)
    mixed = model.sample(4, torch.tensor([1, 2, 1, 2]), seed=0)
    assert torch.equal(mixed[[0, 2]], ones[[0, 2]])
    assert torch.equal(mixed[[1, 3]], twos[[1, 3]])
    in_turn = model.sample(6, seed=0)
    assert torch.equal(in_turn, model.sample(6, torch.tensor([0, 1, 2, 0, 1, 2]), seed=0))


@pytest.mark.parametrize("preset", PRESETS)
def test_truncation_draws_the_noise_in(preset):
    model = make(preset)
    train(model, 1)
    spread = [model.sample(100, None, 0, psi).std(0).mean() for psi in (1.0, 0.5, 0.1)]
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_hold_the_whole_state(preset):
    """2k steps equal k steps, a checkpoint put into a new model, k steps: to the last bit."""
    model, other = make(preset), make(preset, seed=99)
    train(model, 2)
    tensors, settings = checkpoint.flatten(model.parts)
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    train(model, 3, start=2)
    train(other, 1, start=50)  # what it was before must not matter
    checkpoint.restore(other.parts, tensors, settings)
    train(other, 3, start=2)
    assert same(state(model), state(other)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_knows_nothing_of_the_trainer(family):
    source = inspect.getsource(families.get(family))
    for word in ("elegan.training", "elegan.data", "elegan.metrics", "elegan.cli"):
        assert word not in source


def test_under_autocast_a_weight_that_moved_is_cast_anew():
    """A step updates D several times and then asks it again: no half-precision copy may outlive an update."""
    layer = torch.nn.Linear(4, 1)
    x = torch.ones(2, 4)
    with Engine(torch.device("cpu"), "bf16").context():
        before = layer(x)
        with torch.no_grad():
            layer.weight += 100
        assert (layer(x) - before).min() > 300


def test_nearby_seeds_are_unrelated():
    seeds = [mix(a, b) for a in range(30) for b in range(30)]
    assert len(set(seeds)) == 900
    assert all(0 <= s < 2**63 for s in seeds)
    bits = torch.tensor([[s >> i & 1 for i in range(63)] for s in seeds], dtype=torch.float)
    assert (bits.mean(0) - 0.5).abs().max() < 0.09  # five deviations of 900 fair coins
    assert mix(-1) != mix(1)
    assert mix(1, 2) != mix(2, 1)


def test_an_unknown_family_or_preset_is_refused_with_the_nearest():
    from elegan.errors import UserError

    with pytest.raises(UserError, match="did you mean 'gan'"):
        families.get("gann")
    with pytest.raises(UserError, match="did you mean 'fashion-dcgan'"):
        families.preset("fashion-dcgam")
