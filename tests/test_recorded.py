"""Steps that a GPU records and replays: no family keeps a number for good and, on a GPU, a replay is the step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from elegan import families
from elegan.adversarial.stabilizers import cosine_ramp, ema_decay, learning_rate, shortness
from elegan.families.base import Batch, Clock, Family, ImageSpec
from elegan.training.engine import Engine
from elegan.training.recorded import PLAIN_FIRST, Hostless, Recorded, kept_in_place, on_the_device
from test_no_waiting import Waits

# what a recording asks of optimisers, which here are asked without one
pytestmark = pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
CPU = torch.device("cpu")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
TOTAL = 4_000
#: All families as their tiny presets are, and those settings by which a step follows the clock.
CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in families.names()] + [
    ("acgan", {"pretrain": 0.4, "lr_schedule": "linear"}),
    ("ada", {"r1": 0.1, "r1_every": 4, "lr_schedule": "cosine"}),
    ("gan", {"lr_schedule": "cosine", "ema_half_life": 500}),
    ("improved", {"noise": 0.5, "noise_share": 0.7}),
    ("r3gan", {"burn_in": 0.5}),
    ("r3gan", {"beta2": (0.99, 0.99)}),
    ("stylegan2", {"r1_interval": 3, "path_interval": 2, "path_weight": 2.0}),
    ("stylegan2", {"augment": "ada", "ada_interval": 2, "ada_images": 100}),
]
cases = pytest.mark.parametrize(
    ("name", "settings"), CASES, ids=lambda value: value if isinstance(value, str) else "-".join(value) or "tiny"
)


def made(name: str, device: torch.device = CPU, **settings: Any) -> Family:
    torch.manual_seed(0)
    family = families.get(name)
    config = family.PRESETS["tiny"].config
    model: Family = family.Model(type(config)(**(config.model_dump() | settings)), ImageSpec(3, 32, 32, 10))
    Engine(device, "fp32").place(model)
    return model


def dealt(model: Family, number: int, device: torch.device = CPU) -> list[Batch]:
    n, generator = model.config.batch, torch.Generator().manual_seed(number)
    images = [torch.rand(n, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(model.batches_per_step)]
    labels = (torch.arange(n) % 10).to(device)
    return [Batch(x.to(device).contiguous(memory_format=torch.channels_last), labels) for x in images]


def on_device(seen: int, total: int = TOTAL, device: torch.device = CPU) -> Clock:
    """The clock of a step that is recorded."""
    tensors = (torch.tensor(float(number), dtype=torch.float64, device=device) for number in (seen, total))
    return Clock(*tensors, (seen, total))  # type: ignore[arg-type]


def difference(a: Family, b: Family, start: Family) -> float:
    """How far apart two models are, as a share of the way that the first has come: the largest over its networks."""
    shares = [0.0]
    for name in a.parts.nets:
        x, y, z = (torch.cat([p.detach().flatten() for p in m.parts.nets[name].parameters()]) for m in (a, b, start))
        shares.append(float((x - y).norm() / (x - z).norm().clamp(min=1e-9)))
    values = [float((value - b.parts.values[name]).abs().max()) for name, value in a.parts.values.items()]
    return max(shares + values)


@cases
def test_a_clock_of_tensors_gives_the_same_step_and_is_never_read(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch's own checks its labels on a CPU, and on a GPU leaves that to the device
    monkeypatch.setattr(torch.nn.functional, "one_hot", lambda labels, classes: torch.eye(classes).long()[labels])
    plain = made(name, **settings)
    for number in range(2):
        torch.manual_seed(number)
        plain.step(dealt(plain, number), Clock(number * 16, TOTAL))
    told, start = copy.deepcopy(plain), copy.deepcopy(plain)
    for seen in (1_000, 3_600):  # before and after the rates' fall, and where noise, R1 and phases have changed
        batches = dealt(plain, seen)
        torch.manual_seed(seen)
        logs = plain.step(batches, Clock(seen, TOTAL))
        torch.manual_seed(seen)
        clock = on_device(seen)
        with on_the_device(told, CPU) as rates, kept_in_place(told), Waits() as waits:
            own = told.step(batches, clock)
        assert not [found for found in waits.found if "layers.py" not in found]  # dropout's seed, on a CPU alone
        for name_of_value, value in logs.items():
            torch.testing.assert_close(own[name_of_value], value, rtol=1e-3, atol=1e-4)
        assert len(rates) == sum(len(o.param_groups) for o in told.parts.optimizers.values())
    assert difference(plain, told, start) < 0.2  # weights without a gradient follow rounding
    groups = [group for optimizer in told.parts.optimizers.values() for group in optimizer.param_groups]
    assert all(isinstance(group["lr"], float) for group in groups)


@cases
def test_what_a_step_does_follows_its_form_alone(name: str, settings: dict[str, Any]) -> None:
    """Steps of one form call the same functions of torch, at whichever places; else a replay would do another's."""
    model = made(name, **settings)
    places: dict[Any, list[int]] = {}
    for seen in range(0, TOTAL, 16):
        places.setdefault(model.form(Clock(seen, TOTAL)), []).append(seen)
    places.pop(None, None)  # not recorded
    for of_form in [places for places in places.values() if len(places) > 1][:4]:
        model.step(dealt(model, 0), Clock(of_form[0], TOTAL))  # optimisers make their state
        called = []
        for seen in (of_form[0], of_form[-1]):
            with on_the_device(model, CPU), kept_in_place(model), Waits(every=True) as operations:
                model.step(dealt(model, seen), on_device(seen))
            called.append(operations.found)
        assert called[0] == called[1]


