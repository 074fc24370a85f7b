r"""Pretrain a base model on several shops, with the other targets of a batch as negatives.

A shop is a folder of the sequences that `mmm4rec prepare` wrote and the catalogue that `mmm4rec encode` wrote, all by
one encoder:

    mmm4rec prepare interactions.csv --output data/movies_a/sequences
    mmm4rec encode items.jsonl --sequences data/movies_a/sequences --text-encoder minilm \
        --image-encoder efficientnet-lite0 --output data/movies_a/catalog

On one device, on two processes, on every GPU of a machine, and on two machines:

    python examples/pretrain.py --config configs/pretrain_movies_beauty.yaml data_dir=data output_dir=base
    torchrun --standalone --nproc_per_node 2 examples/pretrain.py --config configs/pretrain_movies_beauty.yaml \
        data_dir=data output_dir=base
    accelerate launch --multi_gpu examples/pretrain.py --config configs/pretrain_published.yaml data_dir=data \
        output_dir=base mixed_precision=bf16 compile=true
    accelerate launch --multi_gpu --num_machines 2 --num_processes 16 --machine_rank 0 --main_process_ip HOST \
        --main_process_port 29500 examples/pretrain.py --config configs/pretrain_published.yaml data_dir=data \
        output_dir=base

A log beyond memory is streamed: `mmm4rec prepare --shards 64` writes shards, and
`domains.0.shards=movies_a/sequences/shards` trains on them. Given again, a command goes on where the run was stopped.
`OUTPUT_DIR/model` is what `finetune.py` starts from.
"""

import sys

from mmm4rec_hf.cli.pretrain import print_pretraining
from mmm4rec_hf.cli.recipes import run_script
from mmm4rec_hf.training.pretraining import PretrainRecipe, pretrain

if __name__ == "__main__":
    sys.exit(run_script("pretrain.py", __doc__, PretrainRecipe, pretrain, print_pretraining))
