"""The user encoder without Python: as a program of `torch.export`, and as ONNX for onnxruntime."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .extras import how_to_install
from .modeling.packing_mmm4rec import events_first
from .outputs import replace_file

if TYPE_CHECKING:
    from .modeling import MMM4RecForSequentialRecommendation, MMM4RecModel

INPUT_NAMES = ("text_features", "image_features", "timestamps", "attention_mask")
EMBED_INPUT_NAMES = ("text_embeds", "image_embeds", "timestamps", "attention_mask")
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


class EmbedsUserEncoder(nn.Module):
    """
    As [`UserEncoder`], from what [`~MMM4RecForSequentialRecommendation.item_embeds`] gives for the items of histories:
    item biases and learned vectors of what is missing are in it.

    Args:
        model ([`MMM4RecModel`]): The backbone.
    """

    def __init__(self, model: "MMM4RecModel") -> None:
        super().__init__()
        self.encoder = model.encoder
        self.length = model.config.max_sequence_length

    def forward(self, text_embeds: Tensor, image_embeds: Tensor, timestamps: Tensor, attention_mask: Tensor) -> Tensor:
        """[b, l, H], [b, l, H], [b, l], [b, l] -> [b, H]"""
        index, mask = events_first(attention_mask, self.length)
        # A history without events is read from the first position, where the model has its padding item.
        read = (mask | (torch.arange(self.length, device=mask.device) == 0)).unsqueeze(-1)
        tables = []
        for embeds in (text_embeds, image_embeds):
            embeds = embeds.gather(1, index.unsqueeze(-1).expand(-1, -1, embeds.shape[-1]))
            tables.append(embeds.where(read, 0).to(self.encoder.text_norm.weight.dtype).flatten(0, 1))
        text, image = tables
        rows = torch.arange(text.shape[0], device=mask.device).view_as(index)
        return self.encoder.user_embeds(rows, text, image, timestamps.gather(1, index) * mask, mask)


def export_user_encoder(
    model: "MMM4RecModel | MMM4RecForSequentialRecommendation", inputs: str = "features"
) -> torch.export.ExportedProgram:
    """
    Exports the user encoder by `torch.export`; `torch.export.save` writes it.

    Args:
        model ([`MMM4RecModel`] or [`MMM4RecForSequentialRecommendation`]): Its backbone is exported, where it is.
        inputs (`"features"` or `"embeds"`, *optional*, defaults to `"features"`):
            What a history's items are told by: features of any items; or embeddings, as `model.item_embeds` gives
            them, which a model with item biases or `learned_missing` needs.

    Returns:
        `torch.export.ExportedProgram`: Takes `text_features` `(b, l, text_feature_size)` and `image_features`
            `(b, l, image_feature_size)`, or `text_embeds` and `image_embeds`, both `(b, l, H)`; then `timestamps`
            `(b, l)` and `attention_mask` `(b, l)`, both int64, padded on either side; for any b, with l the model's
            `max_sequence_length`; gives `user_embeds` `(b, H)`.

    Raises:
        ValueError: For other `inputs`, and for `"features"` of a model to which they do not tell all of an item.
    """
    if inputs not in ("features", "embeds"):
        raise ValueError(f"inputs must be 'features' or 'embeds', got {inputs!r}")
    if inputs == "features":
        _check_features_tell_all(model)
    backbone, example = _backbone(model), _example(model, inputs)
    encoder = UserEncoder(backbone) if inputs == "features" else EmbedsUserEncoder(backbone)
    was_training = backbone.training
    backbone.eval()
    try:
        batch = torch.export.Dim("batch")
        shapes = {name: {0: batch} for name in _names(inputs)}
        with torch.no_grad():
            return torch.export.export(encoder, example, dynamic_shapes=shapes)
    finally:
        backbone.train(was_training)


def export_onnx(
    model: "MMM4RecModel | MMM4RecForSequentialRecommendation",
    path: str | os.PathLike[str],
    opset: int = 18,
    inputs: str = "features",
) -> None:
    """
    Writes the user encoder as one ONNX file, inputs and output as of [`export_user_encoder`].

    Args:
        model ([`MMM4RecModel`] or [`MMM4RecForSequentialRecommendation`]): Its backbone is exported.
        path (`str` or `os.PathLike`): The `.onnx` file.
        opset (`int`, *optional*, defaults to 18): Version of ONNX's operators.
        inputs (`"features"` or `"embeds"`, *optional*, defaults to `"features"`):
            As of [`export_user_encoder`]; [`OnnxUserEncoder`] reads `"embeds"`.

    Raises:
        ImportError: Without onnx and onnxscript.
        ValueError: As [`export_user_encoder`], and for a model in bfloat16, which onnxruntime does not compute with.
    """
    if model.dtype == torch.bfloat16:
        raise ValueError("the model is in bfloat16, which onnxruntime does not compute with; export model.float()")
    try:
        import onnx  # noqa: F401  # torch's own error names one package after the other
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"an export to ONNX needs its packages: {how_to_install('onnx')}") from error
    program = torch.onnx.export(
        export_user_encoder(model, inputs),
        input_names=list(_names(inputs)),
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


class OnnxUserEncoder:
    """
    User vectors by onnxruntime, for a pipeline: one history takes it a third of the time that torch needs.

    ```python
    >>> export_onnx(recommend.model, "encoder.onnx", inputs="embeds")
    >>> recommend.use_encoder(OnnxUserEncoder("encoder.onnx"))
    ```

    Args:
        path (`str` or `os.PathLike`): What [`export_onnx`] wrote with `inputs="embeds"`.
        threads (`int`, *optional*, defaults to 1): Of one call. A single history is too little work for more.

    Raises:
        ImportError: Without onnxruntime.
        ValueError: If the file is not there, is no ONNX program, or one of another form.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"a program in ONNX needs onnxruntime: {how_to_install('onnx')}") from error
        self.path, self.threads = os.fspath(path), threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 1
        options.log_severity_level = 3  # it warns of each operator that it can't compute ahead of time
        try:
            self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its classes have no other in common
            raise ValueError(f"{path} cannot be read as ONNX: {' '.join(str(error).split())[:200]}") from error
        names = tuple(entry.name for entry in self.session.get_inputs())
        if names != EMBED_INPUT_NAMES:
            raise ValueError(
                f"{path} takes {', '.join(names)}; needed is a program of {', '.join(EMBED_INPUT_NAMES)}: "
                "export_onnx(model, path, inputs='embeds')"
            )
        self._size = tuple(self.session.get_inputs()[0].shape[1:])

    def __reduce__(self) -> Any:
        return OnnxUserEncoder, (self.path, self.threads)

    def __call__(
        self, text_embeds: Tensor, image_embeds: Tensor, timestamps: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """
        User vectors, on the device of the inputs.

        Args:
            text_embeds (`torch.Tensor` of shape `(b, l, H)`): Text embeddings of the items of each history.
            image_embeds (`torch.Tensor` of shape `(b, l, H)`): Their image embeddings.
            timestamps (`torch.LongTensor` of shape `(b, l)`): In unix seconds; any where the model reads no times.
            attention_mask (`torch.Tensor` of shape `(b, l)`): Non-zero where an event stands, padded on either side.

        Returns:
            `torch.Tensor` of shape `(b, H)`, float32.

        Raises:
            ValueError: For another l or H than the program's.
        """
        if tuple(text_embeds.shape[1:]) != self._size:
            raise ValueError(
                f"{self.path} takes {self._size[0]} events of size {self._size[1]}, got embeddings of shape "
                f"{tuple(text_embeds.shape)}: it was exported from another model"
            )
        values = (text_embeds.float(), image_embeds.float(), timestamps.long(), attention_mask.long())
        feed = {name: value.detach().cpu().numpy() for name, value in zip(EMBED_INPUT_NAMES, values, strict=True)}
        (users,) = self.session.run([OUTPUT_NAME], feed)
        return torch.from_numpy(users).to(text_embeds.device)


def _names(inputs: str) -> tuple[str, ...]:
    return INPUT_NAMES if inputs == "features" else EMBED_INPUT_NAMES


def _backbone(model: "MMM4RecModel | MMM4RecForSequentialRecommendation") -> "MMM4RecModel":
    from .modeling import MMM4RecForSequentialRecommendation

    return model.model if isinstance(model, MMM4RecForSequentialRecommendation) else model


def _check_features_tell_all(model: "MMM4RecModel | MMM4RecForSequentialRecommendation") -> None:
    from .modeling import MMM4RecForSequentialRecommendation

    if not isinstance(model, MMM4RecForSequentialRecommendation):
        return
    beyond = [name for name in ("use_item_bias", "learned_missing") if getattr(model.config, name)]
    if beyond:
        raise ValueError(
            f"the model has {' and '.join(beyond)}: its user vectors are not made of features alone; give "
            'inputs="embeds", or its backbone, model.model'
        )


def _example(
    model: "MMM4RecModel | MMM4RecForSequentialRecommendation", inputs: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three histories: a size of 1 or 2 is taken for the constant that stands elsewhere in the model."""
    config, device = model.config, model.device
    length = config.max_sequence_length
    sizes = (config.text_feature_size, config.image_feature_size)
    if inputs == "embeds":
        sizes = (config.hidden_size, config.hidden_size)
    return (
        torch.zeros(3, length, sizes[0], device=device),
        torch.zeros(3, length, sizes[1], device=device),
        torch.arange(length, device=device).repeat(3, 1),
        torch.ones(3, length, dtype=torch.long, device=device),
    )
