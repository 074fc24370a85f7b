"""`mmm4rec serve`: a saved model as a web page and a JSON API."""

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..extras import how_to_install
from ..packaged_encoders import image_encoder, packaged_names, text_encoder
from .output import hide_bars_without_terminal
from .running import UsageError

if TYPE_CHECKING:
    from ..items import ItemEncoder


def add_parser(subparsers: Any) -> None:
    """Adds `serve` to the command's parser."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model as a web page and a JSON API",
        description=(
            "Reads a model's folder (or its Hub name) with the catalogue in it, and serves a page to browse the "
            "catalogue, click a history together and see what is recommended, with the two modalities' shares; and a "
            "JSON API, described at /docs. New items can be added where the encoder that made the catalogue's "
            "features can be loaded; they are kept until the server stops. Writes nothing. Only this machine reaches "
            f"it, unless --host says otherwise. Needs the extra: {how_to_install('serve')}."
        ),
        epilog=(
            "examples:\n"
            "  mmm4rec serve run\n"
            "  mmm4rec serve run --catalog catalog --port 8080 --no-new-items\n\n"
            "Then open http://127.0.0.1:7860 (or the port that was given)."
        ),
    )
    parser.add_argument("model", help="what `finetune` wrote (its folder, or model/ in it), or a Hub name")
    parser.add_argument("--catalog", metavar="FOLDER", help="the items to recommend (default: those saved with it)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for every one (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860, help="0 for any that is free (default: %(default)s)")
    parser.add_argument(
        "--allow-host", nargs="+", default=[], metavar="NAME", help="names by which a proxy reaches this server"
    )
    parser.add_argument("--encoder", metavar="NAME", help="a model of both texts and pictures, for new items")
    parser.add_argument(
        "--text-encoder", metavar="NAME", help="a text model, for new items (default: what the catalogue records)"
    )
    parser.add_argument("--image-encoder", metavar="NAME", help="an image model, likewise")
    parser.add_argument("--no-new-items", action="store_true", help="take no new items, and load no encoder")
    parser.add_argument("--download", action="store_true", help="fetch pictures that are web addresses")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: an accelerator where there is one)")


def run(args: argparse.Namespace) -> None:
    """Runs `mmm4rec serve`."""
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port must be from 0 to 65535, got {args.port}")
    named = args.encoder or args.text_encoder or args.image_encoder
    if args.no_new_items and named:
        raise UsageError("--no-new-items loads no encoder; leave it out, or the encoders")
    if args.encoder and (args.text_encoder or args.image_encoder):
        raise UsageError("give either --encoder, or --text-encoder and --image-encoder")
    hide_bars_without_terminal()
    try:
        from ..serving.limits import is_loopback
        from ..serving.loading import load_recommender
        from ..serving.page import create_app
        from ..serving.server import address, bind, serve
    except ImportError as error:
        raise RuntimeError(f"{error}; install what serve needs: {how_to_install('serve')}") from error

    # First: a port that is taken should not be found out after a minute of loading.
    with bind(args.host, args.port) as sock:
        recommender = load_recommender(
            args.model,
            catalog=args.catalog,
            find_encoder=None if args.no_new_items else _find_encoder(args),
            device=args.device,
            download=args.download,
        )
        app = create_app(recommender, local_only=is_loopback(args.host), allowed_hosts=args.allow_host)
        print(f"Open {address(sock)} (the API is described at {address(sock)}/docs); Ctrl+C stops it", file=sys.stderr)
        serve(app, sock)


def _find_encoder(args: argparse.Namespace) -> "Callable[[Mapping[str, Mapping[str, Any]]], ItemEncoder]":
    """What finds a catalogue's encoder: by the names given, the catalogue's record, or the packages that carry it."""
    from ..items.recorded import recorded_encoder

    def find(info: Mapping[str, Mapping[str, Any]]) -> "ItemEncoder":
        text, image = args.text_encoder, args.image_encoder
        if args.encoder is None:
            names = packaged_names(info)
            text, image = text or names.get("text"), image or names.get("image")
        try:
            return recorded_encoder(
                info,
                model=args.encoder,
                text_encoder=text_encoder(text),
                image_encoder=image_encoder(image),
                device=args.device,
                download=args.download,
            )
        except (ValueError, RuntimeError) as error:  # RuntimeError: a package that cannot be fetched
            if args.encoder or args.text_encoder or args.image_encoder:
                raise RuntimeError(f"the encoder that was named cannot be used: {error}") from error
            raise ValueError(str(error)) from error

    return find
