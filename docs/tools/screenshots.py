"""Makes the screenshots of `mmm4rec serve` in docs/images: a drawn shop, a small model of it, and Chromium.

    python docs/tools/screenshots.py

Every user of the shop likes a colour or a shape, so that both the pictures and the titles tell what comes next. The
encoders come from the package registry, as for `mmm4rec demo`. Takes some minutes on 2 cores.
"""

import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageDraw
from playwright.sync_api import sync_playwright

from mmm4rec_hf.cli import main as mmm4rec
from mmm4rec_hf.items.recorded import recorded_encoder
from mmm4rec_hf.packaged_encoders import image_encoder, text_encoder
from mmm4rec_hf.serving.loading import load_recommender
from mmm4rec_hf.serving.page import create_app
from mmm4rec_hf.serving.server import address, bind

COLOURS = {
    "Red": "#d62828",
    "Orange": "#f77f00",
    "Yellow": "#f2c037",
    "Green": "#2a9d4b",
    "Teal": "#17858c",
    "Blue": "#2f6fde",
    "Purple": "#7b3fa0",
    "Pink": "#e86fa6",
    "Brown": "#7f5539",
    "Grey": "#7d8590",
}
SIZE = 320
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 812}
HISTORY = ("Blue mug", "Blue lamp", "Teal mug")


def shapes() -> dict[str, Callable[[ImageDraw.ImageDraw, str], None]]:
    """Things for the house, of a few lines each."""

    def mug(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.ellipse((185, 120, 275, 220), outline=colour, width=22)
        pen.rounded_rectangle((70, 90, 215, 250), 24, fill=colour)

    def lamp(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.polygon([(120, 50), (200, 50), (250, 160), (70, 160)], fill=colour)
        pen.rectangle((152, 160, 168, 262), fill="#444")
        pen.rounded_rectangle((110, 258, 210, 276), 8, fill="#444")

    def chair(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.rounded_rectangle((95, 40, 125, 190), 8, fill=colour)
        pen.rounded_rectangle((95, 160, 235, 195), 8, fill=colour)
        for left in (98, 210):
            pen.rectangle((left, 195, left + 16, 285), fill="#8a5a33")

    def vase(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.ellipse((90, 120, 230, 285), fill=colour)
        pen.rectangle((135, 60, 185, 150), fill=colour)
        pen.ellipse((125, 48, 195, 76), fill=colour, outline="#333", width=4)

    def pillow(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.rounded_rectangle((50, 80, 270, 250), 48, fill=colour)
        pen.rounded_rectangle((74, 104, 246, 226), 36, outline="white", width=5)

    def clock(pen: ImageDraw.ImageDraw, colour: str) -> None:
        pen.ellipse((55, 55, 265, 265), fill="white", outline=colour, width=22)
        pen.line((160, 160, 160, 95), fill="#333", width=9)
        pen.line((160, 160, 205, 185), fill="#333", width=9)

    return {"mug": mug, "lamp": lamp, "chair": chair, "vase": vase, "pillow": pillow, "clock": clock}


def draw_shop(folder: Path) -> None:
    """`items.jsonl`, its pictures, and `log.csv`."""
    items = []
    for colour, code in COLOURS.items():
        for shape, paint in shapes().items():
            picture = Image.new("RGB", (SIZE, SIZE), "#f6f4f0")
            paint(ImageDraw.Draw(picture), code)
            name = f"{colour}-{shape}.png".lower()
            picture.save(folder / name)
            items.append({"item_id": name[:-4], "title": f"{colour} {shape}", "image": name})
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    draw = random.Random(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(600):
        liked = draw.choice([*COLOURS, *shapes()]).lower()
        fitting = [item["item_id"] for item in items if liked in item["item_id"].split("-")]
        stamp = 1_600_000_000 + draw.randrange(10**6)
        for item in draw.sample(fitting, min(len(fitting), draw.randint(5, 9))):
            if draw.random() < 0.15:
                item = draw.choice(items)["item_id"]
            stamp += draw.randrange(3600, 10 * 86_400)
            rows.append(f"{user},{item},{stamp}")
    (folder / "log.csv").write_text("\n".join(rows) + "\n")


def train(folder: Path) -> Path:
    """The commands of the README, on the drawn shop."""
    sequences, catalog, run = (str(folder / name) for name in ("sequences", "catalog", "house"))
    commands = [
        ["prepare", str(folder / "log.csv"), "--output", sequences, "--k-core", "1"],
        ["encode", str(folder / "items.jsonl"), "--sequences", sequences, "--output", catalog]
        + ["--text-encoder", "minilm", "--image-encoder", "efficientnet-lite0"],
        ["finetune", f"sequences={sequences}", f"catalog={catalog}", f"output_dir={run}", "model.hidden_size=64"]
        + ["model.intermediate_size=64", "model.head_dim=16", "model.time_mode=log", "model.use_cooccurrence=true"]
        + ["training.num_train_epochs=15", "training.per_device_train_batch_size=64"],
    ]
    for command in commands:
        if mmm4rec(command) != 0:
            sys.exit(f"mmm4rec {command[0]} failed")
    return Path(run)


def photograph(url: str, folder: Path) -> None:
    """The page at two widths, with a history."""
    chromium = shutil.which("chromium") or sys.exit("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            page = browser.new_page(viewport=viewport)
            page.goto(url)
            for place, title in enumerate(HISTORY, start=1):
                page.get_by_label("Search titles").fill(title)
                page.get_by_role("button", name=f"Add {title}", exact=True).first.click()
                page.locator(f"#m4-history li:nth-child({place})").wait_for()
            page.get_by_label("Search titles").fill("")
            page.locator("#m4-catalogue .m4-card").nth(20).wait_for()
            page.locator("h1").click()
            page.mouse.move(0, 0)
            page.wait_for_function("[...document.images].every(i => i.loading === 'lazy' || i.complete)")
            page.wait_for_timeout(1500)
            save(page.screenshot(), folder / f"serve-{name}.png")
            if name == "phone":
                page.get_by_role("heading", name="Recommended next").scroll_into_view_if_needed()
                page.evaluate("window.scrollBy(0, 480)")
                page.wait_for_timeout(1500)
                save(page.screenshot(), folder / "serve-phone-results.png")
        browser.close()


def save(content: bytes, path: Path) -> None:
    """As a small PNG: 128 colours are enough for flat drawings."""
    path.write_bytes(content)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    target = Path(__file__).resolve().parents[1] / "images"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_shop(folder)
        run = train(folder)

        def find_encoder(info: Any) -> Any:
            texts, pictures = text_encoder("minilm"), image_encoder("efficientnet-lite0")
            return recorded_encoder(info, text_encoder=texts, image_encoder=pictures)

        recommender = load_recommender(run, find_encoder=find_encoder, name="house")
        with bind("127.0.0.1", 0) as sock:
            server = uvicorn.Server(uvicorn.Config(create_app(recommender, local_only=True), log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.1)
            photograph(address(sock), target)
            server.should_exit = True
            thread.join(10)


if __name__ == "__main__":
    main()