@cases
def test_a_step_changes_what_is_there(name: str, settings: dict[str, Any]) -> None:
    """In place: a replay reads and writes the tensors that were there when it was recorded."""
    model = made(name, **settings)

    def places() -> dict[str, int]:
        found = dict(model.parts.values)
        for part, net in model.parts.nets.items():
            found |= {f"{part}.{key}": tensor for key, tensor in net.state_dict().items()}
        for part, optimizer in model.parts.optimizers.items():
            states = enumerate(optimizer.state.values())
            found |= {f"{part}.{i}.{key}": tensor for i, state in states for key, tensor in state.items()}
        return {where: tensor.data_ptr() for where, tensor in found.items()}

    before: dict[str, int] = {}
    for seen in (0, 16, 32, 1_600, 3_984):  # forms take turns
        with kept_in_place(model):
            model.step(dealt(model, seen), Clock(seen, TOTAL))
        after = places()
        assert before.items() <= after.items()
        before = after


def test_plain_steps_between_replays_go_on_with_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """One form is recorded while another still runs plainly and puts new tensors into the bag."""
    model = made("ada")
    model.parts.values["count"] = torch.zeros(())

    def step(batches: Any, clock: Clock) -> dict[str, torch.Tensor]:
        model.parts.values["count"] = model.parts.values["count"] + 1
        return {}

    def remember(recorded: Recorded, form: Any, batches: Any, clock: Clock) -> None:
        count = model.parts.values["count"]  # as a graph does: this tensor, for good
        recorded.graphs[form] = lambda batches, clock: {"count": count.add_(1)}

    monkeypatch.setattr(model, "step", step)
    monkeypatch.setattr(model, "form", lambda clock: clock.seen % 4 == 0)
    monkeypatch.setattr(Recorded, "try_to_record", remember)
    recorded = Recorded(model, Engine(CPU, "fp32"))
    for seen in range(20):
        recorded([], Clock(seen, TOTAL))
    assert set(recorded.graphs) == {False, True} and model.parts.values["count"] == 20


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_say_the_same_in_tensors(schedule: str) -> None:
    for seen in (0, 1, 500, 2_000, 3_999, 4_000, 5_000):
        number, tensor = Clock(seen, TOTAL), on_device(seen)
        assert tensor.host == number
        assert float(tensor.progress) == pytest.approx(number.progress)
        for function in (
            lambda clock: learning_rate(clock.progress, schedule, 0.3, shortness(clock.total, 1_000)),
            lambda clock: cosine_ramp(clock.progress, 5.0, 0.5, 0.8),
            lambda clock: ema_decay(64, float("inf"), clock.seen + 64, ramp=0.05),
            lambda clock: ema_decay(64, 10_000, clock.seen, ramp=0.0),
        ):
            assert float(function(tensor)) == pytest.approx(function(number), rel=1e-6, abs=1e-6)


