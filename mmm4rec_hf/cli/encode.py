"""`mmm4rec encode`: the items of a shop to a catalogue with features."""

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..packaged_encoders import IMAGE_FROM_PACKAGE, TEXT_FROM_PACKAGE, load_item_encoder
from .fields import check_pictures, check_texts, name_fields, select_items
from .output import add_json_option, hide_bars_without_terminal, print_json
from .running import UsageError

if TYPE_CHECKING:
    from ..items import ItemCatalog

SHARDS_NAME = "encoding"
logger = logging.getLogger(__name__)


def add_parser(subparsers: Any) -> None:
    """Adds `encode` to the command's parser."""
    parser = subparsers.add_parser(
        "encode",
        help="encode the texts and pictures of items",
        description=(
            "Reads items (JSON lines, CSV, Parquet, or Amazon's, MovieLens' or RecBole's own; an id, text fields, and "
            "`image`: a path from the file's folder on), encodes them, and writes a catalogue: items, features and "
            "what made them. Texts alone do: without --image-encoder no picture is looked at, and a zero stands for "
            "each; likewise without --text-encoder. What is finished is kept in a folder inside, so that a run that "
            "was stopped goes on there. Under `torchrun --nproc_per_node N -m mmm4rec_hf.cli encode ...` the "
            "processes share the work."
        ),
        epilog=(
            "examples:\n"
            f"  mmm4rec encode texts.csv --sequences sequences --text-encoder {TEXT_FROM_PACKAGE} --output catalog\n"
            "  mmm4rec encode items.jsonl --output catalog --sequences sequences \\\n"
            f"      --text-encoder {TEXT_FROM_PACKAGE} --image-encoder {IMAGE_FROM_PACKAGE}\n"
            "  mmm4rec encode items.jsonl --output catalog --model google/siglip-base-patch16-224 --dtype bfloat16"
        ),
    )
    parser.add_argument("items", help="the items' file, or a folder that holds one named `items`")
    parser.add_argument(
        "--output", "-o", type=Path, required=True, help="the catalogue's folder, new or an earlier one's"
    )
    parser.add_argument("--sequences", type=Path, help="what `prepare` wrote: only its items, in its order")
    parser.add_argument("--format", default="auto", help="amazon-2018 or amazon-2023 for metadata, else told by name")
    parser.add_argument("--id-column", metavar="NAME", help="the field of the item id, if not as usual")
    parser.add_argument("--title-column", metavar="NAME", help="the field of the title, if not as usual")
    parser.add_argument("--image-column", metavar="NAME", help="the field of the picture's path, if not as usual")
    parser.add_argument(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="where paths of pictures start, and what none may lead out of; / allows all (default: the items' folder)",
    )
    parser.add_argument(
        "--follow-links", action="store_true", help="let links in that folder lead out of it, where they are your own"
    )
    parser.add_argument("--model", metavar="NAME", help="a model of both texts and pictures, e.g. SigLIP or CLIP")
    parser.add_argument(
        "--text-encoder", metavar="NAME", help=f"a text model's name or folder; `{TEXT_FROM_PACKAGE}` needs no hub"
    )
    parser.add_argument(
        "--image-encoder",
        metavar="NAME",
        help=f"an image model's name or folder; `{IMAGE_FROM_PACKAGE}` needs no hub; leave it out where items have no "
        "pictures",
    )
    parser.add_argument(
        "--text-fields",
        metavar="A,B",
        help="the fields that make an item's text (default: title,brand,description); `title` is the title's column, "
        "whatever that is called",
    )
    parser.add_argument(
        "--missing",
        choices=("white", "zeros", "learned"),
        default="white",
        help="what stands for a missing text or picture (learned: a vector of a model with learned_missing=true)",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="to compute in")
    parser.add_argument("--batch-size", type=int, default=16, help="items a batch (default: %(default)s)")
    parser.add_argument("--shard-size", type=int, default=1024, help="items a kill can lose (default: %(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch pictures that are web addresses")
    parser.add_argument("--overwrite", action="store_true", help="encode again where another encoder did")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec encode`."""
    hide_bars_without_terminal()
    import torch

    from ..data.readers.files import existing_paths
    from ..items.batch_encoder import NO_ENCODER
    from ..items.text import PUBLISHED_TEXT_FIELDS
    from ..processes import process_state
    from ..training.finetuning import SMALL_MODEL
    from ..training.saving import save_encoded_catalog

    items = existing_paths(args.items)[0]
    if args.model is None and args.text_encoder is None and args.image_encoder is None:
        raise UsageError(
            f"no encoder was named: give --model, or --text-encoder {TEXT_FROM_PACKAGE} and, where items have "
            f"pictures, --image-encoder {IMAGE_FROM_PACKAGE}"
        )
    _check_output(args.output, items)
    text_fields = list(PUBLISHED_TEXT_FIELDS)
    if args.text_fields is not None:
        text_fields = [name.strip() for name in args.text_fields.split(",") if name.strip()]
    catalog, notes = _read_items(args, text_fields)
    names = {"text": args.text_encoder, "image": args.image_encoder}
    if args.model is None:
        # A model reads both; without an encoder a zero stands for each.
        names = {modality: name or NO_ENCODER for modality, name in names.items()}
    if names["text"] != NO_ENCODER:
        check_texts(catalog, text_fields, args.text_fields is not None)
    if names["image"] != NO_ENCODER:
        check_pictures(catalog)
    if process_state().is_main_process:
        _warn_of_other_items(args.output, catalog)
    options = {"missing": args.missing, "download": args.download, "dtype": getattr(torch, args.dtype)}
    encoder = load_item_encoder(args.model, names["text"], names["image"], text_fields=text_fields, **options)
    catalog = catalog.encode(
        encoder,
        args.output / SHARDS_NAME,
        batch_size=args.batch_size,
        shard_size=args.shard_size,
        overwrite=args.overwrite,
    )
    if not process_state().is_main_process:
        return
    save_encoded_catalog(catalog, encoder, args.output)
    texts = [text for text in map(encoder.text_of, catalog.records) if text is not None]
    summary = {
        "output": str(args.output),
        "items": len(catalog),
        "distinct_texts": len(set(texts)),
        "without_text": len(catalog) - len(texts),
        "without_image": int((~catalog.image_mask).sum()) if catalog.image_mask is not None else 0,
        "features": catalog.feature_info,
    }
    if args.json:
        print_json(summary)
        return
    for note in notes:
        print(f"{note}.")
    for line in _told(catalog, summary, texts, [modality for modality, name in names.items() if name != NO_ENCODER]):
        print(line)
    print(f"The catalogue is in {args.output}; next:")
    line = f"  mmm4rec finetune sequences={args.sequences or 'SEQUENCES'} catalog={args.output} output_dir=run"
    print(line)
    if not torch.cuda.is_available():
        print("or, on a CPU in a quarter to a third of the time:")
        print(f"{line} \\\n      {SMALL_MODEL}")


def _read_items(args: argparse.Namespace, text_fields: Sequence[str]) -> "tuple[ItemCatalog, list[str]]":
    """The items to encode, and what was taken for what or left out."""
    from ..data import SequenceDatasets
    from ..items import ItemCatalog
    from ..items.images import absolute_pictures

    catalog = ItemCatalog.from_items(args.items, format=args.format, id_column=args.id_column, root=args.image_root)
    notes = name_fields(catalog, args.title_column, args.image_column, text_fields)
    if args.follow_links:
        catalog.records = absolute_pictures(catalog.records, catalog.root, follow_links=True)
    if args.sequences is not None:
        everything = len(catalog)
        catalog = select_items(catalog, SequenceDatasets.load_from_disk(args.sequences).item_ids, args.items)
        if len(catalog) < everything:
            notes.append(
                f"{everything - len(catalog):,} of {everything:,} items are not in the sequences and left out: they "
                "cannot be recommended. Without --sequences all are encoded, and can"
            )
    return catalog, notes


def _check_output(folder: Path, items: Path) -> None:
    """Refuses, before the work begins, to write over what is no catalogue, or over the very items to be read."""
    from ..items.storage import ITEMS_NAME, check_replaceable
    from ..training.saving import PROCESSOR_NAME

    target = folder / ITEMS_NAME
    if items.is_file() and target.is_file() and items.samefile(target):
        raise UsageError(f"--output {folder} would replace {items}, which is to be read; give another --output")
    if items.is_dir() and folder.is_dir() and items.samefile(folder):
        # The catalogue's own items would be among the files that the next call finds there.
        raise UsageError(f"--output {folder} is the folder that is to be read; give another --output")
    check_replaceable(folder, [PROCESSOR_NAME])


def _warn_of_other_items(folder: Path, catalog: "ItemCatalog") -> None:
    """Says, before the work begins, that a catalogue of other items lies where this one goes."""
    from ..items.storage import saved_item_ids

    before, now = saved_item_ids(folder), catalog.item_ids
    if before is not None and set(before) != set(now):
        logger.warning(
            "%s holds a catalogue of %s items, whose place one of %s takes (%s are in both); another "
            "--output keeps it",
            *(folder, f"{len(before):,}", f"{len(now):,}", f"{len({*before} & {*now}):,}"),
        )


def _told(
    catalog: "ItemCatalog", summary: Mapping[str, Any], texts: Sequence[str], read: Sequence[str]
) -> Iterator[str]:
    """What a person is told of the features: what was read, how much of it, and what was not."""
    from ..items.images import is_picture

    counts = []
    if "text" in read:
        fields = catalog.feature_info["text"]["fields"]
        # What is read under the one of its two names is not offered under the other.
        twice = [ours for ours, theirs in catalog.source_fields.items() if theirs in fields]
        there = {name for record in catalog.records for name in record}
        unused = sorted(there - {*fields, *twice, "image"})
        if unused:
            # Of the default ones any may be absent.
            read_fields = [name for name in fields if name in there] or fields
            yield f"Texts are made of {', '.join(read_fields)}; --text-fields also takes {', '.join(unused)}."
        counts += [f"{summary['distinct_texts']:,} distinct texts, {summary['without_text']:,} without text"]
    if "image" in read:
        counts += [f"{summary['without_image']:,} without a picture"]
    yield f"{len(catalog):,} items, {', '.join(counts)}"
    if "text" in read:
        shared = sum(count for count in Counter(texts).values() if count > 1)
        if shared:
            yield f"{shared:,} items share their text with another: texts cannot tell these apart."
    else:
        yield "No text was looked at: --text-encoder was left out."
    if "image" not in read:
        number = sum(is_picture(record.get("image")) for record in catalog.records)
        has = f"; {number:,} items have one" if number else ""
        yield f"No picture was looked at: --image-encoder was left out{has}."
