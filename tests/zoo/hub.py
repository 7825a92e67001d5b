"""Models of keras-hub, made from small configurations, without downloaded weights or tokenizers."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np

from tests.zoo.kinds import Kind, classes, classifier, values

M = keras_hub.models
VOCABULARY, LENGTH, WIDTH, MELS = 20, 6, 8, 4
TOKENS = classes(VOCABULARY, LENGTH)
PADDING = np.array([[1] * LENGTH] * 3 + [[1] * 4 + [0] * 2] * 2, "int32")
TEXT = {"token_ids": TOKENS, "padding_mask": PADDING}
PICTURES = values(16, 16, 3)
SMALL: dict[str, Any] = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "hidden_dim": WIDTH,
    "intermediate_dim": 12,
}
DEEPER = {**SMALL, "num_layers": 2}


def bert() -> keras.Model:
    return M.BertBackbone(num_heads=2, max_sequence_length=LENGTH, **SMALL)


@keras.saving.register_keras_serializable("zoo")
class T5LanguageModel(keras.Model):
    """The backbone with a language-model head that is tied to its table."""

    def __init__(self, backbone: keras.Model, **options: Any) -> None:
        hidden = backbone(backbone.input)["decoder_sequence_output"]
        super().__init__(backbone.input, backbone.token_embedding(hidden, reverse=True), **options)
        self.backbone = backbone

    def get_config(self) -> dict[str, Any]:
        return {"backbone": keras.saving.serialize_keras_object(self.backbone), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> T5LanguageModel:
        return cls(keras.saving.deserialize_keras_object(config.pop("backbone")), **config)


def vit() -> keras.Model:
    backbone = M.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=WIDTH, mlp_dim=12
    )
    return M.ViTImageClassifier(backbone, num_classes=4)


def resnet() -> keras.Model:
    backbone = M.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 128],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    return M.ResNetImageClassifier(backbone, num_classes=4)


def whisper() -> keras.Model:
    return M.WhisperBackbone(
        num_heads=2, num_mels=MELS, max_encoder_sequence_length=12, max_decoder_sequence_length=LENGTH, **SMALL
    )


GROUPED = {"num_query_heads": 2, "num_key_value_heads": 1}
POSITIONS = np.array([[1, 3]] * len(TOKENS), "int32")
HEARD = {"encoder_features": values(12, MELS), "decoder_token_ids": TOKENS, "decoder_padding_mask": PADDING}
LANGUAGE_MODEL = classifier(logits=True)

KINDS = {
    "BERT classifier": Kind(
        lambda: M.BertTextClassifier(bert(), num_classes=4),
        {**TEXT, "segment_ids": np.zeros_like(TOKENS)},
        classes(4),
        LANGUAGE_MODEL,
    ),
    "BERT masked LM": Kind(
        lambda: M.BertMaskedLM(bert()),
        {**TEXT, "segment_ids": np.zeros_like(TOKENS), "mask_positions": POSITIONS},
        classes(VOCABULARY, 2),
        LANGUAGE_MODEL,
    ),
    "GPT2": Kind(
        lambda: M.GPT2CausalLM(M.GPT2Backbone(num_heads=2, max_sequence_length=LENGTH, **DEEPER)),
        TEXT,
        classes(VOCABULARY, LENGTH),
        LANGUAGE_MODEL,
    ),
    "Llama": Kind(
        lambda: M.LlamaCausalLM(M.LlamaBackbone(**GROUPED, **DEEPER)), TEXT, classes(VOCABULARY, LENGTH), LANGUAGE_MODEL
    ),
    "Gemma": Kind(
        lambda: M.GemmaCausalLM(M.GemmaBackbone(head_dim=4, **GROUPED, **SMALL)),
        TEXT,
        classes(VOCABULARY, LENGTH),
        LANGUAGE_MODEL,
    ),
    "T5": Kind(
        lambda: T5LanguageModel(M.T5Backbone(num_heads=2, **SMALL)),
        {
            "encoder_token_ids": TOKENS,
            "encoder_padding_mask": PADDING,
            "decoder_token_ids": TOKENS[:, ::-1],
            "decoder_padding_mask": PADDING,
        },
        classes(VOCABULARY, LENGTH),
        LANGUAGE_MODEL,
    ),
    "ViT": Kind(vit, PICTURES, classes(4), LANGUAGE_MODEL),
    "ResNet": Kind(resnet, PICTURES, classes(4), LANGUAGE_MODEL),
    "Whisper": Kind(
        whisper,
        HEARD,
        {"encoder_sequence_output": values(6, WIDTH), "decoder_sequence_output": values(LENGTH, WIDTH)},
    ),
    "Mixtral": Kind(
        lambda: M.MixtralCausalLM(M.MixtralBackbone(num_experts=3, **GROUPED, **SMALL)),
        TEXT,
        classes(VOCABULARY, LENGTH),
        LANGUAGE_MODEL,
    ),
    "DeBERTa": Kind(
        lambda: M.DebertaV3TextClassifier(
            M.DebertaV3Backbone(num_heads=2, max_sequence_length=LENGTH, bucket_size=4, **SMALL), num_classes=4
        ),
        TEXT,
        classes(4),
        LANGUAGE_MODEL,
    ),
}
