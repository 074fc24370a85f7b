r"""Give a trained model items that it has never seen, and recommend them at once, without training.

    python examples/new_items.py run new_items.jsonl --output run-with-new --history 50 172

New items must be encoded as the others were: by the encoder that the catalogue records, which has a Hub name or comes
as a Python package. Where it lay in a folder, the folder is told:

    python examples/new_items.py run new_items.jsonl --output run-with-new --text-encoder minilm

Another encoder is refused: its features cannot be compared. Fields may be called as in the file that the catalogue was
made of. `OUTPUT` recommends like the model of `run`, from all the items.
"""

import argparse
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import pipeline

from mmm4rec_hf import ItemCatalog, MMM4RecForSequentialRecommendation, MMM4RecProcessor
from mmm4rec_hf.cli.output import hide_bars_without_terminal
from mmm4rec_hf.cli.running import run_command
from mmm4rec_hf.cli.wording import with_options
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.packaged_encoders import image_encoder, text_encoder
from mmm4rec_hf.saved_models import find_model
from mmm4rec_hf.training.record import layout_of_log
from mmm4rec_hf.training.saving import CATALOG_NAME, save_recommender


def main(args: argparse.Namespace) -> None:
    """Adds the items to a copy of the model, saves it and asks it."""
    named = find_model(args.model)
    folder = Path(named) if Path(named).is_dir() else Path(snapshot_download(named))
    if not (folder / CATALOG_NAME).is_dir():
        raise ValueError(
            f"{named} holds no catalogue, which new items need; mmm4rec finetune saves one with the model"
        )
    catalog = ItemCatalog.from_pretrained(folder / CATALOG_NAME)
    known = len(catalog)
    encoder = None
    if args.encoder or args.text_encoder or args.image_encoder:
        encoder = recorded_encoder(
            catalog.feature_info,
            model=args.encoder,
            text_encoder=text_encoder(args.text_encoder),
            image_encoder=image_encoder(args.image_encoder),
        )
    catalog.add_items(args.items, encoder=encoder, root=args.image_root, unreadable_pictures=args.unreadable_pictures)
    added = catalog.item_ids[known:]

    model = MMM4RecForSequentialRecommendation.from_pretrained(folder)
    model.set_items(catalog)
    processor = MMM4RecProcessor.from_pretrained(folder)
    # Also how the log is laid out, which `recommend --input` need not be told again.
    save_recommender(model, processor, catalog, args.output, layout=layout_of_log(folder))
    print(f"{len(added)} new items beside {known}; the model is in {args.output}")

    recommend = pipeline("sequential-recommendation", model=str(args.output))
    for item_id in added[:3]:
        near = ", ".join(item["title"] or item["item_id"] for item in recommend.similar_items(item_id, top_k=3))
        print(f"most like {item_id}: {near}")
    if args.history:
        ranked = [item["item_id"] for item in recommend({"items": args.history}, top_k=len(catalog))]
        for item_id in added:
            print(f"{item_id} stands at place {ranked.index(item_id) + 1} of {len(ranked)} for this history")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what finetune wrote (its folder, or model/ in it), or a Hub name")
    parser.add_argument("items", help="the new items' file")
    parser.add_argument(
        "--image-root", metavar="FOLDER", help="where paths of pictures start (default: beside the file)"
    )
    parser.add_argument(
        "--unreadable-pictures",
        choices=("error", "missing"),
        default="error",
        help="what a picture is that is named and cannot be read (missing: as of an item without one)",
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--history", nargs="+", metavar="ID", help="items of a user, oldest first")
    parser.add_argument("--encoder", help="a model of both texts and pictures (default: what the catalogue records)")
    parser.add_argument("--text-encoder", help="a text model's name or folder, likewise")
    parser.add_argument("--image-encoder", help="an image model's name or folder, likewise")
    arguments = parser.parse_args()
    hide_bars_without_terminal()
    sys.exit(run_command("new_items.py", lambda: main(arguments), translate=with_options))
