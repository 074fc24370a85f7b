r"""Fine-tune a pretrained base, or fresh weights, on one shop, and measure it on the test split.

    mmm4rec prepare interactions.csv --output data/shop/sequences
    mmm4rec encode items.jsonl --sequences data/shop/sequences --output data/shop/catalog

As published, with item biases, from a base that `pretrain.py` made or that has a name on the Hub:

    python examples/finetune.py --config configs/finetune_published.yaml start_from=base/model \
        sequences=data/shop/sequences catalog=data/shop/catalog output_dir=run

On two processes, and on every GPU of a machine (a device's batch times the number of devices is the batch):

    torchrun --standalone --nproc_per_node 2 examples/finetune.py --config configs/finetune_published.yaml \
        start_from=org/mmm4rec-base sequences=data/shop/sequences catalog=data/shop/catalog output_dir=run \
        training.per_device_train_batch_size=512
    accelerate launch --multi_gpu examples/finetune.py --config configs/finetune_published.yaml \
        start_from=org/mmm4rec-base sequences=data/shop/sequences catalog=data/shop/catalog output_dir=run \
        training.bf16=true

Without item biases: `configs/finetune_published_without_id.yaml`. With the layers as they are, so that projections of
features and item biases alone learn: `freeze_encoder=true`. From fresh weights: without `start_from`. A base of two
layers gives its first to a model of one (`model.num_hidden_layers=1`, in both recipes). Given again, a command goes on
where the run was stopped.
"""

import sys

from mmm4rec_hf.cli.finetune import print_finetuning
from mmm4rec_hf.cli.recipes import run_script
from mmm4rec_hf.training.finetuning import FinetuneRecipe, finetune

if __name__ == "__main__":
    sys.exit(run_script("finetune.py", __doc__, FinetuneRecipe, finetune, print_finetuning))
