"""Encoders of tiny models with real tokenizers and image processors, against what the models themselves give."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, ViTForImageClassification

from mmm4rec_hf.items import BatchEncoder, ItemEncoder
from mmm4rec_hf.items.images import white_picture
from mmm4rec_hf.items.pooling import pool_tokens, sentence_pooling

from .conftest import noise

JOINT = ["clip_model", "siglip_model"]


@pytest.fixture(params=JOINT)
def joint_model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_a_joint_model_s_text_is_the_same_alone_and_in_any_batch(joint_model):
    encoder = ItemEncoder(joint_model)
    texts = ["a", "title b", "a " + "b c d " * 100, "zz", "title a b"]
    together, _ = encoder.encode_texts(texts, batch_size=3)
    for row, text in enumerate(texts):
        alone, _ = encoder.encode_texts([text])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)
    assert np.abs(together[0] - together[3]).max() > 1e-3


def test_a_joint_model_s_text_is_padded_to_its_full_length(joint_model):
    tokenizer, model = AutoTokenizer.from_pretrained(joint_model), AutoModel.from_pretrained(joint_model)
    tokens = tokenizer(["title a"], padding="max_length", max_length=24, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output
    features, _ = ItemEncoder(joint_model).encode_texts(["title a"])
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_a_joint_model_s_pictures_are_its_image_features(joint_model):
    pictures = [noise(0), noise(1, (64, 12)), noise(2, (3, 3))]
    processor, model = AutoImageProcessor.from_pretrained(joint_model), AutoModel.from_pretrained(joint_model)
    with torch.no_grad():
        expected = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
    encoder = ItemEncoder(joint_model)
    together, mask = encoder.encode_images(pictures, batch_size=2)
    np.testing.assert_allclose(together, expected.numpy(), atol=1e-5)
    assert mask.all()
    np.testing.assert_allclose(encoder.encode_images(pictures[1:2])[0][0], together[1], atol=1e-5)


def test_a_joint_model_brings_its_processors(joint_model):
    encoder = ItemEncoder(joint_model)
    assert type(encoder.tokenizer) is type(AutoTokenizer.from_pretrained(joint_model))
    assert type(encoder.image_processor) is type(AutoImageProcessor.from_pretrained(joint_model))
    assert set(encoder.info) == {"text", "image"}


def test_one_side_of_a_joint_model_is_enough(joint_model, text_model):
    mixed = ItemEncoder(text_encoder=text_model, image_encoder=joint_model)
    pictures = [noise(0)]
    expected = ItemEncoder(joint_model).encode_images(pictures)[0]
    np.testing.assert_array_equal(mixed.encode_images(pictures)[0], expected)
    assert mixed.encode_texts(["a"])[0].shape == (1, 16)


def test_an_image_model_gives_its_pooled_output(image_model):
    pictures = [noise(0), noise(1)]
    processor, model = AutoImageProcessor.from_pretrained(image_model), AutoModel.from_pretrained(image_model)
    with torch.no_grad():
        expected = model(**processor(images=pictures, return_tensors="pt")).pooler_output
    encoder = ItemEncoder(image_encoder=image_model)
    np.testing.assert_allclose(encoder.encode_images(pictures)[0], expected.numpy(), atol=1e-5)
    assert encoder.info["image"]["pooling"] == "pooler" and encoder.tokenizer is None


@pytest.mark.parametrize("model", ["image_model", "clip_model", "siglip_model"])
def test_a_picture_has_the_same_vector_alone_and_in_any_batch(request, model):
    encoder = ItemEncoder(image_encoder=request.getfixturevalue(model))
    pictures = [noise(0), noise(1, (200, 20)), noise(2, (2, 2)), noise(0).convert("L"), noise(3).convert("RGBA")]
    together, _ = encoder.encode_images(pictures, batch_size=3)
    for row, picture in enumerate(pictures):
        np.testing.assert_allclose(encoder.encode_images([picture])[0][0], together[row], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_a_classifier_without_a_pooler_gives_its_first_position_and_no_random_numbers(image_model, tmp_path):
    model = ViTForImageClassification.from_pretrained(image_model)
    model.save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(image_model)
    processor.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model.vit(**processor(images=[noise(0)], return_tensors="pt")).last_hidden_state[:, 0]
    encoder = ItemEncoder(image_encoder=tmp_path)
    np.testing.assert_allclose(encoder.encode_images([noise(0)])[0], expected.detach().numpy(), atol=1e-5)
    assert encoder.info["image"]["pooling"] == "cls"


def test_weights_that_a_checkpoint_lacks_are_said(text_model, tmp_path, caplog):
    for file in text_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    ItemEncoder(text_encoder=tmp_path)
    assert "16 weights are not in the checkpoint and stay random" in caplog.text


def test_missing_inputs_are_white_pictures_and_empty_texts_or_zeros(text_model, image_model):
    encoder = ItemEncoder(text_encoder=text_model, image_encoder=image_model)
    white, _ = encoder.encode_images([white_picture()])
    empty, _ = encoder.encode_texts([""])
    images, image_mask = encoder.encode_images([noise(0), None])
    texts, text_mask = encoder.encode_texts([None, "a"])
    np.testing.assert_allclose(images[1], white[0], atol=1e-6)
    np.testing.assert_allclose(texts[0], empty[0], atol=1e-6)
    assert image_mask.tolist() == [True, False] and text_mask.tolist() == [False, True]
    zeros = ItemEncoder(text_encoder=text_model, image_encoder=image_model, missing="zeros")
    assert not zeros.encode_images([noise(0), None])[0][1].any()
    assert not zeros.encode_texts([None, None])[0].any()
    assert zeros.encode_texts([None, None])[0].shape == (2, 16)


def test_what_is_left_to_the_model_is_zeros_marked_and_recorded(text_model, image_model):
    encoder = ItemEncoder(text_encoder=text_model, image_encoder=image_model, missing="learned")
    texts, text_mask = encoder.encode_texts(["a", None])
    images, image_mask = encoder.encode_images([None, noise(0)])
    assert texts[0].any() and not texts[1].any() and text_mask.tolist() == [True, False]
    assert images[1].any() and not images[0].any() and image_mask.tolist() == [False, True]
    assert encoder.info["text"]["missing"] == encoder.info["image"]["missing"] == "learned"


def test_mixed_precision_is_close_and_recorded(text_model):
    texts = ["abc", "b c d e f"]
    exact = ItemEncoder(text_encoder=text_model)
    mixed = ItemEncoder(text_encoder=text_model, dtype=torch.bfloat16)
    difference = np.abs(exact.encode_texts(texts)[0] - mixed.encode_texts(texts)[0])
    assert 0 < difference.max() < 0.2 and mixed.encode_texts(texts)[0].dtype == np.float32
    assert mixed.info["text"]["dtype"] == "bfloat16" and mixed.info != exact.info


def test_a_model_in_training_mode_encodes_without_dropout_and_stays_in_it(text_model):
    encoder = ItemEncoder(text_encoder=text_model)
    expected, _ = encoder.encode_texts(["abc"])
    encoder.text_encoder.model.train()
    encoder.text_encoder.model.pooler.eval()
    np.testing.assert_array_equal(encoder.encode_texts(["abc"])[0], expected)
    assert encoder.text_encoder.model.encoder.training and not encoder.text_encoder.model.pooler.training


def test_the_revision_tells_weights_apart(text_model, tmp_path):
    before = ItemEncoder(text_encoder=text_model).info["text"]["revision"]
    model = AutoModel.from_pretrained(text_model)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[7, 0] += 1
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(text_model).save_pretrained(tmp_path)
    assert before.startswith("sha256:") and ItemEncoder(text_encoder=tmp_path).info["text"]["revision"] != before


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[2.0, 3.0], [5.0, 6.0]]),
        ("cls", [[1, 2], [5, 6]]),
        ("max", [[3, 4], [5, 6]]),
        ("last", [[3, 4], [5, 6]]),
    ],
)
def test_pooling_looks_at_tokens_alone(pooling, expected):
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert pool_tokens(hidden, mask, pooling).tolist() == expected


def test_the_pooling_asked_for_outranks_the_folder_s(sentence_model):
    tokenizer, model = AutoTokenizer.from_pretrained(sentence_model), AutoModel.from_pretrained(sentence_model)
    with torch.no_grad():
        first = model(**tokenizer("abc", return_tensors="pt")).last_hidden_state[0, 0]
    features, _ = ItemEncoder(text_encoder=sentence_model, pooling="cls").encode_texts(["abc"])
    np.testing.assert_allclose(features[0], (first / first.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"modules.json": [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]},
            r"\['Dense'\].*callable",
        ),
        (
            {
                "modules.json": [{"path": "p", "type": "x.Pooling"}],
                "p/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            },
            "give pooling= one of mean, cls, max, last",
        ),
    ],
)
def test_a_folder_that_states_more_than_is_computed_is_refused(files, message):
    with pytest.raises(ValueError, match=message):
        sentence_pooling(files.get)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "joint model's name or text_encoder="),
        ({"model_name": "x", "text_encoder": len}, "either a joint model's name"),
        ({"text_encoder": len, "missing": "black"}, "one of white, zeros, learned, got 'black'"),
        ({"text_encoder": len, "text_fields": "title"}, "list of field names, got 'title'"),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ItemEncoder(**arguments)


def test_a_model_of_one_modality_is_no_joint_one(text_model):
    with pytest.raises(ValueError, match="is a bert model, not a joint one.*text_encoder="):
        ItemEncoder(text_model)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match="a model's name, a folder or a function, got int"):
        ItemEncoder(text_encoder=3)


@pytest.mark.parametrize("output", [np.zeros(2), np.zeros((3, 4)), [[1.0], [2.0, 3.0]]])
def test_a_function_must_return_a_row_an_input(output):
    with pytest.raises(ValueError, match=r"must be \[n, size\]|inhomogeneous"):
        ItemEncoder(text_encoder=lambda texts: output).encode_texts(["a", "b"])


def test_an_encoder_of_one_modality_says_what_it_lacks():
    class Lengths(BatchEncoder):
        info = {"encoder": "lengths", "revision": "1", "pooling": None}

        def __call__(self, batch: list[str]) -> np.ndarray:
            return np.array([[len(text)] for text in batch], dtype=np.float32)

    encoder = ItemEncoder(text_encoder=Lengths())
    assert encoder.encode_texts(["abc", None])[0].tolist() == [[3], [0]]
    with pytest.raises(ValueError, match="give ItemEncoder image_encoder="):
        encoder.encode_images([noise(0)])
