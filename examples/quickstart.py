r"""A log and its items to a model that recommends, by the Python interface from end to end.

    python examples/quickstart.py interactions.csv items.jsonl --output run

On two processes, and on every GPU of a machine; a device's batch times their number is the batch:

    torchrun --standalone --nproc_per_node 2 examples/quickstart.py interactions.csv items.jsonl --output run
    accelerate launch --multi_gpu examples/quickstart.py interactions.csv items.jsonl --output run

The log has a user, an item and a time a row; items are JSON lines with an id, texts and, where there is one, the path
of a picture. Two encoders come from Python packages; `--encoder google/siglip-base-patch16-224` names one of the Hub.
`OUTPUT/model` is what `mmm4rec recommend`, `serve` and `push` take.
"""

import argparse
import sys
from pathlib import Path

import torch
from transformers import TrainingArguments, pipeline, set_seed

from mmm4rec_hf import (
    ItemCatalog,
    MMM4RecConfig,
    MMM4RecForSequentialRecommendation,
    MMM4RecProcessor,
    MMM4RecTrainer,
    load_interactions,
    prepare_sequences,
)
from mmm4rec_hf.cli.output import hide_bars_without_terminal
from mmm4rec_hf.cli.running import run_command
from mmm4rec_hf.packaged_encoders import IMAGE_FROM_PACKAGE, TEXT_FROM_PACKAGE, load_item_encoder
from mmm4rec_hf.processes import process_state
from mmm4rec_hf.training.saving import save_recommender


def main(args: argparse.Namespace) -> None:
    """Prepares, encodes, trains, measures, saves and recommends."""
    state = process_state()
    sequences = prepare_sequences(load_interactions(args.log), k_core=args.k_core)
    catalog = ItemCatalog.from_items(args.items).select(sequences.item_ids)
    names = (args.encoder, None, None) if args.encoder else (None, TEXT_FROM_PACKAGE, IMAGE_FROM_PACKAGE)
    encoder = load_item_encoder(*names)
    catalog = catalog.encode(encoder, args.output / "features")

    set_seed(0)
    text, image = catalog.text_features, catalog.image_features
    config = MMM4RecConfig(
        text_feature_size=text.shape[1], image_feature_size=image.shape[1], hidden_size=args.hidden_size,
        intermediate_size=args.hidden_size, head_dim=16, state_size=16, use_item_bias=True,
        use_cooccurrence=True,
    )  # fmt: skip
    model = MMM4RecForSequentialRecommendation(config)
    model.set_items(catalog)
    arguments = TrainingArguments(
        str(args.output / "training"), num_train_epochs=args.epochs, per_device_train_batch_size=256,
        per_device_eval_batch_size=256, learning_rate=2e-3, eval_strategy="epoch", save_strategy="epoch",
        save_total_limit=1, load_best_model_at_end=True, metric_for_best_model="ndcg@10", report_to="none",
        disable_tqdm=not sys.stderr.isatty(), dataloader_pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    trainer = MMM4RecTrainer(model, arguments, train_dataset=sequences["train"], eval_dataset=sequences["validation"])
    trainer.train()
    metrics = trainer.evaluate(sequences["test"])
    if not state.is_main_process:
        return

    print(f"Test split: HR@10 {metrics['eval_hr@10']:.4f}, NDCG@10 {metrics['eval_ndcg@10']:.4f}")
    processor = MMM4RecProcessor(image_processor=encoder.image_processor, tokenizer=encoder.tokenizer)
    save_recommender(model, processor, catalog, args.output / "model")
    recommend = pipeline("sequential-recommendation", model=str(args.output / "model"))
    row = sequences["test"][0]
    history = {
        "items": [sequences.item_ids[index - 1] for index in row["input_ids"]],
        "timestamps": row["timestamps"].tolist(),
    }
    print(f"For user {sequences.user_ids_of('test')[0]}:")
    for item in recommend(history, top_k=5):
        parts = f"{item['score']:6.2f} = {item['text_score']:5.2f} + {item['image_score']:5.2f}"
        parts += f" + {item['cooccurrence_score']:5.2f}"
        print(f"  {parts}  {item['title'] or item['item_id']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", help="who used what when, of any format that load_interactions reads")
    parser.add_argument("items", help="the items' file")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--encoder", help="a model of both texts and pictures")
    parser.add_argument("--k-core", type=int, default=5, help="least events of a user and of an item")
    parser.add_argument("--hidden-size", type=int, default=64, help="width of the model")
    parser.add_argument("--epochs", type=float, default=5, help="epochs to train")
    arguments = parser.parse_args()
    hide_bars_without_terminal()
    sys.exit(run_command("quickstart.py", lambda: main(arguments)))
