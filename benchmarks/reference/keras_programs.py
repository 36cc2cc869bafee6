"""The tutorials' programs, in TensorFlow/Keras as a reader of the tutorial would write them.

    python -m benchmarks.reference.keras_programs fashion-mlp --iterations 5000 --data DATA --out mlp.npz
    python -m benchmarks.reference.keras_programs fashion-dcgan --images 360000 --data DATA --out dcgan.npz
    python -m benchmarks.reference.keras_programs fashion-dcgan --time-only --steps 50 --data DATA
    python -m benchmarks.reference.keras_programs --summary > benchmarks/reference/parameter_counts.json

DATA is a folder with `fashion-mnist/` and `mnist/` (IDX files, gzipped or not); for `faces-dcgan` it is a
folder of pictures or an .npz with `images`. Written are FILE.npz (`images` uint8 (N, H, W, C); for
`digits-cgan` also `labels` int64 (N,)), FILE.json (seconds per step, images seen, loss curves, machine,
versions) and FILE.weights.h5 (the generator). They need TensorFlow (benchmarks/requirements-tensorflow.txt)
and nothing of this package.

What the recipes leave open, and what was chosen here:

- Fakes for the discriminator's step are made in inference mode (the tutorials' `predict`) in every program
  but `fashion-dcgan`, where one batch of training-mode fakes serves both updates. The default is
  `predict_on_batch`: the same numbers at a fraction of the fixed cost; `--predict` asks for the tutorials'.
- `digits-*` and `faces-dcgan`: "D on real + fake" is one update on the real batch and as many fakes, put
  together; the loss is their mean. `fashion-mlp` has two updates, as its row says.
- Each generator update draws fresh noise. The conditional generator is asked for random labels.
- `digits-cgan`: the discriminator gets the label as ten constant channels beside the image.
- `faces-dcgan`: batch 128, as the other convolutional programs.
- Keras 3 freezes a network for everybody, not only for the models compiled while it was frozen, as Keras 2
  did. The programs with a stacked model therefore set `trainable` before each kind of update, or the
  discriminator would never learn.
- The pictures, plots and prints that the tutorials make while training are left out.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.reference import common, keras_networks
from benchmarks.reference.common import Run

EPOCHS = 1_000_000  # "until the run is over", for loops that count epochs


@dataclass(frozen=True)
class Job:
    """What a training function is given: untrained networks, data, and the run that it reports to."""

    generator: keras.Model
    discriminator: keras.Model
    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,) int64
    run: Run
    predict: bool = False  # make D's fakes with `predict`, not with `predict_on_batch`

    def fakes(self, inputs: Any) -> np.ndarray:
        """The generator's images for a batch of noise, in inference mode."""
        if self.predict:
            return self.generator.predict(inputs, verbose=0)
        return self.generator.predict_on_batch(inputs)


def noise(n: int, size: int) -> np.ndarray:
    """Standard normal noise (n, size), float32."""
    return np.random.normal(0, 1, (n, size)).astype(np.float32)


def adam() -> keras.Optimizer:
    """The optimiser of every program with a stacked model."""
    return keras.optimizers.Adam(2e-4, beta_1=0.5)


def stack(generator: keras.Model, discriminator: keras.Model) -> keras.Model:
    """The generator with the (frozen) discriminator on top, which the generator is trained through."""
    discriminator.trainable = False
    gan = keras.Sequential([generator, discriminator], name="gan")
    gan.compile(loss="binary_crossentropy", optimizer=adam())
    return gan


# --- fashion-upsample: a Model subclass with its own train_step, and fit


class UpsampleGAN(keras.Model):
    """Inverted, noisy labels (real 0, fake 1); each network is in inference mode in the other's step."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def compile(self, g_optimizer: keras.Optimizer, d_optimizer: keras.Optimizer) -> None:
        super().compile()
        self.g_optimizer, self.d_optimizer = g_optimizer, d_optimizer
        self.bce = keras.losses.BinaryCrossentropy()

    def train_step(self, real: tf.Tensor) -> dict[str, tf.Tensor]:
        fake = self.generator(tf.random.normal((128, 128)), training=False)
        with tf.GradientTape() as tape:
            p_real = self.discriminator(real, training=True)
            p_fake = self.discriminator(fake, training=True)
            targets = tf.concat(
                [
                    tf.zeros_like(p_real) + 0.15 * tf.random.uniform(tf.shape(p_real)),
                    tf.ones_like(p_fake) - 0.15 * tf.random.uniform(tf.shape(p_fake)),
                ],
                axis=0,
            )
            d_loss = self.bce(targets, tf.concat([p_real, p_fake], axis=0))
        weights = self.discriminator.trainable_variables
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))

        with tf.GradientTape() as tape:
            fake = self.generator(tf.random.normal((128, 128)), training=True)
            p_fake = self.discriminator(fake, training=False)
            g_loss = self.bce(tf.zeros_like(p_fake), p_fake)
        weights = self.generator.trainable_variables
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}


class Recorder(keras.callbacks.Callback):
    """Tells the run of each batch that `fit` has done, and `fit` of the run's end."""

    def __init__(self, run: Run, size: int, batch: int) -> None:
        super().__init__()
        self.run, self.size, self.batch = run, size, batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.run.record(min(self.batch, self.size - batch * self.batch), **(logs or {}))
        self.model.stop_training = not self.run.going


