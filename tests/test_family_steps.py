"""What makes each family the thing it is called: who learns what, in which order, from which loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from elegan import families
from elegan.adversarial.objectives import OBJECTIVES, PAIRED_OBJECTIVES, paired
from elegan.adversarial.stabilizers import clip_weights
from elegan.bench import Flops
from elegan.errors import UserError
from elegan.families import acgan, gan, improved, infogan, r3gan, sngan, wgan
from elegan.families.base import Batch, Clock, Family, ImageSpec
from elegan.networks.minibatch import FeatureStd, MinibatchDiscrimination, MinibatchStd

SPEC = ImageSpec(1, 16, 12, 3)


def make(family: Any, spec: ImageSpec = SPEC, preset: str = "tiny", **changes: Any) -> Any:
    torch.manual_seed(0)
    config = family.PRESETS[preset].config
    return family.Model(family.Config(**(config.model_dump() | {"batch": 4} | changes)), spec)


def batches(model: Family, seed: int = 0, labels: bool = True) -> list[Batch]:
    generator, spec, n = torch.Generator().manual_seed(seed), model.spec, model.config.batch
    shape = (n, spec.channels, spec.height, spec.width)
    y = torch.arange(n) % spec.classes if labels and spec.classes else None
    return [Batch(torch.rand(shape, generator=generator) * 2 - 1, y) for _ in range(model.batches_per_step)]


def step(model: Family, at: int = 0, total: int = 1000) -> dict[str, Tensor]:
    torch.manual_seed(at)
    return model.step(batches(model, at), Clock(at, total))


def order(model: Family) -> list[str]:
    """Which optimiser steps, in order, during one step."""
    steps: list[str] = []
    hooks = [
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
        for name, optimizer in model.parts.optimizers.items()
    ]
    step(model)
    for hook in hooks:
        hook.remove()
    return steps


def inputs_of(net: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """The first argument of every call of a network while `run` runs."""
    seen: list[Tensor] = []
    hook = net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    run()
    hook.remove()
    return seen


def no_batch_norm(net: nn.Module) -> bool:
    return not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())


def cross_slope(model: Any, labels: Tensor | None = None) -> float:
    """The largest |dD(x_i) / dx_j|, i != j."""
    x = torch.rand(3, model.spec.channels, model.spec.height, model.spec.width).requires_grad_()
    (gradient,) = torch.autograd.grad(model.D(x, labels)[0], x)
    assert gradient[0].abs().max() > 0
    return gradient[1:].abs().max().item()


# wgan


@pytest.mark.parametrize("preset", ["fashion-wgan-gp", "fashion-wgan-clip"])
def test_the_critic_learns_five_times_each_on_new_pictures(preset):
    model = make(wgan, preset=preset)
    assert order(model) == ["D"] * 5 + ["G"]
    judged = [x for x in inputs_of(model.D, lambda: step(model)) if len(x) == 8]  # real and fake in one pass
    assert len(judged) == 5
    real, fake = (torch.stack([half.chunk(2)[i] for half in judged]).flatten(1) for i in (0, 1))
    for pictures in (real, fake):
        assert len(torch.unique(pictures, dim=0)) == 5


def test_canonical_settings_of_wgan_gp_and_wgan():
    gp, clip = (wgan.PRESETS[f"fashion-wgan-{name}"].config for name in ("gp", "clip"))
    assert (gp.penalty, gp.penalty_weight, gp.D_steps, gp.G_lr, gp.D_lr) == ("gradient", 10, 5, 1e-4, 1e-4)
    assert (gp.optimizer, gp.beta1, gp.beta2, gp.batch) == ("adam", 0.5, 0.9, 50)
    assert (clip.penalty, clip.weight_clip, clip.D_steps) == ("none", 0.01, 5)
    assert (clip.optimizer, clip.D_lr, clip.batch) == ("rmsprop", 5e-5, 64)


@pytest.mark.parametrize("preset", wgan.PRESETS)
def test_no_penalised_critic_mixes_the_pictures_of_a_batch(preset):
    model = make(wgan, preset=preset)
    assert no_batch_norm(model.D)
    assert cross_slope(model) == 0


def test_the_penalty_joins_the_critics_loss_and_no_other():
    """With a zero objective for D the critic moves by the penalty alone; with weight 0 too it stays."""
    for weight, moves in ((10.0, True), (0.0, False)):
        model = make(wgan, penalty_weight=weight, ema_share=0.5)
        model.objective = model.objective._replace(D_real=lambda x, _: 0 * x.sum(), D_fake=lambda x, _: 0 * x.sum())
        before = [p.detach().clone() for p in model.D.parameters()]
        values = step(model)
        moved = any(not torch.equal(a, b) for a, b in zip(before, model.D.parameters(), strict=True))
        assert moved == moves
        assert (values["penalty"] > 0) == moves


def test_the_penalty_is_given_real_and_fake_in_that_order():
    model = make(wgan, penalty="r1")
    given: list[tuple[Tensor, Tensor]] = []
    model.penalty = lambda critic, real, fake, weight: given.append((real, fake)) or critic(real).sum() * 0
    step(model)
    assert [torch.equal(real, batch.images) for (real, _), batch in zip(given, batches(model), strict=True)] == [
        True
    ] * 2
    assert all(fake.shape == real.shape and not torch.equal(fake, real) for real, fake in given)


def test_gap_is_real_minus_fake_and_the_loss_its_negative():
    values = step(make(wgan))
    assert values["gap"].item() == pytest.approx(-values["D_loss"].item(), abs=1e-6)
    assert "D_real" not in values, "a critic's logits have no zero to be right about"
    assert "D_real" in step(make(wgan, preset="fashion-dragan"))


def test_clipped_after_every_update():
    model = make(wgan, preset="fashion-wgan-clip", D_lr=0.05)
    limits: list[float] = []
    model.D.register_forward_pre_hook(lambda *_: limits.append(max(p.abs().max().item() for p in model.D.parameters())))
    step(model)
    assert limits[0] > 0.01, "initial weights are wider"
    assert max(limits[1:]) <= 0.01 + 1e-9
    assert max(p.abs().max() for p in model.D.parameters()) <= 0.01 + 1e-9


def test_parallel_lines():
    """Real at theta, fake at 0: a clipped critic's gap grows with theta, and so does what it tells G; a classifier is
    as sure at every distance, and its minimax gradient is gone (Arjovsky+ 2017, example 1)."""
    game, plain, one, zero = OBJECTIVES["wasserstein"], OBJECTIVES["minimax"], torch.ones(1), torch.zeros(1)
    thetas, gaps, sure = [0.25, 0.5, 1.0, 2.0], [], []
    for theta in thetas:
        a = nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.RMSprop([a], 5e-3)
        for _ in range(20):
            optimizer.zero_grad()
            (game.D_real(a * theta, one) + game.D_fake(a * 0.0, zero)).backward()
            optimizer.step()
            clip_weights([a], 0.01)
        gaps.append(-(game.D_real(a * theta, one) + game.D_fake(a * 0.0, zero)).item())
        steep = 40 / theta  # a classifier may be as steep as it likes: its logits are +-20 at either point
        fake = torch.zeros(1, requires_grad=True)
        logit = lambda x, s=steep, m=theta / 2: s * (x - m)
        loss = plain.D_real(logit(torch.tensor([theta])), one) + plain.D_fake(logit(fake), zero)
        (to_G,) = torch.autograd.grad(plain.G(logit(fake)), fake)
        sure.append((loss.item(), to_G.abs().item()))
    assert gaps == pytest.approx([0.01 * theta for theta in thetas], rel=1e-4)
    assert max(loss for loss, _ in sure) < 1e-6
    assert max(slope for _, slope in sure) < 1e-5


def test_an_untamed_critic_is_refused():
    with pytest.raises(ValidationError, match="needs a penalty or weight_clip"):
        wgan.Config(penalty="none")
    wgan.Config(penalty="none", weight_clip=0.01)
    wgan.Config(penalty="none", objective="hinge")


@pytest.mark.parametrize("name", ["wgan", "acgan"])
def test_asking_for_labels_that_are_not_there_is_refused(name):
    with pytest.raises(UserError, match="conditional=false"):
        make(families.get(name), ImageSpec(1, 16, 16), conditional=True)
    assert make(families.get(name), conditional=True).conditional


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def moved(before: list[Tensor], net: nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def silence(model: Any) -> None:
    """Take the game of real and fake away, so that only the other losses move the players."""
    model.objective = model.objective._replace(
        D_real=lambda x, _: 0 * x.sum(), D_fake=lambda x, _: 0 * x.sum(), G=lambda x: 0 * x.sum()
    )


@pytest.mark.parametrize(("family", "value", "better"), [(acgan, "G_class", -1), (infogan, "I_category", 1)])
def test_g_learns_to_be_read(family, value, better):
    """With D and Q at rest and no game, G alone makes its classes and codes easier to read."""
    model = make(family, D_lr=1e-12, G_lr=5e-3, batch=32)
    silence(model)
    values = [step(model, at)[value].item() for at in range(25)]
    assert better * (sum(values[-5:]) - sum(values[:5])) / 5 > 0.1


# acgan


def test_canonical_settings_of_acgan():
    for name in ("fashion-acgan", "digits-acgan"):
        cfg = acgan.PRESETS[name].config
        assert (cfg.G_lr, cfg.D_lr, cfg.beta1, cfg.objective) == (2e-4, 2e-4, 0.5, "nonsaturating")
        assert (cfg.D_class_weight, cfg.G_class_weight, cfg.conditional) == (1, 1, True)


def test_each_player_learns_the_class_by_its_own_weight():
    for D_weight, G_weight in ((1.0, 0.0), (0.0, 1.0)):
        model = make(acgan, D_class_weight=D_weight, G_class_weight=G_weight)
        silence(model)
        D, G = weights(model.D), weights(model.G)
        assert order(model) == ["D", "G"]
        assert moved(D, model.D) == (D_weight > 0), "the auxiliary head is not frozen"
        assert moved(G, model.G) == (G_weight > 0)


def test_the_class_loss_is_taken_on_real_and_on_fake_with_the_asked_classes():
    model = make(acgan, ImageSpec(1, 16, 12, 4))
    given: list[tuple[int, list[int]]] = []
    original = acgan.class_loss

    def recorded(logits: Tensor, labels: Tensor) -> Tensor:
        given.append((len(logits), labels.tolist()))
        return original(logits, labels)

    acgan.class_loss = recorded
    try:
        step(model)
    finally:
        acgan.class_loss = original
    assert given == [(4, [0, 1, 2, 3])] * 3


def test_class_losses_by_hand():
    from elegan.adversarial.objectives import class_loss

    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    expected = -(torch.tensor(0.25).log() + torch.tensor(0.8).log()) / 2
    torch.testing.assert_close(class_loss(logits, torch.tensor([1, 2])), expected)
    assert class_loss(torch.zeros(2, 0), None) == 0
    assert class_loss(logits.bfloat16(), torch.tensor([1, 2])).dtype == torch.float32


def test_a_d_that_begins_as_a_classifier():
    """For the first share of the run D's trunk and class head learn and nothing else moves; then the game begins."""
    model = make(acgan, pretrain=0.5, D_lr=5e-3)
    assert model.typical(100) == {0: 0.5, 100: 0.5}
    assert make(acgan).typical(100) == {0: 1.0}
    before = {name: weights(net) for name, net in model.parts.nets.items()}
    source = weights(model.D.source)
    losses = [step(model, 0)["D_class"].item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert moved(before["D"], model.D)
    assert not moved(source, model.D.source)
    assert not moved(before["G"], model.G)
    assert not moved(before["G_ema"], model.G_ema)
    assert 0 <= step(model, 0)["D_right"].item() <= 1
    values = step(model, 500)
    assert "G_loss" in values
    assert moved(before["G"], model.G)
    with pytest.raises(ValidationError, match="pretrain needs classes"):
        acgan.Config(pretrain=0.1, conditional=False)


def test_without_labels_a_dcgan_remains():
    a, b = (make(acgan, conditional=False) for _ in range(2))
    torch.manual_seed(0)
    a.step(batches(a), Clock(0, 100))
    torch.manual_seed(0)
    b.step(batches(b, labels=False), Clock(0, 100))
    assert not moved(weights(a.D), b.D)
    assert not moved(weights(a.G), b.G)
    assert a.D.classes is None


# infogan


def test_canonical_settings_of_infogan():
    cfg = infogan.PRESETS["digits-infogan"].config
    assert (cfg.z_dim, cfg.code_categories, cfg.code_numbers, cfg.info_weight) == (62, 10, 2, 1)
    assert (cfg.G_lr, cfg.D_lr, cfg.beta1) == (1e-3, 2e-4, 0.5)


def test_infogans_batch_norms_stand_where_the_authors_have_them_and_keep_real_and_fake_apart():
    model = make(infogan)
    norms = [name for name, m in model.D.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms == ["trunk.0.layers.3", "trunk.2", "Q.1"], "the second convolution, the dense layer, Q's own"
    seen: list[int] = []
    model.D.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    step(model)
    assert seen == [model.config.batch] * 3, "real, fake, and fake again for G"
    plain = make(infogan, D_batch_norm=False)
    assert not [m for m in plain.D.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    step(plain)


def test_what_q_reads_is_at_most_the_entropy_of_the_code():
    """L_I <= H(c) = log K for any Q, and a perfect Q reaches it; one that knows nothing reaches nothing."""
    from elegan.adversarial.objectives import category_information

    torch.manual_seed(0)
    category = torch.randint(10, (500,))
    H = torch.tensor(10.0).log().item()
    perfect = 50 * nn.functional.one_hot(category, 10).float()
    assert category_information(perfect, category).item() == pytest.approx(H, abs=1e-6)
    assert category_information(torch.zeros(500, 10), category).item() == pytest.approx(0, abs=1e-6)
    for scale in (0.1, 1.0, 10.0):
        assert category_information(scale * torch.randn(500, 10), category).item() < H
        assert category_information(scale * torch.randn(500, 10) + perfect, category).item() <= H + 1e-6


def test_what_q_reads_of_the_numbers():
    """U(-1, 1) has entropy log 2, and a perfect mean leaves -1/2 log 2 pi e^0: both by hand; no bound exceeds 0
    where the means know nothing of the codes."""
    from elegan.adversarial.objectives import codes_information

    codes = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    known = 2 * (0.6931472 - 0.9189385)
    assert codes_information(codes, codes).item() == pytest.approx(known, abs=1e-5)
    # E c^2 = 1/3 for each code
    assert codes_information(0 * codes, codes).item() == pytest.approx(known - 1 / 3, abs=5e-3)
    for std in (0.1, 1 / 3**0.5, 1.0, 5.0):
        assert codes_information(0 * codes, codes, std).item() <= 0
    assert codes_information(codes[:, :0], codes[:, :0]).item() == 0


def test_infogan_never_sees_a_label():
    a, b = make(infogan), make(infogan)
    torch.manual_seed(0)
    a.step(batches(a), Clock(0, 100))
    torch.manual_seed(0)
    b.step(batches(b, labels=False), Clock(0, 100))
    assert not moved(weights(a.D), b.D)
    assert not moved(weights(a.G), b.G)
    assert not a.conditional
    c = make(infogan, ImageSpec(1, 16, 12))
    assert [p.shape for p in c.D.parameters()] == [p.shape for p in a.D.parameters()]


def test_q_learns_from_fakes_alone_and_shares_the_trunk():
    """Without the game, D's step does not depend on the real pictures, yet moves the trunk, as G's moves G."""
    after = []
    for seed in (0, 1):
        model = make(infogan)
        silence(model)
        trunk, head, G = weights(model.D.trunk), weights(model.D.Q), weights(model.G)
        torch.manual_seed(0)
        model.step(batches(model, seed), Clock(0, 100))
        assert moved(trunk, model.D.trunk)
        assert moved(head, model.D.Q)
        assert moved(G, model.G)
        after.append(weights(model.D))
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))
    off = make(infogan, info_weight=0.0)
    head = weights(off.D.Q)
    step(off)
    assert not moved(head, off.D.Q)


def test_labels_choose_infogans_category():
    model = make(infogan, ImageSpec(1, 16, 12))
    assert model.categories == 4
    step(model)
    ones, threes = (model.sample(5, torch.full((5,), c), seed=0) for c in (1, 3))
    assert not torch.equal(ones, threes)
    mixed = model.sample(5, torch.tensor([1, 3, 1, 3, 1]), seed=0)
    assert torch.equal(mixed[[0, 2, 4]], ones[[0, 2, 4]])
    assert torch.equal(mixed[[1, 3]], threes[[1, 3]])
    free = model.sample(100, seed=0)
    assert [torch.equal(free[i], model.sample(100, torch.full((100,), 2), seed=0)[i]) for i in range(100)].count(True)


def test_q_can_learn_the_code():
    """A few steps against a G that writes the category into the picture: what Q reads rises towards log 4."""
    model = make(infogan, ImageSpec(1, 16, 16), batch=32, code_numbers=0, D_lr=2e-3)
    silence(model)

    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, latent: Tensor) -> Tensor:
            planes = latent[:, 16:].repeat_interleave(4, 1)  # four rows for each category
            return (self.scale * planes[:, None, :, None]).expand(-1, 1, 16, 16)

    model.G, model.G_ema = Writer(), Writer()
    model.G_adam = torch.optim.SGD(model.G.parameters(), 1e-9)
    information = [step(model, at)["I_category"].item() for at in range(40)]
    assert information[0] < 0.5
    assert 1.2 < information[-1] <= 1.3863