def test_what_a_recording_would_keep_for_good_is_refused() -> None:
    with Hostless(), pytest.raises(RuntimeError, match="waits for a value"):
        torch.ones((), device="meta").item()
    with Hostless(), pytest.raises(RuntimeError, match="on the host"):
        torch.rand(3)
    with Hostless():
        torch.rand(3, device="meta") + 1


def test_values_that_a_step_replaces_are_written_into_what_was_there() -> None:
    model = made("ada")
    before = dict(model.parts.values)
    with kept_in_place(model):
        model.parts.values["p"] = torch.tensor(0.25)
    assert model.parts.values["p"] is before["p"] and before["p"] == 0.25
    with pytest.raises(ValueError, match="no"), kept_in_place(model):
        model.parts.values["p"] = torch.tensor(0.5)
        raise ValueError("no")
    assert model.parts.values["p"] is before["p"] and before["p"] == 0.25


# ------------------------------------------------------------------ on a GPU


def trained(model: Family, learn: Any, steps: int, device: torch.device) -> list[dict[str, float]]:
    rows = []
    for number in range(steps):
        torch.cuda.manual_seed_all(number)
        logs = learn(dealt(model, number, device), Clock(number * model.config.batch, TOTAL))
        rows.append({name: value.item() for name, value in logs.items()})
    return rows


def losses(row: dict[str, float]) -> list[float]:
    return [row[name] for name in ("D_loss", "G_loss", "D_class") if name in row]  # D alone, while it is pretrained


@on_a_gpu
@cases
def test_a_replayed_step_is_the_step(name: str, settings: dict[str, Any]) -> None:
    device = torch.device("cuda")
    steps = 40 if name in ("stylegan2", "ada") else 12
    found = []
    for record in (False, True):
        model = made(name, device, **settings)
        recorded = Recorded(model, Engine(device, "fp32"))
        rows = trained(model, recorded if record else recorded.plainly, steps, device)
        assert recorded.trouble is None
        assert bool(recorded.graphs) == (record and model.form(Clock(0, TOTAL)) is not None)
        found.append((model, rows))
    (plain, rows), (replayed, own) = found
    for row, replay in zip(rows[: PLAIN_FIRST + 3], own, strict=False):  # later rounding has grown
        assert losses(replay) == pytest.approx(losses(row), rel=2e-2, abs=2e-2)
    assert (
        difference(plain, replayed, made(name, device, **settings)) < 0.5
    )  # rounding has grown; that a replay is no step is 1


@on_a_gpu
def test_random_numbers_and_rates_are_new_at_each_replay() -> None:
    device = torch.device("cuda")
    model = made("sngan", device, lr_schedule="linear", lr_hold=0.0)
    recorded = Recorded(model, Engine(device, "fp32"))
    trained(model, recorded, PLAIN_FIRST + 1, device)
    assert recorded.graphs
    batches = dealt(model, 0, device)

    def change(seed: int, seen: int) -> torch.Tensor:
        start = copy.deepcopy(model.parts.nets["G"].state_dict())
        torch.cuda.manual_seed_all(seed)
        recorded(batches, Clock(seen, TOTAL))
        weight = next(p for p in model.parts.nets["G"].parameters())
        return weight.detach() - next(iter(start.values()))

    assert not torch.equal(change(1, 100), change(2, 100))
    assert change(3, TOTAL).abs().max() == 0 < change(3, 0).abs().max()  # at the end the rate is zero


@on_a_gpu
def test_a_step_that_cannot_be_recorded_goes_on_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    models = [made("sngan", device), made("sngan", device)]
    step = models[1].step

    def reading(batches: Any, clock: Clock) -> dict[str, torch.Tensor]:
        logs = step(batches, clock)
        assert logs["D_loss"].item() > -1e9
        return logs

    monkeypatch.setattr(models[1], "step", reading)
    recorded = Recorded(models[1], Engine(device, "fp32"))
    with pytest.warns(UserWarning, match="not recorded, and take longer: .*_local_scalar_dense.* waits for a value"):
        own = trained(models[1], recorded, 8, device)
    assert recorded.trouble and not recorded.graphs
    rows = trained(models[0], Recorded(models[0], Engine(device, "fp32")).plainly, 8, device)
    for row, replay in zip(rows[:6], own, strict=False):
        assert losses(replay) == pytest.approx(losses(row), rel=2e-2, abs=2e-2)