def train_fashion_upsample(job: Job) -> None:
    """Batch 128; images are scaled to [0, 1] by the data pipeline."""
    dataset = tf.data.Dataset.from_tensor_slices(job.images)
    dataset = dataset.map(lambda image: tf.cast(image, tf.float32) / 255)
    dataset = dataset.cache().shuffle(60_000).batch(128).prefetch(64)
    gan = UpsampleGAN(job.generator, job.discriminator)
    gan.compile(g_optimizer=keras.optimizers.Adam(1e-4), d_optimizer=keras.optimizers.Adam(1e-5))
    gan.fit(dataset, epochs=EPOCHS, verbose=0, callbacks=[Recorder(job.run, len(job.images), 128)])


# --- fashion-mlp: train_on_batch, two discriminator updates and one of the stacked model


def train_fashion_mlp(job: Job) -> None:
    """D on a real batch of 32, then on a fake one, then G once."""
    images, discriminator = job.images / np.float32(127.5) - 1, job.discriminator
    discriminator.compile(loss="binary_crossentropy", optimizer=adam())
    gan = stack(job.generator, discriminator)
    ones, zeros = np.ones((32, 1), np.float32), np.zeros((32, 1), np.float32)
    while job.run.going:
        real = images[np.random.randint(0, len(images), 32)]
        fake = job.fakes(noise(32, 100))
        discriminator.trainable = True
        d_real = discriminator.train_on_batch(real, ones)
        d_fake = discriminator.train_on_batch(fake, zeros)
        discriminator.trainable = False
        g_loss = gan.train_on_batch(noise(32, 100), ones)
        job.run.record(32, d_loss=0.5 * (d_real + d_fake), g_loss=g_loss)


# --- fashion-dcgan: a tf.function step with two gradient tapes