# r3gan


def test_a_constant_added_to_d_changes_neither_relativistic_loss():
    from elegan.adversarial.objectives import PAIRED_OBJECTIVES

    torch.manual_seed(0)
    real, fake = torch.randn(50), torch.randn(50)
    game, plain = PAIRED_OBJECTIVES["relativistic"], paired("nonsaturating")
    for c in (-30.0, 4.0):
        torch.testing.assert_close(game.D(real + c, fake + c), game.D(real, fake), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(game.G(real + c, fake + c), game.G(real, fake), atol=1e-5, rtol=1e-4)
        assert not torch.isclose(plain.D(real + c, fake + c), plain.D(real, fake), rtol=0.1)


def test_the_average_game_by_hand_and_that_a_constant_changes_nothing():
    """real 2, 0 (mean 1) and fake -1, 1 (mean 0): each real against 0, each fake against 1."""
    game = PAIRED_OBJECTIVES["relativistic-average"]
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    s = lambda x: math.log1p(math.exp(x))
    assert game.D(real, fake).item() == pytest.approx((s(-2) + s(0) + s(-2) + s(0)) / 2)
    assert game.G(real, fake).item() == pytest.approx((s(-(-1 - 1)) + s(-(1 - 1)) + s(2 - 0) + s(0 - 0)) / 2)
    torch.testing.assert_close(game.D(real + 5, fake + 5), game.D(real, fake))
    torch.testing.assert_close(game.G(real + 5, fake + 5), game.G(real, fake))
    pairs = PAIRED_OBJECTIVES["relativistic"]
    assert game.D(real, fake) != pairs.D(real, fake), "against the mean is not against a partner"


def test_relativistic_losses_by_hand():
    """log(1 + exp(-difference)) over pairs: not over the difference to a batch's mean, and no log at a tie."""
    from elegan.adversarial.objectives import relativistic_D, relativistic_G

    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    value = torch.nn.functional.softplus(torch.tensor([-2.0, 2.0])).mean()
    torch.testing.assert_close(relativistic_D(real, fake), value)
    torch.testing.assert_close(relativistic_G(real, fake), value)
    assert relativistic_D(real, real).item() == pytest.approx(0.6931472)
    assert value > 0.7, "differences to the means would all be 0 +- 1: pairs are not averages"
    for far in (-80.0, 80.0):  # the gradient is whole where G loses, and gone where it wins
        x = torch.tensor([far], requires_grad=True)
        (slope,) = torch.autograd.grad(relativistic_G(torch.zeros(1), x), x)
        assert slope.item() == pytest.approx(-1.0 if far < 0 else 0.0, abs=1e-6)
    unpaired = paired("nonsaturating")
    assert unpaired.D(torch.zeros(2), torch.zeros(2)).item() == pytest.approx(2 * 0.6931472)
    assert relativistic_D(real.bfloat16(), fake.bfloat16()).dtype == torch.float32


def test_r3gan_has_no_normalisation_and_starts_from_identities():
    model = make(r3gan, ImageSpec(3, 24, 24, 2))
    for net in (model.G, model.D):
        assert not any("Norm" in type(m).__name__ or hasattr(m, "parametrizations") for m in net.modules())
        blocks = [m for m in net.modules() if isinstance(m, r3gan.Block)]
        assert len(blocks) == len(net.stages) == 3
        x = torch.randn(2, blocks[0].widen.in_channels, 6, 6)
        assert torch.equal(blocks[0](x), x)
    assert cross_slope(model, torch.tensor([0, 1, 1])) == 0


def test_blocks_are_grouped_1_3_1_with_fixup_scales():
    torch.manual_seed(0)
    block = r3gan.Block(64, 2, 16, 16)  # 16 blocks: every inner layer is half as wide
    sizes = [m.kernel_size for m in (block.widen, block.mix, block.narrow)]
    assert sizes == [(1, 1), (3, 3), (1, 1)]
    assert (block.mix.groups, block.mix.in_channels) == (8, 128)
    gain = (2 / 1.04) ** 0.5
    assert block.widen.weight.std().item() == pytest.approx(gain / 2 / 64**0.5, rel=0.03)
    assert block.mix.weight.std().item() == pytest.approx(gain / 2 / (16 * 9) ** 0.5, rel=0.03)
    assert not block.narrow.weight.any()
    odd = r3gan.Block(25, 2, 16, 1)
    assert odd(torch.randn(1, 25, 4, 4)).shape == (1, 25, 4, 4)


def test_sides_are_resampled_bilinearly():
    """The mean of 2x2 pixels is bilinear interpolation at half the size; odd sides keep their last row."""
    x = torch.randn(2, 3, 8, 6)
    halved = nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(nn.functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False), halved)
    odd = nn.functional.avg_pool2d(torch.ones(1, 1, 5, 7), 2, ceil_mode=True, count_include_pad=False)
    assert torch.equal(odd, torch.ones(1, 1, 3, 4))


