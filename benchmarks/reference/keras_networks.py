"""The networks of the seven tutorials, in Keras, layer by layer.

Each function returns a new generator and a new discriminator. Images are channels-last; the initialiser is
Keras' default everywhere (Glorot uniform, zero bias), and so are batch normalisation's epsilon (0.001) and,
where no momentum is said, its momentum (0.99).
"""

from __future__ import annotations

import math

import keras
from keras import layers

Networks = tuple[keras.Model, keras.Model]


def lrelu(slope: float) -> layers.Layer:
    """Leaky ReLU with this negative slope."""
    return layers.LeakyReLU(negative_slope=slope)


def fashion_upsample() -> Networks:
    """Nearest-neighbour upsampling and same-padded convolutions, against valid convolutions of stride 1."""
    generator = keras.Sequential(
        [
            keras.Input((128,)),
            layers.Dense(7 * 7 * 128),
            lrelu(0.2),
            layers.Reshape((7, 7, 128)),
            layers.UpSampling2D(),
            layers.Conv2D(128, 5, padding="same"),
            lrelu(0.2),
            layers.UpSampling2D(),
            layers.Conv2D(128, 5, padding="same"),
            lrelu(0.2),
            layers.Conv2D(128, 4, padding="same"),
            lrelu(0.2),
            layers.Conv2D(128, 4, padding="same"),
            lrelu(0.2),
            layers.Conv2D(1, 4, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5),
            lrelu(0.2),
            layers.Dropout(0.4),
            layers.Conv2D(64, 5),
            lrelu(0.2),
            layers.Dropout(0.4),
            layers.Conv2D(128, 5),
            lrelu(0.2),
            layers.Dropout(0.4),
            layers.Conv2D(256, 5),
            lrelu(0.2),
            layers.Dropout(0.4),
            layers.Flatten(),
            layers.Dropout(0.4),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )
    return generator, discriminator


def fashion_mlp() -> Networks:
    """Fully connected networks on 28x28x1 images."""
    generator = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(256),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.8),
            layers.Dense(512),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.8),
            layers.Dense(1024),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.8),
            layers.Dense(784, activation="tanh"),
            layers.Reshape((28, 28, 1)),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(512),
            lrelu(0.2),
            layers.Dense(256),
            lrelu(0.2),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )
    return generator, discriminator


def fashion_dcgan() -> Networks:
    """Transposed convolutions without biases; the discriminator's output is a logit."""
    generator = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(),
            lrelu(0.3),
            layers.Reshape((7, 7, 256)),
            layers.Conv2DTranspose(128, 5, strides=1, padding="same", use_bias=False),
            layers.BatchNormalization(),
            lrelu(0.3),
            layers.Conv2DTranspose(64, 5, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            lrelu(0.3),
            layers.Conv2DTranspose(1, 5, strides=2, padding="same", use_bias=False, activation="tanh"),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(64, 5, strides=2, padding="same"),
            lrelu(0.3),
            layers.Dropout(0.3),
            layers.Conv2D(128, 5, strides=2, padding="same"),
            lrelu(0.3),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ],
        name="discriminator",
    )
    return generator, discriminator


def digits_mlp() -> Networks:
    """Fully connected networks on flat images of 784 numbers."""
    generator = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(256),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.7),
            layers.Dense(512),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.7),
            layers.Dense(1024),
            lrelu(0.2),
            layers.BatchNormalization(momentum=0.7),
            layers.Dense(784, activation="tanh"),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(512),
            lrelu(0.2),
            layers.Dense(256),
            lrelu(0.2),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )
    return generator, discriminator


def _digits_generator() -> list[layers.Layer]:
    return [
        layers.Dense(7 * 7 * 128),
        layers.BatchNormalization(),
        lrelu(0.2),
        layers.Reshape((7, 7, 128)),
        layers.Conv2DTranspose(128, 5, strides=2, padding="same"),
        layers.BatchNormalization(),
        lrelu(0.2),
        layers.Conv2DTranspose(64, 5, strides=2, padding="same"),
        layers.BatchNormalization(),
        lrelu(0.2),
        layers.Conv2D(1, 5, padding="same", activation="sigmoid"),
    ]


def _digits_discriminator() -> list[layers.Layer]:
    return [
        layers.Conv2D(64, 5, strides=2, padding="same"),
        lrelu(0.2),
        layers.Dropout(0.3),
        layers.Conv2D(128, 5, strides=2, padding="same"),
        lrelu(0.2),
        layers.Dropout(0.3),
        layers.Flatten(),
        layers.Dense(1, activation="sigmoid"),
    ]


def digits_dcgan() -> Networks:
    """Transposed convolutions with biases, images in [0, 1]."""
    generator = keras.Sequential([keras.Input((100,)), *_digits_generator()], name="generator")
    discriminator = keras.Sequential([keras.Input((28, 28, 1)), *_digits_discriminator()], name="discriminator")
    return generator, discriminator


def digits_cgan() -> Networks:
    """As `digits_dcgan`, with the one-hot label as ten more noise numbers and ten constant image channels."""
    noise, image, label = keras.Input((100,)), keras.Input((28, 28, 1)), keras.Input((10,))
    x = layers.Concatenate()([noise, label])  # (N, 110)
    for layer in _digits_generator():
        x = layer(x)
    generator = keras.Model([noise, label], x, name="generator")

    planes = layers.UpSampling2D(28)(layers.Reshape((1, 1, 10))(label))  # (N, 28, 28, 10)
    x = layers.Concatenate()([image, planes])  # (N, 28, 28, 11)
    for layer in _digits_discriminator():
        x = layer(x)
    discriminator = keras.Model([image, label], x, name="discriminator")
    return generator, discriminator


def faces_dcgan() -> Networks:
    """Transposed convolutions to 64x64x3."""
    generator = keras.Sequential(
        [
            keras.Input((128,)),
            layers.Dense(8 * 8 * 256),
            layers.BatchNormalization(),
            lrelu(0.2),
            layers.Reshape((8, 8, 256)),
            layers.Conv2DTranspose(128, 5, strides=2, padding="same"),
            layers.BatchNormalization(),
            lrelu(0.2),
            layers.Conv2DTranspose(64, 5, strides=2, padding="same"),
            layers.BatchNormalization(),
            lrelu(0.2),
            layers.Conv2DTranspose(3, 5, strides=2, padding="same", activation="tanh"),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(64, 5, strides=2, padding="same"),
            lrelu(0.2),
            layers.Dropout(0.3),
            layers.Conv2D(128, 5, strides=2, padding="same"),
            lrelu(0.2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="discriminator",
    )
    return generator, discriminator


def describe(model: keras.Model) -> dict:
    """Shapes (without the batch axis) and parameter counts of a network and of each of its layers."""

    def count(weights: list) -> int:
        return sum(math.prod(weight.shape) for weight in weights)

    rows = [
        {
            "layer": type(layer).__name__,
            "output": list(layer.output.shape[1:]),
            "parameters": layer.count_params(),
            "trainable": count(layer.trainable_weights),
        }
        for layer in model.layers
        if not isinstance(layer, layers.InputLayer)
    ]
    return {
        "inputs": [list(tensor.shape[1:]) for tensor in model.inputs],
        "parameters": model.count_params(),
        "trainable": count(model.trainable_weights),
        "layers": rows,
    }