def train_fashion_dcgan(job: Job) -> None:
    """One D and one G update from the same fakes; epochs end with a smaller batch."""
    generator, discriminator = job.generator, job.discriminator
    images = job.images / np.float32(127.5) - 1
    dataset = tf.data.Dataset.from_tensor_slices(images).shuffle(60_000).batch(128)
    bce = keras.losses.BinaryCrossentropy(from_logits=True)
    g_optimizer, d_optimizer = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)

    @tf.function
    def train_step(real: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z = tf.random.normal((128, 100))
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            fake = generator(z, training=True)
            real_logits = discriminator(real, training=True)
            fake_logits = discriminator(fake, training=True)
            g_loss = bce(tf.ones_like(fake_logits), fake_logits)
            d_loss = bce(tf.ones_like(real_logits), real_logits) + bce(tf.zeros_like(fake_logits), fake_logits)
        g_weights, d_weights = generator.trainable_variables, discriminator.trainable_variables
        g_gradients, d_gradients = g_tape.gradient(g_loss, g_weights), d_tape.gradient(d_loss, d_weights)
        g_optimizer.apply_gradients(zip(g_gradients, g_weights, strict=True))
        d_optimizer.apply_gradients(zip(d_gradients, d_weights, strict=True))
        return d_loss, g_loss

    while job.run.going:
        for real in dataset:
            d_loss, g_loss = train_step(real)
            job.run.record(len(real), d_loss=d_loss, g_loss=g_loss)
            if not job.run.going:
                break


# --- digits-mlp, digits-dcgan, faces-dcgan: train_on_batch on real and fake together


def train_stacked(job: Job, images: np.ndarray, batch: int, g_updates: int) -> None:
    """D once on `batch` real images and as many fakes, then G `g_updates` times; `images` are scaled."""
    discriminator, z_size = job.discriminator, job.generator.input_shape[-1]
    discriminator.compile(loss="binary_crossentropy", optimizer=adam(), metrics=["accuracy"])
    gan = stack(job.generator, discriminator)
    ones = np.ones((batch, 1), np.float32)
    targets = np.concatenate([ones, np.zeros_like(ones)])
    while job.run.going:
        real = images[np.random.randint(0, len(images), batch)]
        fake = job.fakes(noise(batch, z_size))
        discriminator.trainable = True
        d_loss, d_accuracy = discriminator.train_on_batch(np.concatenate([real, fake]), targets)
        discriminator.trainable = False
        for _ in range(g_updates):
            g_loss = gan.train_on_batch(noise(batch, z_size), ones)
        job.run.record(batch, d_loss=d_loss, d_accuracy=d_accuracy, g_loss=g_loss)


def train_digits_mlp(job: Job) -> None:
    """Batch 32, G twice for every update of D; images in [-1, 1] and flat."""
    flat = (job.images / np.float32(127.5) - 1).reshape(len(job.images), 784)
    train_stacked(job, flat, batch=32, g_updates=2)


def train_digits_dcgan(job: Job) -> None:
    """Batch 128, images in [0, 1]."""
    train_stacked(job, job.images / np.float32(255), batch=128, g_updates=1)


def train_faces_dcgan(job: Job) -> None:
    """Batch 128, images in [-1, 1]."""
    train_stacked(job, job.images / np.float32(127.5) - 1, batch=128, g_updates=1)


# --- digits-cgan: the same with labels


def train_digits_cgan(job: Job) -> None:
    """As `digits-dcgan`; real images with their labels, fakes with the random ones they were asked for."""
    images, discriminator = job.images / np.float32(255), job.discriminator
    one_hot = np.eye(10, dtype=np.float32)
    discriminator.compile(loss="binary_crossentropy", optimizer=adam(), metrics=["accuracy"])
    discriminator.trainable = False
    z, y = keras.Input((100,)), keras.Input((10,))
    gan = keras.Model([z, y], discriminator([job.generator([z, y]), y]), name="gan")
    gan.compile(loss="binary_crossentropy", optimizer=adam())
    ones = np.ones((128, 1), np.float32)
    targets = np.concatenate([ones, np.zeros_like(ones)])
    while job.run.going:
        chosen = np.random.randint(0, len(images), 128)
        fake_labels = one_hot[np.random.randint(0, 10, 128)]
        fake = job.fakes([noise(128, 100), fake_labels])
        both = np.concatenate([images[chosen], fake])
        both_labels = np.concatenate([one_hot[job.labels[chosen]], fake_labels])
        discriminator.trainable = True
        d_loss, d_accuracy = discriminator.train_on_batch([both, both_labels], targets)
        discriminator.trainable = False
        asked = one_hot[np.random.randint(0, 10, 128)]
        g_loss = gan.train_on_batch([noise(128, 100), asked], ones)
        job.run.record(128, d_loss=d_loss, d_accuracy=d_accuracy, g_loss=g_loss)


# --- the command


@dataclass(frozen=True)
class Program:
    """One tutorial: its networks, its training, and what its images are like."""

    networks: Callable[[], keras_networks.Networks]
    train: Callable[[Job], None]
    data: str
    low: float  # images lie in [low, 1]
    conditional: bool = False


PROGRAMS = {
    "fashion-upsample": Program(keras_networks.fashion_upsample, train_fashion_upsample, "fashion-mnist", 0),
    "fashion-mlp": Program(keras_networks.fashion_mlp, train_fashion_mlp, "fashion-mnist", -1),
    "fashion-dcgan": Program(keras_networks.fashion_dcgan, train_fashion_dcgan, "fashion-mnist", -1),
    "digits-mlp": Program(keras_networks.digits_mlp, train_digits_mlp, "mnist", -1),
    "digits-dcgan": Program(keras_networks.digits_dcgan, train_digits_dcgan, "mnist", 0),
    "digits-cgan": Program(keras_networks.digits_cgan, train_digits_cgan, "mnist", 0, conditional=True),
    "faces-dcgan": Program(keras_networks.faces_dcgan, train_faces_dcgan, "folder", -1),
}


def load_pictures(path: Path, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """RGB images uint8 (N, size, size, 3) from an .npz with `images` or a folder; the labels are all zero."""
    if path.suffix == ".npz":
        images = np.load(path)["images"]
    else:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
        if not files:
            raise FileNotFoundError(f"no pictures in {path}")
        loaded = [keras.utils.load_img(file, target_size=(size, size), interpolation="bilinear") for file in files]
        images = np.stack([np.asarray(picture) for picture in loaded])
    if images.shape[1:] != (size, size, 3):
        raise ValueError(f"{path}: images are {images.shape[1:]}, not {(size, size, 3)}")
    return images, np.zeros(len(images), np.int64)


def sample(program: Program, generator: keras.Model, n: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """`n` images uint8 (n, H, W, C), from noise of this seed; conditional classes take turns."""
    z_size = generator.input_shape[0][-1] if program.conditional else generator.input_shape[-1]
    z = np.random.default_rng([seed, 1]).standard_normal((n, z_size), dtype=np.float32)
    labels = np.arange(n, dtype=np.int64) % 10 if program.conditional else None
    inputs = z if labels is None else [z, np.eye(10, dtype=np.float32)[labels]]
    images = generator.predict(inputs, batch_size=256, verbose=0)
    if images.ndim == 2:
        images = images.reshape(n, 28, 28, 1)
    return common.to_uint8(images, program.low), labels


def summary() -> dict:
    """Layer shapes and parameter counts of every network of every program."""
    counts = {}
    for name, program in PROGRAMS.items():
        generator, discriminator = program.networks()
        counts[name] = {
            "generator": keras_networks.describe(generator),
            "discriminator": keras_networks.describe(discriminator),
        }
    return counts


def as_json(counts: dict) -> str:
    """The summary as JSON with one line per layer."""
    lines = ["{"]
    for i, (name, networks) in enumerate(counts.items()):
        lines.append(f'  "{name}": {{')
        for j, (part, facts) in enumerate(networks.items()):
            head = {key: value for key, value in facts.items() if key != "layers"}
            lines.append(f'    "{part}": {json.dumps(head)[:-1]}, "layers": [')
            rows = [f"      {json.dumps(row)}" for row in facts["layers"]]
            lines.append(",\n".join(rows))
            lines.append("    ]}" + ("," if j + 1 < len(networks) else ""))
        lines.append("  }" + ("," if i + 1 < len(counts) else ""))
    lines.append("}")
    return "\n".join(lines)


def time_sampling(program: Program, n: int, seed: int) -> None:
    """Seconds of drawing `n` pictures with `predict`, as often as each line of standard input says."""
    generator, _ = program.networks()
    for line in sys.stdin:
        if not line.strip():
            return
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            sample(program, generator, n, seed)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


def main() -> None:
    """Trains one program and writes what came of it."""
    parser = common.arguments(list(PROGRAMS), __doc__)
    parser.add_argument("--predict", action="store_true", help="make D's fakes with predict, not predict_on_batch")
    parser.add_argument(
        "--sampling", action="store_true", help="time drawing -n samples, as often as stdin's lines say"
    )
    parser.add_argument("--summary", action="store_true", help="print the networks of all programs as JSON and stop")
    args = parser.parse_args()
    if args.summary:
        print(as_json(summary()))
        return
    if args.name is None:
        parser.error("which program? One of: " + ", ".join(PROGRAMS))
    if args.sampling:
        time_sampling(PROGRAMS[args.name], args.n, args.seed)
        return
    if not (args.bursts or args.iterations or args.images):
        parser.error("how long? Give --iterations N, --images N or --bursts")
    timing = args.time_only or args.bursts
    if not timing and args.out is None:
        parser.error("where do the samples go? Give --out FILE.npz, or --time-only")

    program = PROGRAMS[args.name]
    folder = common.data_folder(args, parser)
    images, labels = load_pictures(folder) if program.data == "folder" else common.load_mnist_like(folder, program.data)
    keras.utils.set_random_seed(args.seed)
    generator, discriminator = program.networks()
    half = None
    if args.half and not timing:

        def half() -> None:
            common.write_samples(
                args.out.with_stem(args.out.stem + "-half"), *sample(program, generator, args.n, args.seed)
            )

    warm_up = common.WARM_UP if timing and args.iterations else 0
    run = Run(args.iterations and args.iterations + warm_up, args.images, half, args.bursts, args.report)
    program.train(Job(generator, discriminator, images, labels, run, args.predict))

    facts = {
        "program": args.name,
        "library": "tensorflow",
        "seed": args.seed,
        "fakes": "predict" if args.predict else "predict_on_batch",
        **run.summary(),
        "machine": common.machine(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }
    if args.bursts:
        return
    print(json.dumps(facts))
    if not timing:
        common.write_samples(args.out, *sample(program, generator, args.n, args.seed))
        generator.save_weights(args.out.with_suffix(".weights.h5"))
        args.out.with_suffix(".json").write_text(json.dumps({**facts, "curves": run.loss_curves()}) + "\n")
        print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