def test_r1_and_r2_join_at_every_step():
    """Without the game D moves by the penalties alone, on real and on fake, at every step: nothing is lazy."""
    model = make(r3gan)
    model.objective = model.objective._replace(D=lambda real, fake: 0 * (real + fake).sum())
    for at in range(3):
        D = weights(model.D)
        values = step(model, at)
        assert moved(D, model.D)
        assert values["penalty"] > 0
    # exactly gamma / 2 E||.||^2 on both: D = w x (a single linear layer) gives gamma ||w||^2

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(1, 16, 12))

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            return (x * self.w).sum((1, 2, 3))

    model.D = Linear()
    model.D_adam = torch.optim.Adam(model.D.parameters())
    w = model.D.w.detach().clone()
    torch.manual_seed(0)
    values = model.step(batches(model), Clock(1000, 1000))
    assert values["penalty"].item() == pytest.approx(0.1 * w.square().sum().item(), rel=1e-4)


def test_a_short_run_of_sngan_has_larger_rates_which_do_not_fall():
    model = make(sngan, short_run=1000, lr_hold=0.5)
    for seen, total, times in ((0, 500, 2), (500, 500, 2), (0, 2000, 1.25), (2000, 2000, 1.25 * 0.25)):
        model.step(batches(model), Clock(seen, total))
        for optimizer, lr in ((model.G_adam, model.config.G_lr), (model.D_adam, model.config.D_lr)):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(times * lr)


