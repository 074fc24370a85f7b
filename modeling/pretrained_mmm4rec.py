"""What both models are as transformers' models: loading, saving, uploading, and weights at the start."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from .card_mmm4rec import CARD_NAME, CardFacts, model_card, write_card
from .configuration_mmm4rec import MMM4RecConfig
from .cooccurrence_mmm4rec import MMM4RecCooccurrence
from .encoder_mmm4rec import MMM4RecRMSNorm, MMM4RecStateSpace
from .hub_mmm4rec import UPLOAD_OPTIONS, push_folder
from .items_mmm4rec import MMM4RecItems
from .time_mmm4rec import MMM4RecTimeLinear, MMM4RecTimeNorm

_ALIGNMENT = 64  # bytes, as torch allocates


class MMM4RecPreTrainedModel(PreTrainedModel):
    """Initialisation and loading, as every transformers model."""

    config_class = MMM4RecConfig
    config: MMM4RecConfig
    base_model_prefix = "model"
    input_modalities = ["text", "image"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["MMM4RecLayer"]
    # Rates and times lose their meaning in half precision, so they stay float32 when a model is loaded in it.
    _keep_in_fp32_modules_strict = [
        "A_log", "dt_bias", "D", "time_norm", "time_modulation", "time_gate", "cooccurrence",
    ]  # fmt: skip

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As every transformers model; a loaded model gives the bits of the saved one."""
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"the weights of {pretrained_model_name_or_path} have other shapes than its configuration says; the "
                "log names them. Load it with the options that it was trained with"
            ) from error
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # Weights mapped from a file start anywhere, and products of a few rows round by where their operands start.
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
                tensor.data = tensor.data.clone()
        return loaded

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """
        As every transformers model, and a model card where the folder has none.

        Args:
            save_directory (`str` or `os.PathLike`): The folder, made if it is absent.
            is_main_process (`bool`, *optional*, defaults to `True`): Whether this process writes the shared files.
            push_to_hub (`bool`, *optional*, defaults to `False`): Whether to upload the folder as well.
            kwargs: Passed on to [`~PreTrainedModel.save_pretrained`]; for the upload `repo_id`, by default the
                folder's name, and what [`push_folder`] takes.
        """
        upload = {name: kwargs.pop(name) for name in UPLOAD_OPTIONS if name in kwargs}
        repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            _remove_other_form(Path(save_directory), kwargs.get("variant"))
        if is_main_process and not (Path(save_directory) / CARD_NAME).exists():
            write_card(Path(save_directory), model_card(self.config, getattr(self, "item_ids", None)))
        if push_to_hub and is_main_process:
            push_folder(save_directory, repo_id, **upload)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        max_shard_size: int | str = "50GB",
        tags: list[str] | None = None,
        **options: Any,
    ) -> Any:
        """
        Uploads the model with its code and a card; a card that was edited on the Hub stays as it is.

        Args:
            repo_id (`str`): `organization/name`.
            max_shard_size (`int` or `str`, *optional*, defaults to `"50GB"`): Of one file of weights.
            tags (`list[str]`, *optional*): Tags more for a new card.
            options: `private`, `token`, `revision`, `create_pr`, `commit_message` and `commit_description`, as
                [`push_folder`] takes them.

        Returns:
            [`~huggingface_hub.CommitInfo`]

        Raises:
            ValueError: If the Hub refuses the upload.
        """
        with tempfile.TemporaryDirectory() as folder:
            # First, so that saving finds a card.
            facts = CardFacts(tags=[*(getattr(self, "model_tags", None) or ()), *(tags or ())])
            write_card(Path(folder), model_card(self._saved_config(), getattr(self, "item_ids", None), facts))
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            return push_folder(folder, repo_id, **options)

    def _saved_config(self) -> MMM4RecConfig:
        """The configuration as [`~MMM4RecPreTrainedModel.save_pretrained`] writes it."""
        return self.config

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        config = self.config
        if isinstance(module, nn.Linear):
            std = config.initializer_range
            if isinstance(module, MMM4RecTimeLinear) and config.time_initializer_range is not None:
                std = config.time_initializer_range
            init.normal_(module.weight, mean=0.0, std=std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d):
            bound = 1 / module.kernel_size[0] ** 0.5  # torch's default for depthwise convolutions
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.LayerNorm | MMM4RecTimeNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MMM4RecRMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, MMM4RecStateSpace):
            init.ones_(module.D)
            init.copy_(module.A_log, torch.empty_like(module.A_log).uniform_(1, 16).log())
            low, high = torch.tensor([config.time_step_min, config.time_step_max]).log().tolist()
            step = torch.empty_like(module.dt_bias).uniform_(low, high).exp().clamp_min(config.time_step_floor)
            init.copy_(module.dt_bias, step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        elif isinstance(module, MMM4RecCooccurrence):
            init.ones_(module.weight)
            init.zeros_(module.log_scale)
            for tensor in module.buffers():
                init.zeros_(tensor)
        elif isinstance(module, MMM4RecItems):
            # Features are zero, and every item ties, until a catalogue is set.
            for tensor in (*module.parameters(), *module.buffers()):
                init.zeros_(tensor)
            for vector in (module.missing_text, module.missing_image):
                if vector is not None:
                    # A vector of zeros could not be normalised, and would never learn.
                    init.normal_(vector, mean=0.0, std=config.initializer_range)


def _remove_other_form(folder: Path, variant: str | None) -> None:
    """
    Removes the one file of weights of an earlier save beside shards, or the index of its shards beside one file.

    transformers removes earlier shards alone, and loads one file where there is one, whatever is newer.
    """
    named = "" if variant is None else f".{variant}"
    is_in_shards = any(folder.glob(f"model{named}-?????-of-?????.safetensors"))
    other = f"model{named}.safetensors" if is_in_shards else f"model.safetensors.index{named}.json"
    (folder / other).unlink(missing_ok=True)


__all__ = ["MMM4RecPreTrainedModel"]
