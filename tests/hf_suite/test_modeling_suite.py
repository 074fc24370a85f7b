"""transformers' `ModelTesterMixin` against the backbone and against the model with its catalogue."""

import unittest
from typing import Any

import torch
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_PRETRAINING_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.testing_utils import torch_device
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from mmm4rec_hf import MMM4RecConfig, MMM4RecForSequentialRecommendation, MMM4RecModel

# The suite tells base models (which have no loss) from others by transformers' own tables of names.
MODEL_MAPPING_NAMES["mmm4rec"] = "MMM4RecModel"
MODEL_FOR_PRETRAINING_MAPPING_NAMES["mmm4rec"] = "MMM4RecForSequentialRecommendation"


class MMM4RecModelTester:
    """A tiny configuration and a batch of histories of unequal length, padded on the right."""

    def __init__(self, parent: unittest.TestCase):
        self.parent = parent
        self.batch_size = 4
        self.seq_length = 7
        self.hidden_size = 16
        self.num_hidden_layers = 2
        self.num_items = 11
        self.text_feature_size = 12
        self.image_feature_size = 10
        self.is_training = True

    def get_config(self) -> MMM4RecConfig:
        return MMM4RecConfig(
            hidden_size=self.hidden_size,
            intermediate_size=24,
            num_hidden_layers=self.num_hidden_layers,
            max_sequence_length=self.seq_length,
            text_feature_size=self.text_feature_size,
            image_feature_size=self.image_feature_size,
            state_size=4,
            n_groups=2,
            head_dim=8,
            hidden_dropout=0.1,
            embedding_dropout=0.1,
            time_dropout=0.1,
            # What a head adds to a backbone's checkpoint whichever catalogue it gets: the suite looks for that.
            fusion="dynamic_shared",
            use_item_bias=True,
            num_items=self.num_items,
        )

    def histories(self) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([self.seq_length, 1, 5, 3], device=torch_device)
        mask = torch.arange(self.seq_length, device=torch_device) < lengths[:, None]
        gaps = ids_tensor([self.batch_size, self.seq_length], 500_000)
        return {"timestamps": (1_387_670_400 + gaps.cumsum(1)) * mask, "attention_mask": mask.long()}

    def features(self) -> dict[str, torch.Tensor]:
        shape = (self.batch_size, self.seq_length)
        return {
            "text_features": floats_tensor([*shape, self.text_feature_size]),
            "image_features": floats_tensor([*shape, self.image_feature_size]),
        }

    def items(self) -> dict[str, torch.Tensor]:
        rows = 1 + ids_tensor([self.batch_size, self.seq_length], self.num_items)
        return {"input_ids": rows}


class MMM4RecSuite(ModelTesterMixin):
    # A state space model has neither attention weights nor token embeddings to resize.
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = MMM4RecModelTester(self)

    def test_model_get_set_embeddings(self) -> None:
        # The suite's own asks for token embeddings; as in vision models, what goes in is projected features.
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), nn.Linear)
            replacement = nn.Linear(self.model_tester.text_feature_size, self.model_tester.hidden_size)
            model.set_input_embeddings(replacement)
            self.assertIs(model.get_input_embeddings(), replacement)
            self.assertIsNone(model.get_output_embeddings())


class MMM4RecModelTest(MMM4RecSuite, unittest.TestCase):
    all_model_classes = (MMM4RecModel,)

    def setUp(self) -> None:
        super().setUp()
        tester = self.model_tester
        tester.prepare_config_and_inputs_for_common = lambda: (
            tester.get_config(),
            {**tester.features(), **tester.histories()},
        )


class MMM4RecForSequentialRecommendationTest(MMM4RecSuite, unittest.TestCase):
    all_model_classes = (MMM4RecForSequentialRecommendation,)

    def setUp(self) -> None:
        super().setUp()
        tester = self.model_tester

        def prepare() -> tuple[MMM4RecConfig, dict[str, torch.Tensor]]:
            histories = tester.histories()
            items = tester.items()
            items["input_ids"] *= histories["attention_mask"]
            return tester.get_config(), {**items, **histories}

        tester.prepare_config_and_inputs_for_common = prepare

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            inputs["labels"] = 1 + torch.arange(self.model_tester.batch_size, device=torch_device)
        return inputs