def test_schedules_of_r3gan():
    model = make(r3gan, burn_in=0.5)
    for seen, lr, beta2 in ((0, 2e-4, 0.9), (250, 1.25e-4, 0.945), (500, 5e-5, 0.99), (1000, 5e-5, 0.99)):
        step(model, seen)
        for optimizer in (model.G_adam, model.D_adam):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
            assert optimizer.param_groups[0]["betas"] == (0.0, pytest.approx(beta2))
    authors, ours = r3gan.Config(), r3gan.PRESETS["fashion-r3gan"].config
    assert (authors.lr, ours.lr) == ((2e-4, 5e-5), (2e-3, 5e-4))
    for cfg in (authors, ours):
        assert (cfg.beta1, cfg.beta2, cfg.z_dim, cfg.gamma) == (0, (0.9, 0.99), 64, (1.0, 0.1))
    with pytest.raises(ValidationError, match="not negative"):
        r3gan.Config(gamma=(-1.0, 0.1))


def test_pictures_are_unbounded_while_learning_and_cut_in_use():
    model = make(r3gan)
    with torch.no_grad():
        model.G.out[0].bias += 5
        z, y = torch.randn(4, 16), torch.tensor([0, 1, 2, 0])
        assert model.G.train()(z, y).max() > 1
        assert model.G.eval()(z, y).abs().max() <= 1


