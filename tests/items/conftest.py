"""Tiny models with real tokenizers and image processors, saved as users find them, and pictures of every kind."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizerFast,
    PreTrainedModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTokenizer,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_randomly(model: PreTrainedModel, folder: Path) -> None:
    """Saves a model with weights large enough for inputs to make a difference."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of size 16 that states no pooling."""
    folder = tmp_path_factory.mktemp("text_model")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", ";", *LETTERS, *(f"##{c}" for c in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    config = BertConfig(**TINY, vocab_size=len(vocabulary), max_position_embeddings=64, hidden_dropout_prob=0.5)
    save_randomly(BertModel(config), folder)
    return folder


@pytest.fixture
def sentence_model(text_model: Path, tmp_path: Path) -> Path:
    """The same model as a sentence-transformers folder: mean pooling, length 1, at most 8 tokens."""
    folder = tmp_path / "sentence_model"
    folder.mkdir()
    for file in text_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    return folder


@pytest.fixture(scope="session")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT of size 16 with its pooler."""
    folder = tmp_path_factory.mktemp("image_model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    save_randomly(ViTModel(ViTConfig(**TINY, image_size=16, patch_size=8)), folder)
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with vectors of size 12."""
    folder = tmp_path_factory.mktemp("clip_model")
    special = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*LETTERS, *(f"{c}</w>" for c in LETTERS), ":</w>", ";</w>", *special]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=24
    ).save_pretrained(folder)
    size = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPImageProcessor(**size).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokens), "max_position_embeddings": 24, "bos_token_id": len(tokens) - 2}
    text |= {"eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    vision = {**TINY, "image_size": 16, "patch_size": 8}
    save_randomly(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)), folder)
    return folder


@pytest.fixture(scope="session")
def siglip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP with vectors of size 16, and the SentencePiece tokenizer of its kind."""
    folder = tmp_path_factory.mktemp("siglip_model")
    words = [" ".join(LETTERS[i : i + 5]) + f" title {c}{d}" for i in range(20) for c in LETTERS for d in LETTERS]
    trained = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=trained, vocab_size=64, hard_vocab_limit=False, **ids
    )
    (folder / "spiece.model").write_bytes(trained.getvalue())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=24)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    text = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_size": 16}
    vision = {**TINY, "image_size": 16, "patch_size": 8}
    save_randomly(SiglipModel(SiglipConfig(text_config=text, vision_config=vision)), folder)
    return folder


def png(picture: Image.Image, **options: object) -> bytes:
    """A picture as the bytes of a PNG file."""
    return encoded(picture, "PNG", **options)


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (20, 30)) -> Image.Image:
    """A picture of random colours, width x height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
