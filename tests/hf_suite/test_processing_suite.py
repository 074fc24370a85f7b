"""transformers' `ProcessorTesterMixin` against the processor, with a tiny tokenizer and SigLIP's image processor."""

import unittest
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BaseImageProcessor, PreTrainedTokenizerFast, SiglipImageProcessorPil
from transformers_tests.test_processing_common import ProcessorTesterMixin

from mmm4rec_hf import MMM4RecProcessor

WORDS = ["lower", "newer", "upper", "older", "longer", "string"]


class MMM4RecProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = MMM4RecProcessor

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"max_sequence_length": 7, "history_padding_side": "left"}

    @classmethod
    def _setup_tokenizer(cls) -> PreTrainedTokenizerFast:
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        vocabulary = {word: row for row, word in enumerate([*specials, *WORDS])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="[PAD]",
            unk_token="[UNK]",
            cls_token="[CLS]",
            sep_token="[SEP]",
            model_max_length=64,
        )

    @classmethod
    def _setup_image_processor(cls) -> BaseImageProcessor:
        return SiglipImageProcessorPil(size={"height": 8, "width": 8})