# improved


def test_the_deviation_of_a_batch_of_copies_is_nothing():
    layer = MinibatchStd(4)
    one = torch.randn(1, 5, 3, 2)
    out = layer(one.expand(8, -1, -1, -1))
    assert out.shape == (8, 6, 3, 2)
    assert out[:, 5].abs().max() <= 1.01e-4
    assert layer(torch.randn(8, 5, 3, 2))[:, 5].min() > 0.3, "a batch of strangers is not flagged"


def test_the_deviation_by_hand_and_group_by_group():
    x = torch.tensor(
        [[1.0, 10.0], [5.0, 0.0], [3.0, 10.0], [5.0, 4.0]]
    )  # groups {0, 2} and {1, 3}: deviations 1, 0; 0, 2
    out = MinibatchStd(2)(x)
    assert torch.equal(out[:, :2], x)
    torch.testing.assert_close(out[:, 2], torch.tensor([0.5, 1.0, 0.5, 1.0]), atol=1e-3, rtol=0)
    for n, group in ((6, 4), (5, 4), (1, 4), (7, 7)):  # sizes that the group does not divide
        out = MinibatchStd(group)(torch.randn(n, 2))
        assert out.shape == (n, 3)
        assert torch.isfinite(out).all()
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    MinibatchStd(4)(x.expand(4, 3, 2, 2) * 0)[:, 3].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all(), "copies have a finite gradient"


