"""Importing mmm4rec_hf registers its classes whenever transformers comes to ask for them, in any order of imports."""

import subprocess
import sys

import pytest

CHECK = """
import mmm4rec_hf
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY

config = AutoConfig.for_model("mmm4rec", num_items=3)
assert type(config) is mmm4rec_hf.MMM4RecConfig
assert type(AutoModel.from_config(config)) is mmm4rec_hf.MMM4RecModel
assert type(AutoModelForPreTraining.from_config(config)) is mmm4rec_hf.MMM4RecForSequentialRecommendation
assert PROCESSOR_MAPPING[type(config)] is mmm4rec_hf.MMM4RecProcessor
task = PIPELINE_REGISTRY.check_task("sequential-recommendation")[1]
assert task["impl"] is mmm4rec_hf.SequentialRecommendationPipeline
assert not [finder for finder in __import__("sys").meta_path if "AskedFor" in type(finder).__name__]
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import mmm4rec_hf",
        "from transformers import AutoModel, pipeline",
        # Modules of transformers that load its Auto classes while they are themselves half loaded.
        "import mmm4rec_hf, transformers.modeling_layers",
        "import mmm4rec_hf, transformers.pipelines.base",
        "import mmm4rec_hf.modeling.pipeline_mmm4rec",
        "from mmm4rec_hf import MMM4RecForSequentialRecommendation",
        "import mmm4rec_hf, pickle; pickle.loads(b'cmmm4rec_hf.modeling.configuration_mmm4rec\\nMMM4RecConfig\\n.')",
    ],
)
def test_every_order_of_imports_finds_the_classes(first: str) -> None:
    run(first + CHECK)


def test_the_import_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, mmm4rec_hf; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run(code).strip() == "[]"


def test_a_failed_registration_is_tried_again_by_the_next_import() -> None:
    run(
        """
import sys, mmm4rec_hf
sys.modules["mmm4rec_hf.modeling.configuration_mmm4rec"] = None  # its import fails
try:
    from transformers import AutoConfig
    raise SystemExit("not reached")
except ImportError:
    del sys.modules["mmm4rec_hf.modeling.configuration_mmm4rec"]
"""
        + CHECK
    )
