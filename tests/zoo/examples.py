"""Models in the manner of the examples on keras.io, written small: own layers, steps and optimizers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tests.zoo.kinds import Kind, classes, classifier, values

L = keras.layers
registered = keras.saving.register_keras_serializable("zoo")
TOKENS = classes(12, 6)
PICTURES = values(16, 16, 3)
ROWS = values(8)


def adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.01)


# Image segmentation: separable convolutions, residuals, transposed convolutions back to the size of the picture.
def unet() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(4, 3, strides=2, padding="same")(inputs)))
    previous = x
    for filters in (6, 8):
        x = L.BatchNormalization()(L.SeparableConv2D(filters, 3, padding="same")(L.Activation("relu")(x)))
        x = L.MaxPooling2D(3, strides=2, padding="same")(x)
        previous = x = L.add([x, L.Conv2D(filters, 1, strides=2, padding="same")(previous)])
    for filters in (8, 6, 4):
        x = L.BatchNormalization()(L.Conv2DTranspose(filters, 3, padding="same")(L.Activation("relu")(x)))
        residual = L.Conv2D(filters, 1, padding="same")(L.UpSampling2D(2)(previous))
        previous = x = L.add([L.UpSampling2D(2)(x), residual])
    return keras.Model(inputs, L.Conv2D(3, 3, activation="softmax", padding="same")(x))


# Text classification: a transformer block and an embedding layer as layers of one's own.
@registered
class TransformerBlock(L.Layer):
    def __init__(self, width: int, heads: int, inner: int, rate: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.sizes = {"width": width, "heads": heads, "inner": inner, "rate": rate}
        self.att = L.MultiHeadAttention(heads, width // heads)
        self.ffn = keras.Sequential([L.Dense(inner, activation="relu"), L.Dense(width)])
        self.norms = [L.LayerNormalization(epsilon=1e-6), L.LayerNormalization(epsilon=1e-6)]
        self.dropouts = [L.Dropout(rate), L.Dropout(rate)]

    def build(self, shape: Any) -> None:
        self.att.build(shape, shape)
        self.ffn.build(shape)
        for norm in self.norms:
            norm.build(shape)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.norms[0](x + self.dropouts[0](self.att(x, x), training=training))
        return self.norms[1](x + self.dropouts[1](self.ffn(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


@registered
class TokenAndPositionEmbedding(L.Layer):
    def __init__(self, length: int, vocabulary: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.sizes = {"length": length, "vocabulary": vocabulary, "width": width}
        self.token_emb = L.Embedding(vocabulary, width)
        self.pos_emb = L.Embedding(length, width)

    def build(self, shape: Any) -> None:
        self.token_emb.build(shape)
        self.pos_emb.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.token_emb(x) + self.pos_emb(ops.arange(0, ops.shape(x)[-1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


def transformer() -> keras.Model:
    inputs = keras.Input((6,), dtype="int32")
    x = TransformerBlock(8, 2, 12)(TokenAndPositionEmbedding(6, 12, 8)(inputs))
    x = L.Dense(6, activation="relu")(L.Dropout(0.1)(L.GlobalAveragePooling1D()(x)))
    return keras.Model(inputs, L.Dense(2, activation="softmax")(x))


# Image classification with an MLP-Mixer: patches, positions, dense layers across patches and across channels.
@registered
class Patches(L.Layer):
    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def call(self, x: Any) -> Any:
        patches = ops.image.extract_patches(x, self.size)
        return ops.reshape(patches, (ops.shape(x)[0], (16 // self.size) ** 2, 3 * self.size**2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


@registered
class PositionEmbedding(L.Layer):
    def __init__(self, length: int, **options: Any) -> None:
        super().__init__(**options)
        self.length = length

    def build(self, shape: Any) -> None:
        self.position_embeddings = self.add_weight(shape=(self.length, shape[-1]), initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        return x + self.position_embeddings

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "length": self.length}


@registered
class MixerBlock(L.Layer):
    def __init__(self, patches: int, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.sizes = {"patches": patches, "width": width}
        self.mlp1 = keras.Sequential([L.Dense(patches, activation="gelu"), L.Dense(patches)])
        self.mlp2 = keras.Sequential([L.Dense(width, activation="gelu"), L.Dense(width)])
        self.norm = L.LayerNormalization(epsilon=1e-6)

    def build(self, shape: Any) -> None:
        self.norm.build(shape)
        self.mlp1.build((*shape[:-2], shape[-1], shape[-2]))
        self.mlp2.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        x = x + ops.transpose(self.mlp1(ops.transpose(self.norm(x), (0, 2, 1))), (0, 2, 1))
        return x + self.mlp2(self.norm(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


def mixer() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = PositionEmbedding(16)(L.Dense(8)(Patches(4)(inputs)))
    x = keras.Sequential([MixerBlock(16, 8), MixerBlock(16, 8)])(x)
    return keras.Model(inputs, L.Dense(4, activation="softmax")(L.GlobalAveragePooling1D()(x)))


# Sequence to sequence: the states of one LSTM begin another.
def seq2seq() -> keras.Model:
    source, target = keras.Input((None, 5)), keras.Input((None, 4))
    _, h, c = L.LSTM(6, return_state=True)(source)
    decoded, _, _ = L.LSTM(6, return_sequences=True, return_state=True)(target, initial_state=[h, c])
    return keras.Model([source, target], L.Dense(4, activation="softmax")(decoded))


# Prediction of the next frame of a film.
def convlstm() -> keras.Model:
    inputs = keras.Input((None, 8, 8, 1))
    x = L.BatchNormalization()(L.ConvLSTM2D(4, 5, padding="same", return_sequences=True, activation="relu")(inputs))
    x = L.ConvLSTM2D(4, 3, padding="same", return_sequences=True, activation="relu")(x)
    return keras.Model(inputs, L.Conv3D(1, 3, activation="sigmoid", padding="same")(x))


# Transfer: a base whose weights are frozen, called in inference mode, and a head.
def frozen_base() -> keras.Model:
    base = keras.Sequential(
        [keras.Input((16, 16, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Conv2D(6, 3, strides=2)],
        name="base",
    )
    base.trainable = False
    inputs = keras.Input((16, 16, 3))
    x = L.GlobalAveragePooling2D()(base(inputs, training=False))
    return keras.Model(inputs, L.Dense(4, activation="softmax", name="head")(L.Dropout(0.2)(x)))


# A ticket of a customer's: texts and tags in, a priority and a department out.
def multi_output() -> keras.Model:
    title, body, tags = (
        keras.Input((6,), dtype="int32", name="title"),
        keras.Input((6,), dtype="int32", name="body"),
        keras.Input((8,), name="tags"),
    )
    features = [L.LSTM(4)(L.Embedding(12, 5)(title)), L.LSTM(3)(L.Embedding(12, 5)(body)), tags]
    x = L.concatenate(features)
    outputs = {"priority": L.Dense(1, name="priority")(x), "department": L.Dense(4, name="department")(x)}
    return keras.Model({"title": title, "body": body, "tags": tags}, outputs)


# Siamese network with a triplet loss in a step of its own.
@registered
class Siamese(keras.Model):
    def __init__(self, embedding: keras.Model, margin: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.embedding, self.margin = embedding, margin
        self.loss_tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs: Any) -> Any:
        anchor, positive, negative = (self.embedding(part) for part in inputs)
        return ops.sum(ops.square(anchor - positive), -1), ops.sum(ops.square(anchor - negative), -1)

    def _loss(self, data: Any) -> Any:
        near, far = self(data[0] if len(data) == 1 else data)
        return ops.maximum(near - far + self.margin, 0.0)

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = self._loss(data)
        gradients = tape.gradient(loss, self.embedding.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.embedding.trainable_weights, strict=True))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker]

    def get_config(self) -> dict[str, Any]:
        return {"embedding": keras.saving.serialize_keras_object(self.embedding), "margin": self.margin}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Siamese:
        return cls(keras.saving.deserialize_keras_object(config.pop("embedding")), **config)


def encoder(name: str | None = None) -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(6, 3, strides=2, activation="relu")(L.Conv2D(4, 3, strides=2, activation="relu")(inputs))
    return keras.Model(inputs, L.Dense(8)(L.Flatten()(x)), name=name)


def siamese() -> keras.Model:
    model = Siamese(encoder())
    model([PICTURES[:1]] * 3)
    return model


# Variational autoencoder.
@registered
class Sampling(L.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, inputs: Any) -> Any:
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


class VAE(keras.Model):
    def __init__(self, encoder: keras.Model, decoder: keras.Model, **options: Any) -> None:
        super().__init__(**options)
        self.encoder, self.decoder = encoder, decoder
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.total_loss_tracker]

    def train_step(self, data: Any) -> Any:
        with tf.GradientTape() as tape:
            mean, log_variance, z = self.encoder(data)
            difference = ops.mean(ops.sum(ops.square(data - self.decoder(z)), axis=(1, 2, 3)))
            divergence = -0.5 * (1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            loss = difference + ops.mean(ops.sum(divergence, axis=1))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.total_loss_tracker.update_state(loss)
        return {"loss": self.total_loss_tracker.result()}


def vae() -> keras.Model:
    pictures = keras.Input((16, 16, 3))
    x = L.Conv2D(6, 3, activation="relu", strides=2, padding="same")(pictures)
    x = L.Dense(6, activation="relu")(L.Flatten()(x))
    mean, log_variance = L.Dense(2, name="z_mean")(x), L.Dense(2, name="z_log_var")(x)
    outputs = [mean, log_variance, Sampling()([mean, log_variance])]
    latent = keras.Input((2,))
    y = L.Reshape((8, 8, 2))(L.Dense(8 * 8 * 2, activation="relu")(latent))
    y = L.Conv2DTranspose(4, 3, activation="relu", strides=2, padding="same")(y)
    decoder = keras.Model(latent, L.Conv2DTranspose(3, 3, padding="same")(y), name="decoder")
    return VAE(keras.Model(pictures, outputs, name="encoder"), decoder)


# Generative adversarial network: two optimizers and no call.
class GAN(keras.Model):
    def __init__(self, discriminator: keras.Model, generator: keras.Model, latent: int) -> None:
        super().__init__()
        self.discriminator, self.generator, self.latent = discriminator, generator, latent
        self.seed_generator = keras.random.SeedGenerator(1337)

    def compile(self, d_optimizer: Any, g_optimizer: Any, loss_fn: Any) -> None:
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        self.d_loss_metric = keras.metrics.Mean(name="d_loss")
        self.g_loss_metric = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self) -> list[Any]:
        return [self.d_loss_metric, self.g_loss_metric]

    def train_step(self, real: Any) -> Any:
        count = ops.shape(real)[0]
        fake = self.generator(keras.random.normal((count, self.latent), seed=self.seed_generator))
        labels = ops.concatenate([ops.ones((count, 1)), ops.zeros((count, 1))], axis=0)
        with tf.GradientTape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(ops.concatenate([fake, real], axis=0)))
        gradients = tape.gradient(d_loss, self.discriminator.trainable_weights)
        self.d_optimizer.apply(gradients, self.discriminator.trainable_weights)
        noise = keras.random.normal((count, self.latent), seed=self.seed_generator)
        with tf.GradientTape() as tape:
            g_loss = self.loss_fn(ops.zeros((count, 1)), self.discriminator(self.generator(noise)))
        gradients = tape.gradient(g_loss, self.generator.trainable_weights)
        self.g_optimizer.apply(gradients, self.generator.trainable_weights)
        self.d_loss_metric.update_state(d_loss)
        self.g_loss_metric.update_state(g_loss)
        return {"d_loss": self.d_loss_metric.result(), "g_loss": self.g_loss_metric.result()}


def gan() -> keras.Model:
    discriminator = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.Conv2D(4, 3, strides=2, padding="same"),
            L.LeakyReLU(negative_slope=0.2),
            L.GlobalMaxPooling2D(),
            L.Dense(1),
        ],
        name="discriminator",
    )
    generator = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8 * 8 * 2),
            L.LeakyReLU(negative_slope=0.2),
            L.Reshape((8, 8, 2)),
            L.Conv2DTranspose(4, 4, strides=2, padding="same"),
            L.Conv2D(3, 5, padding="same", activation="sigmoid"),
        ],
        name="generator",
    )
    return GAN(discriminator, generator, 4)


# Contrastive pretraining: an encoder and a projection learn from pairs of views, a probe from labels.
class Contrastive(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.augmenter = keras.Sequential([keras.Input((16, 16, 3)), L.GaussianNoise(0.1), L.RandomFlip("horizontal")])
        self.encoder = encoder("encoder")
        self.projection_head = keras.Sequential([keras.Input((8,)), L.Dense(8, activation="relu"), L.Dense(8)])
        self.linear_probe = keras.Sequential([keras.Input((8,)), L.Dense(4)])

    def compile(self, contrastive_optimizer: Any, probe_optimizer: Any) -> None:
        super().compile()
        self.contrastive_optimizer, self.probe_optimizer = contrastive_optimizer, probe_optimizer
        self.probe_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.contrastive_tracker = keras.metrics.Mean(name="c_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self) -> list[Any]:
        return [self.contrastive_tracker, self.probe_accuracy]

    def call(self, x: Any) -> Any:
        return self.linear_probe(self.encoder(x))

    def contrastive_loss(self, one: Any, two: Any) -> Any:
        similar = ops.matmul(ops.normalize(one, axis=1), ops.transpose(ops.normalize(two, axis=1))) / 0.1
        labels = ops.arange(ops.shape(one)[0])
        both = [
            keras.losses.sparse_categorical_crossentropy(labels, s, from_logits=True)
            for s in (similar, ops.transpose(similar))
        ]
        return ops.mean(both[0] + both[1])

    def train_step(self, data: Any) -> Any:
        pictures, labels = data
        learned = self.encoder.trainable_weights + self.projection_head.trainable_weights
        with tf.GradientTape() as tape:
            views = [self.projection_head(self.encoder(self.augmenter(pictures, training=True))) for _ in range(2)]
            loss = self.contrastive_loss(*views)
        self.contrastive_optimizer.apply_gradients(zip(tape.gradient(loss, learned), learned, strict=True))
        self.contrastive_tracker.update_state(loss)
        features = self.encoder(self.augmenter(pictures, training=True), training=False)
        with tf.GradientTape() as tape:
            logits = self.linear_probe(features, training=True)
            probe_loss = self.probe_loss(labels, logits)
        weights = self.linear_probe.trainable_weights
        self.probe_optimizer.apply_gradients(zip(tape.gradient(probe_loss, weights), weights, strict=True))
        self.probe_accuracy.update_state(labels, logits)
        return {m.name: m.result() for m in self.metrics}


# Knowledge distillation: a small student learns from labels and from a larger teacher.
class Distiller(keras.Model):
    def __init__(self, student: keras.Model, teacher: keras.Model) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def compile(
        self, optimizer: Any, metrics: Any, student_loss: Any, distillation_loss: Any, **weights: float
    ) -> None:
        super().compile(optimizer=optimizer, metrics=metrics)
        self.student_loss, self.distillation_loss = student_loss, distillation_loss
        self.alpha, self.temperature = weights["alpha"], weights["temperature"]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        soft = [ops.softmax(logits / self.temperature, axis=1) for logits in (self.teacher(x, training=False), y_pred)]
        distilled = self.distillation_loss(*soft) * self.temperature**2
        return self.alpha * self.student_loss(y, y_pred) + (1 - self.alpha) * distilled

    def call(self, x: Any) -> Any:
        return self.student(x)

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self.student(x, training=True)
            loss = self.compute_loss(x, y, predicted)
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return self.compute_metrics(x, y, predicted)


def classify(filters: int, name: str) -> keras.Model:
    first, second = (L.Conv2D(n * filters, 3, strides=2, padding="same", activation="relu") for n in (1, 2))
    return keras.Sequential([keras.Input((16, 16, 3)), first, second, L.Flatten(), L.Dense(4)], name=name)


# Language model that generates text: a GRU whose state can be passed in and out.
@registered
class RNNLanguageModel(keras.Model):
    def __init__(self, vocabulary: int = 12, width: int = 6, units: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.sizes = {"vocabulary": vocabulary, "width": width, "units": units}
        self.embedding = L.Embedding(vocabulary, width)
        self.gru = L.GRU(units, return_sequences=True, return_state=True)
        self.dense = L.Dense(vocabulary)

    def build(self, shape: Any) -> None:
        self.embedding.build(shape)
        self.gru.build((*shape, self.sizes["width"]))
        self.dense.build((*shape, self.sizes["units"]))
        self.built = True

    def call(self, tokens: Any, states: Any = None, return_state: bool = False, training: bool = False) -> Any:
        x, states = self.gru(self.embedding(tokens), initial_state=states, training=training)
        x = self.dense(x)
        return (x, states) if return_state else x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.sizes}


def rnn_language_model() -> keras.Model:
    model = RNNLanguageModel()
    model.build((None, 6))
    return model


CATEGORICAL = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
KINDS = {
    "U-Net": Kind(unet, PICTURES, classes(3, 16, 16), classifier()),
    "transformer block": Kind(transformer, TOKENS, classes(2), classifier()),
    "mixer": Kind(mixer, PICTURES, classes(4), classifier()),
    "seq2seq": Kind(
        seq2seq,
        [values(6, 5), values(4, 4)],
        abs(values(4, 4)),
        lambda: {"optimizer": "rmsprop", "loss": "categorical_crossentropy"},
    ),
    "ConvLSTM": Kind(convlstm, abs(values(3, 8, 8, 1)) % 1, abs(values(3, 8, 8, 1)) % 1),
    "frozen base": Kind(frozen_base, PICTURES, classes(4), classifier()),
    "multi-output": Kind(
        multi_output,
        {"title": TOKENS, "body": TOKENS[:, ::-1], "tags": ROWS},
        {"priority": abs(values(1)) % 1, "department": classes(4)},
        lambda: {
            "optimizer": "rmsprop",
            "loss": {"priority": keras.losses.BinaryCrossentropy(from_logits=True), "department": CATEGORICAL},
            "loss_weights": {"priority": 1.0, "department": 0.2},
        },
    ),
    "siamese": Kind(siamese, [PICTURES, PICTURES + 0.1, PICTURES[::-1]], None, lambda: {"optimizer": adam()}),
    "VAE": Kind(vae, PICTURES, None, lambda: {"optimizer": adam()}, saved=lambda m: [m.encoder, m.decoder]),
    "GAN": Kind(
        gan,
        PICTURES,
        None,
        lambda: {
            "d_optimizer": adam(),
            "g_optimizer": adam(),
            "loss_fn": keras.losses.BinaryCrossentropy(from_logits=True),
        },
        saved=lambda m: [m.discriminator, m.generator],
    ),
    "contrastive": Kind(
        Contrastive,
        PICTURES,
        classes(4),
        lambda: {"contrastive_optimizer": adam(), "probe_optimizer": adam()},
        saved=lambda m: [m.encoder, m.projection_head, m.linear_probe],
    ),
    "distiller": Kind(
        lambda: Distiller(classify(2, "student"), classify(4, "teacher")),
        PICTURES,
        classes(4),
        lambda: {
            "optimizer": adam(),
            "metrics": [keras.metrics.SparseCategoricalAccuracy()],
            "student_loss": CATEGORICAL,
            "distillation_loss": keras.losses.KLDivergence(),
            "alpha": 0.1,
            "temperature": 10.0,
        },
        saved=lambda m: [m.student, m.teacher],
    ),
    "RNN language model": Kind(rnn_language_model, TOKENS, classes(12, 6), classifier(logits=True)),
}