def test_the_deviation_of_each_feature_is_among_pictures_of_one_class():
    labels = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0])
    x = torch.zeros(8, 3, 2, 2)
    x[:, 0] = labels[:, None, None]  # what tells the classes apart does not deviate within them
    x[labels == 1, 1] = torch.tensor([1.0, 3.0, 1.0, 3.0])[:, None, None]  # the second class varies in this, by 1
    x[labels == 0, 2, 0] = torch.tensor([4.0, 0.0, 4.0, 0.0])[:, None]  # the first in that, by 2 in half of its places
    of_0, of_1 = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    expected = torch.stack([of_1 if label else of_0 for label in labels])
    layer = FeatureStd(4)
    torch.testing.assert_close(layer(x, labels), expected, atol=2e-4, rtol=0)
    order = torch.randperm(8)
    torch.testing.assert_close(layer(x[order], labels[order]), expected[order], atol=2e-4, rtol=0)
    assert layer(x)[:, 0].min() > 0.2, "without labels a group has both classes"
    for n in (1, 5, 6):  # sizes that the group does not divide
        out = layer(x[:n], labels[:n])
        assert out.shape == (n, 3)
        assert torch.isfinite(out).all()


def test_minibatch_discrimination_counts_the_copies():
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(6, kernels=3, dims=5)
    copies = layer(torch.randn(1, 6).expand(5, -1))
    assert copies.shape == (5, 9)
    torch.testing.assert_close(copies[:, 6:], torch.full((5, 3), 4.0))
    strangers = layer(1e4 * torch.randn(5, 6))
    assert strangers[:, 6:].max() < 1e-3
    x = torch.randn(5, 6)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(layer(x[order]), layer(x)[order])


def test_minibatch_discrimination_by_hand():
    """One kernel of two dimensions, T = 1: exp(-|1 - 3| - |1 - 2|) between the two pictures."""
    layer = MinibatchDiscrimination(2, kernels=1, dims=2)
    with torch.no_grad():
        layer.T.copy_(torch.eye(2))
    out = layer(torch.tensor([[1.0, 1.0], [3.0, 2.0]]))
    torch.testing.assert_close(out[:, 2], torch.tensor([-3.0, -3.0]).exp())


@pytest.mark.parametrize(("minibatch", "mixes"), [("none", False), ("discrimination", True), ("stddev", True)])
def test_d_sees_its_batch_where_it_should(minibatch, mixes):
    model = make(improved, minibatch=minibatch)
    model.D.eval()
    x = (0.1 * torch.rand(4, 1, 16, 12)).requires_grad_()
    (gradient,) = torch.autograd.grad(model.D(x)[0][0], x)
    assert (gradient[1:].abs().max() > 0) == mixes


def test_real_and_fake_are_compared_apart():
    model = make(improved)
    sizes = [len(x) for x in inputs_of(model.D, lambda: step(model))]
    assert sizes == [4, 4, 4], "D on real, D on fake, D for G: never both in one pass"


def test_feature_matching_by_hand():
    from elegan.adversarial.objectives import feature_matching

    real, fake = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[0.0, 5.0], [0.0, 1.0]])
    assert feature_matching(real, fake).item() == pytest.approx((2 - 0) ** 2 + (1 - 3) ** 2)
    assert feature_matching(real, real.flip(0)).item() == 0, "the mean is matched, not the pictures"


