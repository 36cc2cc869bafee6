"""Train the small classifiers whose features the metrics use, and write them with their cards.

    python scripts/train_features.py fashion    # src/elegan/metrics/weights/fashion.safetensors (shipped)
    python scripts/train_features.py digits     # src/elegan/metrics/weights/digits.safetensors  (shipped)
    python scripts/train_features.py tuning     # .../weights/fashion-tuning.safetensors, for model search

Training sees the train split without its last 5,000 images; those are the validation split that settings are
chosen by. The test split is scored once, after training, for the card. Load any of them with
`elegan.metrics.load_features("fashion")` or `load_features("fashion-tuning")`.

No label smoothing and no mixing of images: both pull the features of a class into one tight cluster, and a
distance in such features no longer sees variety inside a class.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import hashlib
import json
import platform
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from elegan.data import Dataset, open_data
from elegan.metrics.features import build

ROOT = Path(__file__).resolve().parent.parent
VALIDATION = 5_000

#        name       data             architecture  seed  epochs  flip   file
JOBS = {
    "fashion": (
        "fashion-mnist",
        "residual",
        7_041,
        12,
        True,
        "src/elegan/metrics/weights/fashion.safetensors",
    ),
    "digits": ("mnist", "residual", 7_042, 8, False, "src/elegan/metrics/weights/digits.safetensors"),
    "tuning": ("fashion-mnist", "plain", 1_963, 10, True, "src/elegan/metrics/weights/fashion-tuning.safetensors"),
}


def augment(images: torch.Tensor, flip: bool, generator: torch.Generator) -> torch.Tensor:
    """(N, 1, H, W): each image moved by up to two pixels in each direction, and mirrored half of the time."""
    n = len(images)
    windows = F.pad(images, (2, 2, 2, 2)).unfold(2, images.shape[2], 1).unfold(3, images.shape[3], 1)
    dy, dx = torch.randint(0, 5, (2, n), generator=generator)
    moved = windows[torch.arange(n), :, dy, dx]  # (N, 1, H, W)
    if flip:
        mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
        moved = torch.where(mirrored, moved.flip(3), moved)
    return moved


def accuracy(net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `labels` (N,) that the classifier gives to `images` (N, 1, H, W) in [0, 1], in float32."""
    net.eval()
    with torch.inference_mode():
        right = [(net(x)[1].argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)]
    net.train()
    return float(sum(right)) / len(labels)


def train(
    architecture: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: int,
    epochs: int,
    flip: bool,
    batch: int = 128,
) -> tuple[torch.nn.Module, float]:
    """The averaged classifier and its validation accuracy. `images` (N, 1, H, W) in [0, 1], `labels` (N,)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    classes = int(labels.max()) + 1
    net = build(architecture, classes).train()
    averaged = copy.deepcopy(net)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}],
        lr=0.1, momentum=0.9, nesterov=True,
    )  # fmt: skip
    fit, held = (images[:-VALIDATION], labels[:-VALIDATION]), (images[-VALIDATION:], labels[-VALIDATION:])
    per_epoch = len(fit[0]) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=epochs * per_epoch, pct_start=0.2)
    start = time.time()
    for epoch in range(epochs):
        order = torch.randperm(len(fit[0]), generator=generator)[: per_epoch * batch]
        for chosen in order.split(batch):
            x = augment(fit[0][chosen], flip, generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                _, logits = net(x)
            loss = F.cross_entropy(logits.float(), fit[1][chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():  # buffers too: the averaged weights need averaged batch statistics
                for mean, now in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
                    if mean.is_floating_point():  # not the batch counters
                        mean.lerp_(now, 0.005)
        score = accuracy(averaged, *held)
        seconds = time.time() - start
        print(f"epoch {epoch + 1}/{epochs}: loss {loss:.3f}, validation {score:.4f}, {seconds:.0f} s", flush=True)
    return averaged.eval(), score


def tensors(split: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """A data set's split as float images in [0, 1] (N, 1, H, W) and int64 labels (N,)."""
    assert split.labels is not None
    return torch.tensor(split.images).float().div_(255), torch.tensor(split.labels).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--data", help="folder of the data set, where open_data does not find it by name")
    parser.add_argument("--epochs", type=int, help="other than the recorded number, for a quick look")
    parser.add_argument("--threads", type=int, default=1, help="1 is reproducible, and fastest on a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, architecture, seed, epochs, flip, file = JOBS[args.job]
    epochs = args.epochs or epochs

    images, labels = tensors(open_data(args.data or data, split="train"))
    start = time.time()
    net, validation = train(architecture, images, labels, seed=seed, epochs=epochs, flip=flip)
    seconds = time.time() - start
    test = accuracy(net, *tensors(open_data(args.data or data, split="test")))
    state = {name: value.contiguous() for name, value in net.state_dict().items() if "num_batches" not in name}
    card = {
        "name": args.job,
        "data": data,
        "trained_on": f"train split without its last {VALIDATION} images ({len(images) - VALIDATION} images)",
        "chosen_by": f"validation: the last {VALIDATION} images of the train split",
        "test_accuracy": round(test, 4),
        "validation_accuracy": round(validation, 4),
        "architecture": architecture,
        "parameters": sum(p.numel() for p in net.parameters()),
        "features": net.dims,
        "classes": int(labels.max()) + 1,
        "image": [28, 28, 1],
        "seed": seed,
        "epochs": epochs,
        "augmentation": "shift up to 2 pixels" + (", mirror" if flip else ""),
        "seconds": round(seconds),
        "machine": f"{torch.get_num_threads()} CPU threads, {platform.machine()}, torch {torch.__version__}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": f"python scripts/train_features.py {args.job}" + (f" --epochs {epochs}" if args.epochs else ""),
    }
    path = ROOT / file
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"card": json.dumps(card, sort_keys=True)})
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
