"""A few steps of an original program, written down so that another program can repeat them number by number.

    python -m benchmarks.reference.keras_trace fashion-mlp --steps 10 --out trace.npz

Needs TensorFlow and nothing of this package; `benchmarks.parity` reads the file. What is random in the program is
recorded (noise, chosen images) or taken out (dropout; the label noise of `fashion-upsample` is its mean): the
layers, losses, optimisers and the order of updates stay as they are in `keras_programs`.

FILE.npz holds `G0.i` and `D0.i`, the weights before the first step in Keras' order, `z.i`, the noise in the order in
which it was drawn, `chosen.i`, the images of each step (rows of the training split), `loss.NAME`, one value a step,
`z` and `images`, noise and what the trained generator makes of it in inference mode, and `G1.i`, the weights at the
end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.reference import common, keras_programs
from benchmarks.reference.keras_programs import PROGRAMS, Job

FEW = 128  # images, for programs whose batches come from a shuffled pipeline: each batch is all of them
SHUFFLED = ("fashion-dcgan", "fashion-upsample")


class Recorder:
    """Stands in for the random sources of `keras_programs` and keeps what they gave."""

    def __init__(self, seed: int, labels: np.ndarray) -> None:
        self.random = np.random.default_rng(seed)
        self.labels = labels
        self.noise: list[np.ndarray] = []
        self.chosen: list[np.ndarray] = []

    def normal(self, n: int, size: int) -> np.ndarray:
        """Noise for the programs written in numpy."""
        self.noise.append(self.random.standard_normal((n, size), dtype=np.float32))
        return self.noise[-1]

    def graph_normal(self, shape: Any) -> tf.Tensor:
        """Noise for the programs that draw it inside a graph."""
        drawn = tf.numpy_function(lambda: self.normal(*shape), [], tf.float32)
        return tf.ensure_shape(drawn, shape)

    def randint(self, low: int, high: int, n: int) -> np.ndarray:
        """Chosen images; fakes are asked for with the labels of the images chosen last."""
        if high == 10:
            return self.labels[self.chosen[-1]]
        self.chosen.append(self.random.integers(low, high, n))
        return self.chosen[-1]


def trace(name: str, steps: int, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """The record of `steps` steps of one program; see the module's text."""
    program = PROGRAMS[name]
    images, labels = common.load_mnist_like(folder, program.data)
    if name in SHUFFLED:
        images, labels = images[:FEW], labels[:FEW]
    keras.utils.set_random_seed(seed)
    generator, discriminator = program.networks()
    for net in (generator, discriminator):
        for layer in net.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    found = {f"G0.{i}": w for i, w in enumerate(generator.get_weights())}
    found |= {f"D0.{i}": w for i, w in enumerate(discriminator.get_weights())}

    recorder = Recorder(seed, labels)
    keras_programs.noise = recorder.normal
    np.random.randint = recorder.randint
    tf.random.normal = recorder.graph_normal
    tf.random.uniform = lambda shape: tf.fill(shape, 0.5)
    run = common.Run(steps)
    program.train(Job(generator, discriminator, images, labels, run))

    chosen = recorder.chosen or [np.arange(FEW)] * steps
    found |= {f"z.{i}": z for i, z in enumerate(recorder.noise)}
    found |= {f"chosen.{i}": rows for i, rows in enumerate(chosen)}
    found |= {f"loss.{key}": np.array(values) for key, values in run.loss_curves().items()}
    z = recorder.random.standard_normal((20, recorder.noise[0].shape[1]), dtype=np.float32)
    inputs = [z, np.eye(10, dtype=np.float32)[np.arange(20) % 10]] if program.conditional else z
    drawn = generator.predict(inputs, verbose=0).reshape(20, 28, 28, 1)
    scaled = drawn if program.low < 0 else 2 * drawn - 1
    found |= {"z": z, "images": scaled}
    return found | {f"G1.{i}": w for i, w in enumerate(generator.get_weights())}


def main() -> None:
    names = [name for name, program in PROGRAMS.items() if program.data != "folder"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=names)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of the data (default: the ELEGAN_DATA variable)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    np.savez(args.out, **trace(args.name, args.steps, args.seed, common.data_folder(args, parser)))


if __name__ == "__main__":
    main()
