"""What a trainer saves and uploads: what recommends, with a card of the weights that it holds, and nothing private."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PROCESSOR_NAME, PushInProgress
from transformers.utils.hub import hf_api

from mmm4rec_hf.modeling.card_mmm4rec import CardFacts, CardResult, card_of_repository, model_card, write_card
from mmm4rec_hf.modeling.hub_mmm4rec import push_folder
from mmm4rec_hf.modeling.ids_mmm4rec import ITEM_IDS_NAME
from mmm4rec_hf.modeling.processing_mmm4rec import ITEMS_NAME, MMM4RecProcessor

from .cards import kept_checkpoint, kept_results

if TYPE_CHECKING:
    from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation

logger = logging.getLogger(__name__)

_OF_THE_MODEL = ("config.json", "model*.safetensors*", "*_mmm4rec.py", ITEM_IDS_NAME, ITEMS_NAME, PROCESSOR_NAME)


class _Untitled(NamedTuple):
    """Items of which the ids alone are known."""

    item_ids: list[str]

    @property
    def titles(self) -> list[None]:
        return [None] * len(self.item_ids)


class PublishingTrainer(Trainer):
    """
    transformers' Trainer, whose saved and pushed models recommend: with a processor, the items' ids and a card.

    Attributes:
        measured (`dict[str, CardResult]`): What was evaluated since the training ended, by split.
    """

    model: "MMM4RecForSequentialRecommendation"
    push_in_progress: Any
    measured: dict[str, CardResult]

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """
        Writes `output_dir/README.md`: what the model is, and the metrics of the weights it holds.

        Args:
            language (`str`, *optional*): Of the items' texts.
            license (`str`, *optional*): Of the model.
            tags (`str` or `list[str]`, *optional*): Tags more.
            finetuned_from (`str`, *optional*): What the training started from.
            dataset (`str` or `list[str]`, *optional*): What it was trained on.
            dataset_tags (`str` or `list[str]`, *optional*): Names of these data on the Hub.
            model_name, tasks, dataset_args: As transformers'; the card has no place for them.
        """
        if not self.is_world_process_zero():
            return
        facts = CardFacts(
            license=license,
            language=language,
            datasets=[*_as_list(dataset_tags), *_as_list(dataset)],
            base_model=finetuned_from,
            results=kept_results(self),
            checkpoint=kept_checkpoint(self),
            tags=_as_list(tags),
        )
        card = model_card(self.model.config, self.model.item_ids, facts)
        if self.hub_model_id is not None:
            card = type(card)(card_of_repository(str(card), self.hub_model_id))
        write_card(Path(str(self.args.output_dir)), card)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if isinstance(self.processing_class, MMM4RecProcessor):
            self._fit_processor(self.processing_class)
        super()._save(output_dir, state_dict)
        if self.args.should_save and self.processing_class is None and self.model.item_ids is not None:
            # What the pipeline reads histories with; a processor of the encoder, and titles, come with
            # processing_class.
            processor = MMM4RecProcessor()
            self._fit_processor(processor)
            processor.save_pretrained(output_dir or str(self.args.output_dir))

    def _fit_processor(self, processor: MMM4RecProcessor) -> None:
        """Gives a processor what it needs to read histories for the model that it is saved with."""
        length = self.model.config.max_sequence_length
        if processor is self.processing_class and processor.max_sequence_length != length:
            logger.info(
                "the processor's max_sequence_length is %d; it is set to the model's %d, with which it is saved",
                processor.max_sequence_length,
                length,
            )
        processor.max_sequence_length = length
        if not processor.item_ids and self.model.item_ids is not None:
            processor.set_items(_Untitled(self.model.item_ids))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Uploads what loads the model, as [`push_folder`] does: not `training_args.bin`, which holds the token of `args`
        and the paths of this machine, nor logs and checkpoints.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): First line of the commit.
            blocking (`bool`, *optional*, defaults to `True`): Whether to wait for the end of the upload.
            token (`str`, *optional*): By default that of `args`, or the one that `hf auth login` stored.
            revision (`str`, *optional*): The branch, by default `args.hub_revision` or `main`.
            private (`bool`, *optional*): Whether a new repository is private; by default as `args` say.
            kwargs: For the card, see [`~MMM4RecTrainer.create_model_card`].

        Returns:
            [`~huggingface_hub.CommitInfo`], a `Future` of it where `blocking=False`, and `None` in other processes
            than the first.

        Raises:
            ValueError: If the Hub refuses the upload.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        tags = [*_as_list(kwargs.pop("tags", None)), *_as_list(getattr(self.model, "model_tags", None))]
        self.create_model_card(tags=list(dict.fromkeys(tags)), **kwargs)
        self._finish_current_push()
        upload = self._upload(commit_message or "End of training", token, revision)
        return upload.result() if blocking else upload

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # transformers takes weights and configuration along, nothing that a model of another package needs, and
        # training_args.bin with the token.
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        is_pushing = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if is_pushing and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        output = str(self.args.output_dir)
        # Checkpoints are removed while the upload goes on.
        for pattern in _OF_THE_MODEL:
            for path in Path(checkpoint_folder).glob(pattern):
                shutil.copy(path, output)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(output)
        self.create_model_card()
        at = f"step {self.state.global_step}"
        if self.args.save_strategy != SaveStrategy.STEPS:
            at = f"epoch {int(self.state.epoch or 0)}"
        message = f"Training in progress, {at}"
        jobs: Any = [self._upload(message)]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            is_last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            jobs.append(
                hf_api().upload_folder(
                    repo_id=str(self.hub_model_id),
                    folder_path=checkpoint_folder,
                    path_in_repo="last-checkpoint" if is_last else Path(checkpoint_folder).name,
                    commit_message=f"{message}, checkpoint",
                    token=self.args.hub_token,
                    run_as_future=True,
                    ignore_patterns=[TRAINING_ARGS_NAME],
                    revision=self.args.hub_revision,
                )
            )
        if self.push_in_progress is not None and is_pushing:
            self.push_in_progress.jobs.extend(jobs)
        else:
            self.push_in_progress = PushInProgress(jobs)

    def _upload(self, commit_message: str, token: str | None = None, revision: str | None = None) -> Any:
        """A `Future` of the upload of `output_dir`, after those that go on."""
        return hf_api().run_as_future(
            push_folder,
            str(self.args.output_dir),
            str(self.hub_model_id),
            commit_message=commit_message,
            token=self.args.hub_token if token is None else token,
            revision=self.args.hub_revision if revision is None else revision,
        )


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
