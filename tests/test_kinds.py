"""Kinds of pictures: what k-means finds in colours, and what noise says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

import elegan
from elegan.families import sngan
from elegan.families.base import Batch, Clock, ImageSpec
from elegan.images import to_float
from elegan.networks.kinds import Kinds

PALETTE = torch.tensor([[200, 30, 30], [30, 60, 190], [240, 220, 60], [40, 40, 40]], dtype=torch.uint8)


def squares(colours: Tensor, seed: int = 0, side: int = 24) -> Tensor:
    """uint8 (N, 3, side, side): on light grey a square each, of many sizes and places, in a colour of the palette."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((len(colours), 3, side, side), 230, dtype=torch.uint8)
    for image, colour in zip(images, colours, strict=True):
        size = int(torch.randint(14, 21, (), generator=generator))
        y, x = torch.randint(0, side - size + 1, (2,), generator=generator).tolist()
        image[:, y : y + size, x : x + size] = PALETTE[colour][:, None, None]
    return images


def same_partition(a: Tensor, b: Tensor) -> bool:
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


@pytest.mark.parametrize("classes", [0, 2])
def test_pictures_of_one_colour_are_of_one_kind_large_or_small_in_any_class(classes: int) -> None:
    colours = torch.arange(240) % 4
    labels = torch.arange(240) // 4 % 2 if classes else None
    kinds = Kinds(4, 3, classes)
    kinds.learn(squares(colours), labels)
    assert same_partition(kinds(to_float(squares(colours)), labels), colours)
    unseen = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    found = kinds(to_float(squares(unseen, seed=1)), torch.arange(8) % 2 if classes else None)
    assert same_partition(found, unseen)
    with torch.autocast("cpu", torch.bfloat16):
        again = kinds(to_float(squares(unseen, seed=1)), torch.arange(8) % 2 if classes else None)
    assert torch.equal(again, found)


def test_a_class_has_its_own_shares_of_the_kinds_and_noise_says_them() -> None:
    colours = torch.tensor([0] * 60 + [1] * 20 + [2] * 20 + [3] * 100)  # the second class has the last one alone
    labels = torch.tensor([0] * 100 + [1] * 100)
    kinds = Kinds(4, 3, 3)  # of the third class there is no picture
    images = squares(colours)
    # the mean of a class of one colour lies where its pictures do, so that squares of other colours decide
    kinds.learn(images, labels)
    found = kinds(to_float(images), labels)
    for c in (0, 1):
        shares = torch.bincount(found[labels == c], minlength=4) / 100
        torch.testing.assert_close(kinds.shares[c], shares)
        told = kinds.told(torch.randn(40_000, 5, generator=torch.Generator().manual_seed(c)), torch.full((40_000,), c))
        torch.testing.assert_close(torch.bincount(told, minlength=4) / 40_000, shares, atol=0.01, rtol=0)
    torch.testing.assert_close(kinds.shares[2], torch.full((4,), 0.25))


def test_noise_that_tells_given_kinds_is_normal_still() -> None:
    kinds = Kinds(7, 3, 2)
    kinds.shares.copy_(torch.tensor([[0.4, 0.3, 0.2, 0.05, 0.03, 0.0195, 0.0005], [0, 0.5, 0, 0.25, 0.25, 0, 0]]))
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (20_000,), generator=generator)
    wanted = torch.multinomial(kinds.shares[labels], 1, generator=generator).squeeze(1)
    z = torch.randn(20_000, 6, generator=generator)
    said = kinds.telling(z, wanted, labels)
    assert torch.equal(kinds.told(said, labels), wanted)
    assert torch.equal(said[:, 1:], z[:, 1:])
    assert kstest(said[labels == 0, 0].numpy(), "norm").pvalue > 0.001
    assert kstest(said[labels == 1, 0].numpy(), "norm").pvalue > 0.001


def test_more_kinds_than_different_pictures_are_no_fault() -> None:
    kinds = Kinds(8, 3, 0)
    kinds.learn(squares(torch.zeros(5, dtype=torch.long))[:1].repeat(5, 1, 1, 1))
    assert all(buffer.isfinite().all() for buffer in kinds.buffers())
    torch.testing.assert_close(kinds.shares.sum(1), torch.ones(1))


def model(kinds: int = 4, **changes: object) -> sngan.Model:
    torch.manual_seed(0)
    config = sngan.PRESETS["tiny"].config.model_dump() | {"batch": 8, "kinds": kinds} | changes
    return sngan.Model(sngan.Config(**config), ImageSpec(3, 24, 24, 0))


@pytest.mark.parametrize("group", [0, 4])
def test_d_is_told_the_real_pictures_kinds_and_g_draws_the_same(group: int) -> None:
    ours = model(group=group, D_small=8, self_modulation=True)
    colours = torch.arange(80) % 4
    ours.prepare(squares(colours), None)
    batch = to_float(squares(colours[:8]))
    told: list[Tensor] = []
    said: list[Tensor] = []
    ours.D.register_forward_pre_hook(lambda _, args: told.append(args[2]))
    ours.G.register_forward_pre_hook(lambda _, args: said.append(ours.G.kinds.told(args[0])))
    ours.step([Batch(batch, None)], Clock(0, 100))
    kinds = ours.G.kinds(batch)
    assert same_partition(kinds, colours[:8])
    assert [torch.equal(s, kinds) for s in said] == [True, True]
    assert all(torch.equal(part, kinds) for t in told for part in t.split(8))
    assert {len(t) for t in told} == ({8} if group else {8, 16})


def test_both_networks_answer_to_the_kind() -> None:
    ours = model(self_modulation=True)
    ours.prepare(squares(torch.arange(80) % 4), None)
    z, first = torch.randn(4, 16), torch.tensor([0, 1, 2, 3])
    same = z[:1].expand(4, -1)
    with torch.no_grad():
        images = ours.G.eval()(ours.G.kinds.telling(same, first), None)
        logits = [ours.D.eval()(images[:1], None, kind[None]) for kind in first]
    assert all((images[0] - images[i]).abs().max() > 1e-3 for i in (1, 2, 3))
    assert len({round(float(value), 6) for value in logits}) == 4


def test_truncated_samples_are_of_all_kinds() -> None:
    ours = model()
    ours.prepare(squares(torch.arange(80) % 4), None)
    said: list[Tensor] = []
    ours.G_ema.register_forward_pre_hook(lambda _, args: said.append(args[0]))
    ours.sample(400, seed=0, truncation=0.2)
    z = torch.cat(said)
    assert z[:, 1:].abs().max() <= 0.4
    shares = torch.bincount(ours.G_ema.kinds.told(z), minlength=4) / 400
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.08, rtol=0)


def test_a_run_that_goes_on_has_the_kinds_that_it_began_with(tmp_path: Path) -> None:
    data = tmp_path / "squares.npz"
    np.savez(data, images=squares(torch.arange(60) % 3).permute(0, 2, 3, 1).numpy())
    settings: dict[str, Any] = {"kinds": 3, "data": data, "show": False, "seed": 0}
    whole = elegan.train("sngan-tiny", out=tmp_path / "whole", steps=4, **settings)
    elegan.train("sngan-tiny", out=tmp_path / "cut", steps=2, **settings)
    cut = elegan.train("sngan-tiny", out=tmp_path / "cut", steps=4, **settings)
    kinds = [run.model.parts.nets["G_ema"].kinds for run in (whole, cut)]
    assert same_partition(kinds[0](to_float(squares(torch.arange(60) % 3))), torch.arange(60) % 3)
    for a, b in zip(*(part.state_dict().values() for part in kinds), strict=True):
        assert torch.equal(a, b)
