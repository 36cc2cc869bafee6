"""`fashion-dcgan` as a plain eager PyTorch loop: what a reader gets who ports the tutorial line by line.

    python -m benchmarks.reference.torch_plain fashion-dcgan --time-only --steps 50 --data DATA
    python -m benchmarks.reference.torch_plain fashion-dcgan --images 360000 --data DATA --out dcgan.npz

NCHW, float32, no compilation, the default Adam, the whole data set in memory. The weights start as Keras' do
(Glorot uniform, zero bias). Written for speed comparisons: "same" padding is the symmetric one that a port
uses, which differs from TensorFlow's by a shift of one pixel and costs the same. The data loader is an index
into a tensor, the cheapest there is. The flags are those of `keras_programs`.
"""

from __future__ import annotations

import json
import platform
import sys

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.reference import common
from benchmarks.reference.common import Run

BATCH, Z = 128, 100


def keras_like(module: nn.Module) -> None:
    """Keras' initialisers on one layer. Its batch normalisation has momentum 0.99, which torch calls 0.01."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.eps, module.momentum = 1e-3, 0.01


def networks() -> tuple[nn.Module, nn.Module]:
    """Generator (N, 100) -> (N, 1, 28, 28) and discriminator (N, 1, 28, 28) -> logits (N, 1)."""
    generator = nn.Sequential(
        nn.Linear(Z, 7 * 7 * 256, bias=False),
        nn.BatchNorm1d(7 * 7 * 256),
        nn.LeakyReLU(0.3),
        nn.Unflatten(1, (256, 7, 7)),
        nn.ConvTranspose2d(256, 128, 5, stride=1, padding=2, bias=False),
        nn.BatchNorm2d(128),
        nn.LeakyReLU(0.3),
        nn.ConvTranspose2d(128, 64, 5, stride=2, padding=2, output_padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.3),
        nn.ConvTranspose2d(64, 1, 5, stride=2, padding=2, output_padding=1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 5, stride=2, padding=2),
        nn.LeakyReLU(0.3),
        nn.Dropout(0.3),
        nn.Conv2d(64, 128, 5, stride=2, padding=2),
        nn.LeakyReLU(0.3),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(7 * 7 * 128, 1),
    )
    return generator.apply(keras_like), discriminator.apply(keras_like)


def train(generator: nn.Module, discriminator: nn.Module, images: Tensor, run: Run) -> None:
    """One D and one G update from the same fakes; images (N, 1, 28, 28) in [-1, 1]."""
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-4)

    def bce(logits: Tensor, target: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    while run.going:
        for chosen in torch.randperm(len(images)).split(BATCH):
            real = images[chosen]
            fake = generator(torch.randn(BATCH, Z))

            d_loss = bce(discriminator(real), 1) + bce(discriminator(fake.detach()), 0)
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()

            g_loss = bce(discriminator(fake), 1)
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()

            run.record(len(real), d_loss=d_loss.detach(), g_loss=g_loss.detach())
            if not run.going:
                break


@torch.no_grad()
def sample(generator: nn.Module, n: int, seed: int) -> np.ndarray:
    """`n` images uint8 (n, 28, 28, 1)."""
    z = torch.from_numpy(np.random.default_rng([seed, 1]).standard_normal((n, Z), dtype=np.float32))
    generator.eval()
    images = torch.cat([generator(part) for part in z.split(256)]).permute(0, 2, 3, 1).numpy()
    generator.train()
    return common.to_uint8(images, -1)


def main() -> None:
    """Trains or times the program."""
    parser = common.arguments(["fashion-dcgan"], __doc__)
    args = parser.parse_args()
    if not (args.bursts or args.iterations or args.images):
        parser.error("how long? Give --iterations N, --images N or --bursts")
    timing = args.time_only or args.bursts
    if not timing and args.out is None:
        parser.error("where do the samples go? Give --out FILE.npz, or --time-only")

    raw, _ = common.load_mnist_like(common.data_folder(args, parser), "fashion-mnist")
    images = torch.from_numpy(raw.transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
    torch.manual_seed(args.seed)
    generator, discriminator = networks()
    half = None
    if args.half and not timing:

        def half() -> None:
            common.write_samples(
                args.out.with_stem(args.out.stem + "-half"), sample(generator, args.n, args.seed), None
            )

    warm_up = common.WARM_UP if timing and args.iterations else 0
    run = Run(args.iterations and args.iterations + warm_up, args.images, half, args.bursts, args.report)
    train(generator, discriminator, images, run)

    facts = {
        "program": "fashion-dcgan",
        "library": "torch, plain eager",
        "seed": args.seed,
        **run.summary(),
        "machine": common.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    if args.bursts:
        return
    print(json.dumps(facts))
    if not timing:
        common.write_samples(args.out, sample(generator, args.n, args.seed), None)
        args.out.with_suffix(".json").write_text(json.dumps({**facts, "curves": run.loss_curves()}) + "\n")
        print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