@pytest.mark.parametrize(("goal", "listens"), [("verdict", True), ("features", False)])
def test_feature_matching_gives_g_no_gradient_of_the_verdict(goal, listens):
    """Where G matches features, what D's head says (here: turned over before G learns) must not matter to G."""
    after = []
    for sign in (1.0, -1.0):
        model = make(improved, goal=goal, minibatch="none", D_lr=1e-20)
        with torch.no_grad():
            model.D.head.weight *= sign
        step(model)
        after.append(weights(model.G))
    assert any(not torch.equal(a, b) for a, b in zip(*after, strict=True)) == listens


def test_instance_noise_follows_its_law_and_fades_to_nothing():
    from elegan.adversarial.stabilizers import instance_noise

    torch.manual_seed(0)
    added = instance_noise(torch.full((200, 1, 10, 10), 0.5), 0.3) - 0.5
    assert added.mean().item() == pytest.approx(0, abs=0.01)
    assert added.std().item() == pytest.approx(0.3, rel=0.02)
    images = torch.rand(2, 1, 3, 3)
    assert instance_noise(images, 0.0) is images

    model = make(improved, noise=0.5, noise_share=0.5)
    for seen, sigma in ((0, 0.5), (250, 0.25), (500, 0.0), (1000, 0.0)):
        judged = inputs_of(model.D, lambda seen=seen: step(model, seen))
        difference = judged[0] - batches(model, seen)[0].images
        assert difference.std().item() == pytest.approx(sigma, rel=0.1, abs=1e-7)
        assert (judged[1].abs().max() > 1) == (sigma > 0), "fakes are disturbed too"


def test_with_noise_no_classifier_tells_two_points_apart():
    """Real at +1, fake at -1: D's loss can come near 0, but not below the overlap when both are disturbed."""
    from elegan.adversarial.stabilizers import instance_noise

    torch.manual_seed(0)
    game, losses = OBJECTIVES["nonsaturating"], {}
    for sigma in (0.0, 1.0):
        real, fake = (instance_noise(torch.full((20_000,), at), sigma) for at in (1.0, -1.0))
        ratio = 2 / max(sigma, 0.1) ** 2  # the log ratio of the two Gaussians is ratio * x: no D does better
        losses[sigma] = game.D_real(ratio * real, torch.tensor(1.0)) + game.D_fake(ratio * fake, torch.tensor(0.0))
    assert losses[0.0] < 1e-6
    assert losses[1.0] > 0.5


def test_the_best_discriminator_under_soft_targets():
    """One-sided smoothing: D* = 0.9 p / (p + q), and fakes stay at 0. Flipping: D* = ((1-e) p + e q) / (p + q)."""
    game = OBJECTIVES["nonsaturating"]
    for p, q in ((0.7, 0.3), (0.2, 0.8), (0.5, 0.5)):
        for real_target, fake_target, best in (
            (0.9, 0.0, 0.9 * p / (p + q)),
            (0.9, 0.1, (0.9 * p + 0.1 * q) / (p + q)),  # the mean targets of flipping with e = 0.1
        ):
            z = torch.logit(torch.tensor([best])).requires_grad_()
            loss = p * game.D_real(z, torch.tensor(real_target)) + q * game.D_fake(z, torch.tensor(fake_target))
            (slope,) = torch.autograd.grad(loss, z)
            assert slope.item() == pytest.approx(0, abs=1e-6)
    assert improved.PRESETS["fashion-minibatch"].config.label_smoothing == 0.1


# SNGAN ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 28, 28), (3, 64, 64), (1, 9, 13), (4, 17, 24), (3, 8, 8)]
)
def test_g_draws_blocks_of_pixels_at_any_size_for_less_work(channels, height, width):
    spec, work = ImageSpec(channels, height, width, 3), {}
    for how in ("single", "blocks"):
        G = sngan.Generator(sngan.Config(z_dim=8, G_width=8, G_widest=32, G_pixels=how), spec)
        with Flops() as counter:
            pictures = G(torch.randn(2, 8), torch.tensor([0, 2]))
        assert pictures.shape == (2, channels, height, width)
        assert pictures.abs().max() <= 1
        work[how] = counter.total
    assert work["blocks"] < 0.75 * work["single"] or min(height, width) < 10  # too small to be doubled: nothing to save


@pytest.mark.parametrize("classes", [0, 3])
def test_z_scales_and_shifts_what_gs_layers_make(classes):
    spec = ImageSpec(3, 16, 12, classes)
    labels = torch.tensor([0, 2]) if classes else None
    plain, modulated = (make(sngan, spec, self_modulation=on) for on in (False, True))
    modulated.G.load_state_dict(plain.G.state_dict(), strict=False)
    z = torch.randn(2, 16)
    assert torch.equal(plain.G(z, labels), modulated.G(z, labels))  # starts as if it were not there
    norm = modulated.G.norms[-1]
    width = len(norm.norm.running_mean)
    with torch.no_grad():  # the first number of z: + its value to the scale; the second: to the shift
        norm.modulate.weight[:width, 0], norm.modulate.weight[width:, 1] = 1.0, 1.0
    x = torch.randn(2, width, 4, 4)
    expected = norm.norm(x) * (1 + z[:, 0, None, None, None]) + z[:, 1, None, None, None]
    torch.testing.assert_close(norm(x, labels, z), expected)


