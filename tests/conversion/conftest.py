"""Golden cases as the files that a user of the published code has."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@dataclass
class PublishedFiles:
    """What one run of the published code leaves."""

    checkpoint: Path
    config: Path
    data: Path
    io: dict[str, torch.Tensor]

    def weights(self) -> dict[str, torch.Tensor]:
        return torch.load(self.checkpoint, weights_only=True)["model"]

    def rewrite(self, **changes: Any) -> None:
        """Writes the checkpoint again with weights added, replaced or, where the change is None, left out."""
        weights = self.weights() | changes
        torch.save({"model": {name: value for name, value in weights.items() if value is not None}}, self.checkpoint)

    def configure(self, **changes: Any) -> None:
        """Writes the configuration again; None leaves a name out."""
        values = yaml.safe_load(self.config.read_text()) | changes
        self.config.write_text(yaml.safe_dump({name: value for name, value in values.items() if value is not None}))


@pytest.fixture
def published_files(tmp_path: Path) -> Callable[[str], PublishedFiles]:
    """Makes checkpoint, YAML and data folder of a golden case, in a folder that a test may change."""

    def make(case: str) -> PublishedFiles:
        folder = tmp_path / "published"
        data = folder / "data"
        data.mkdir(parents=True)
        io = load_file(GOLDEN / case / "io.safetensors")
        values = json.loads((GOLDEN / case / "config.json").read_text())
        files = PublishedFiles(folder / "best_epoch_model.ckpt", folder / "config.yaml", data, io)
        files.checkpoint.write_bytes((GOLDEN / case / "checkpoint.ckpt").read_bytes())
        files.config.write_text(yaml.safe_dump(values))
        ids = [[f"B{index:09d}", index] for index in range(1, values["item_num"] + 1)]
        (data / "item2id.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reversed(ids)))
        for name in ("text", "image"):
            torch.save(io[f"{name}_features"], data / f"{name}_feat.pth")
        return files

    return make
