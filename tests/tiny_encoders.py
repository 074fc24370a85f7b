"""A BERT and a ViT of a few thousand weights, in folders as real encoders have them."""

from collections.abc import Sequence
from pathlib import Path

from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTImageProcessor, ViTModel

_SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def save_tiny_encoders(text: Path, image: Path, words: Sequence[str]) -> None:
    """Saves a text encoder that knows these words, and an image encoder."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    text.mkdir(parents=True, exist_ok=True)
    (text / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(text / "vocab.txt"), model_max_length=16).save_pretrained(text)
    BertModel(BertConfig(**_SIZES, vocab_size=len(vocabulary), max_position_embeddings=16)).save_pretrained(text)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(image)
    ViTModel(ViTConfig(**_SIZES, image_size=16, patch_size=8)).save_pretrained(image)