def test_the_deviation_that_d_sees_is_of_reals_or_of_fakes_alone():
    model = make(sngan, batch=6, group=4, self_modulation=True)
    std = model.D.deviation
    with torch.no_grad():  # every fake is the same
        for p in model.G.parameters():
            p.zero_()
    channels: list[Tensor] = []
    std.register_forward_hook(lambda _, __, out: channels.append(out.mean(1)))
    step(model)
    of_real, of_fake, _ = channels
    assert of_real.min() > 10 * of_fake.max()
    assert len(of_real) == len(of_fake) == 6


def test_g_is_compared_with_the_real_pictures_as_d_judged_them_in_its_own_step():
    model = make(sngan, batch=6, objective="relativistic", group=2)
    judged: list[Tensor] = []
    model.D.register_forward_hook(lambda _, __, logits: judged.append(logits.detach().clone()))
    out = step(model)
    real, fake, new = judged
    game = PAIRED_OBJECTIVES["relativistic"]
    torch.testing.assert_close(out["D_loss"], game.D(real, fake))
    torch.testing.assert_close(out["G_loss"], game.G(real, new))
    assert set(out) == {"D_loss", "G_loss", "pairs"}


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 8), (16, 22, 4), (6, 7, 8)])
@pytest.mark.parametrize("classes", [0, 3])
def test_the_second_d_sees_shrunk_pictures_and_learns_beside_the_first(height, width, side, classes):
    model = make(sngan, ImageSpec(3, height, width, classes), batch=6, objective="relativistic", group=2, D_small=side)
    labels = torch.tensor([0, 0, 1, 1, 2, 2]) if classes else None
    images = torch.rand(6, 3, height, width)
    noise = torch.randn_like(images)
    unseen = noise - F.interpolate(F.adaptive_avg_pool2d(noise, model.D.small_size), (height, width))
    if height % side == width % side == 0:  # then what the noise changes is gone in the small picture
        with torch.no_grad():
            changed = (model.D.eval()(images + unseen, labels) - model.D(images, labels)).abs()
        first, second = changed.amax(0)
        assert second < 1e-4
        assert first > 1e-3
    assert model.logits(images, labels).shape == (6,)
    judged: list[Tensor] = []
    model.D.register_forward_hook(lambda _, __, logits: judged.append(logits.detach().clone()))
    small = [p.clone() for p in model.D.small.features.parameters()]
    out = step(model)
    real, fake, new = judged
    game = PAIRED_OBJECTIVES["relativistic"]
    torch.testing.assert_close(out["D_loss"], (game.D(real[:, 0], fake[:, 0]) + game.D(real[:, 1], fake[:, 1])) / 2)
    torch.testing.assert_close(out["G_loss"], (game.G(real[:, 0], new[:, 0]) + game.G(real[:, 1], new[:, 1])) / 2)
    assert all((a != b).any() for a, b in zip(small, model.D.small.features.parameters(), strict=True))


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 8), (16, 16, 4), (32, 24, 6), (8, 8, 8)])
def test_the_second_ds_slope_is_measured_in_the_pictures_not_in_the_shrunk_ones(height, width, side):
    """Its logit is that of a D whose slope is bounded by 1, on pictures shrunk such that flat ones keep distances."""
    model = make(sngan, ImageSpec(3, height, width, 0), batch=6, group=0, D_small=side)
    colours = torch.rand(2, 3, *model.D.small_size)
    one, other = F.interpolate(colours, (height, width))  # blocks of one colour each
    small = model.D.eval().small
    with torch.no_grad():
        change = torch.diff(model.D(torch.stack([one, other]))[:, 1]).abs()
        shrunk = torch.diff(small(colours)).abs()
    kept = (one - other).norm() / (colours[0] - colours[1]).norm()
    torch.testing.assert_close(change, kept * shrunk)


# GAN --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", ["joint", "separate", "shared"])
def test_fakes_are_asked_for_the_real_batchs_classes_or_for_any(updates, monkeypatch):
    """Each fake is judged for the class that it was asked for, whichever that is."""
    spec, labels = ImageSpec(1, 12, 12, 5), torch.zeros(40, dtype=torch.int64)
    for how in ("real", "random"):
        config = gan.Config(network="mlp", G_widths=[8], D_widths=[8], z_dim=4, conditional=True, updates=updates)
        model = gan.Model(config.model_copy(update={"fake_labels": how}), spec)
        made, judged = [], []
        monkeypatch.setattr(model.G, "forward", spied(model.G.forward, made))
        monkeypatch.setattr(model.D, "forward", spied(model.D.forward, judged))
        model.step([Batch(torch.zeros(40, 1, 12, 12), labels)], Clock(0, 100))
        assert len(made) == (1 if updates == "shared" else 2)
        assert all((len(y.unique()) == 1) == (how == "real") for y in made)
        fakes = made[0] if updates == "separate" else torch.cat([labels, made[0]])
        assert any(torch.equal(y, fakes) for y in judged)
        assert updates == "shared" or torch.equal(judged[-1], made[1])


def spied(forward: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    """A forward that notes the labels it was called with."""

    def noted(x: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return forward(x, labels)

    return noted
