"""The objective of pretraining: user vectors against the targets of the batch, over features that come with it."""

import torch.distributed as dist
from torch import Tensor, nn

from mmm4rec_hf.modeling import MMM4RecForSequentialRecommendation
from mmm4rec_hf.modeling.loss_mmm4rec import in_batch_cross_entropy


class InBatchObjective(nn.Module):
    """
    The loss of a batch as a module, so that DistributedDataParallel and `torch.compile` take it.

    Args:
        recommender ([`MMM4RecForSequentialRecommendation`]): Holds the weights, and no items.
        mask_same_target (`bool`): Whether another row with the same target is no negative.
        gather (`bool`, *optional*, defaults to `True`): Whether the targets of all processes are negatives.
    """

    def __init__(
        self, recommender: MMM4RecForSequentialRecommendation, mask_same_target: bool, gather: bool = True
    ) -> None:
        super().__init__()
        self.recommender = recommender
        self.mask_same_target = mask_same_target
        self.gather = gather

    def forward(
        self,
        input_ids: Tensor,
        timestamps: Tensor,
        attention_mask: Tensor,
        targets: Tensor,
        item_keys: Tensor,
        text_features: Tensor,
        image_features: Tensor,
        text_is_missing: Tensor,
        image_is_missing: Tensor,
    ) -> Tensor:
        """
        The mean loss over this process's rows; the mean over processes, which have as many rows each, is that of the
        whole batch.

        Args: as [`PretrainingCollator`] makes them.
        """
        recommender = self.recommender
        backbone, items = recommender.model, recommender.items
        text, image = backbone.text_projection(text_features), backbone.image_projection(image_features)
        text, image = items.fill(text, image, text_is_missing, image_is_missing)
        users = backbone.encoder.user_embeds(input_ids, text, image, timestamps, attention_mask)
        return in_batch_cross_entropy(
            users,
            recommender.fused_item_embeds(text[targets], image[targets]),
            item_keys[targets],
            recommender.config.score_temperature,
            mask_same_target=self.mask_same_target,
            gather=self.gather and dist.is_available() and dist.is_initialized(),
        )
