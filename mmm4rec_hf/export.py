"""The user encoder without Python: as a program of `torch.export`, and as ONNX for onnxruntime."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .outputs import replace_file

if TYPE_CHECKING:
    from .modeling import MMM4RecForSequentialRecommendation, MMM4RecModel

INPUT_NAMES = ("text_features", "image_features", "timestamps", "attention_mask")
OUTPUT_NAME = "user_embeds"


class UserEncoder(nn.Module):
    """
    Histories to user vectors and nothing else. Times are an input of every encoder, also of one that reads none.

    Args:
        model ([`MMM4RecModel`]): The backbone.
    """

    def __init__(self, model: "MMM4RecModel") -> None:
        super().__init__()
        self.model = model

    def forward(
        self, text_features: Tensor, image_features: Tensor, timestamps: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """As [`MMM4RecModel.forward`], to `(b, H)`."""
        return self.model(text_features, image_features, timestamps, attention_mask).user_embeds


def export_user_encoder(
    model: "MMM4RecModel | MMM4RecForSequentialRecommendation",
) -> torch.export.ExportedProgram:
    """
    Exports the user encoder by `torch.export`; `torch.export.save` writes it.

    Args:
        model ([`MMM4RecModel`] or [`MMM4RecForSequentialRecommendation`]): Its backbone is exported, where it is.

    Returns:
        `torch.export.ExportedProgram`: Takes `text_features` `(b, l, text_feature_size)`, `image_features`
            `(b, l, image_feature_size)`, `timestamps` `(b, l)` and `attention_mask` `(b, l)`, both int64, for any b,
            with l the model's `max_sequence_length`; gives `user_embeds` `(b, H)`.
    """
    backbone, example = _backbone(model), _example(model)
    was_training = backbone.training
    backbone.eval()
    try:
        batch = torch.export.Dim("batch")
        shapes = {name: {0: batch} for name in INPUT_NAMES}
        with torch.no_grad():
            return torch.export.export(UserEncoder(backbone), example, dynamic_shapes=shapes)
    finally:
        backbone.train(was_training)


def export_onnx(
    model: "MMM4RecModel | MMM4RecForSequentialRecommendation", path: str | os.PathLike[str], opset: int = 18
) -> None:
    """
    Writes the user encoder as one ONNX file, inputs and output as of [`export_user_encoder`].

    Args:
        model ([`MMM4RecModel`] or [`MMM4RecForSequentialRecommendation`]): Its backbone is exported.
        path (`str` or `os.PathLike`): The `.onnx` file.
        opset (`int`, *optional*, defaults to 18): Version of ONNX's operators.

    Raises:
        ImportError: Without onnx and onnxscript.
    """
    try:
        import onnx  # noqa: F401  # torch's own error names one package after the other
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("an export to ONNX needs its packages: pip install 'mmm4rec-hf[onnx]'") from error
    program = torch.onnx.export(
        export_user_encoder(model),
        input_names=list(INPUT_NAMES),
        output_names=[OUTPUT_NAME],
        opset_version=opset,
        dynamo=True,
        # onnxscript's rewriting takes the norms' epsilon of 1e-12 for a zero; onnxruntime optimises by itself.
        optimize=False,
        verbose=False,
    )
    assert program is not None  # with dynamo=True and no file's name
    with replace_file(Path(path)) as partial:
        program.save(str(partial), external_data=False)


def _backbone(model: "MMM4RecModel | MMM4RecForSequentialRecommendation") -> "MMM4RecModel":
    from .modeling import MMM4RecForSequentialRecommendation

    return model.model if isinstance(model, MMM4RecForSequentialRecommendation) else model


def _example(model: "MMM4RecModel | MMM4RecForSequentialRecommendation") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three histories: a size of 1 or 2 is taken for the constant that stands elsewhere in the model."""
    config, device = model.config, model.device
    length = config.max_sequence_length
    return (
        torch.zeros(3, length, config.text_feature_size, device=device),
        torch.zeros(3, length, config.image_feature_size, device=device),
        torch.arange(length, device=device).repeat(3, 1),
        torch.ones(3, length, dtype=torch.long, device=device),
    )
