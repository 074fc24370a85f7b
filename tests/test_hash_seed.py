"""Python draws another order of sets of strings for every process: nothing that is written may depend on it."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CODE = """
    import hashlib, json, sys
    from pathlib import Path
    import numpy as np, polars as pl, torch
    from transformers import TrainingArguments
    import mmm4rec_hf
    from mmm4rec_hf.items import ItemCatalog

    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    rows = [(f"u{u}", f"item {(u * 3 + s * s) % 9}", 1387670400 + 60 * s) for u in range(12) for s in range(6)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    sequences = mmm4rec_hf.prepare_sequences(mmm4rec_hf.load_interactions(log), k_core=2, output_dir=out / "sequences")
    rng = np.random.default_rng(0)
    count = len(sequences.item_ids)
    catalog = ItemCatalog(
        sequences.item_ids,
        text_features=rng.normal(size=(count, 6)).astype(np.float32),
        image_features=rng.normal(size=(count, 5)).astype(np.float32),
    )
    catalog.save_pretrained(out / "catalog")
    torch.manual_seed(0)
    model = mmm4rec_hf.MMM4RecForSequentialRecommendation(mmm4rec_hf.MMM4RecConfig(
        hidden_size=16, intermediate_size=16, head_dim=4, state_size=4, max_sequence_length=6, text_feature_size=6,
        image_feature_size=5, use_item_bias=True, item_loss="sampled", num_sampled_negatives=4, use_log_q=False,
    ))
    model.set_items(catalog)
    arguments = TrainingArguments(str(out / "run"), max_steps=3, use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = mmm4rec_hf.MMM4RecTrainer(model, arguments, train_dataset=sequences["train"])
    trainer.train()
    model.save_pretrained(out / "model")
"""


@pytest.mark.slow
def test_two_processes_write_the_same_files(tmp_path: Path) -> None:
    digests = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", textwrap.dedent(CODE), str(out)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        files = [path for part in ("sequences", "catalog", "model") for path in (out / part).rglob("*")]
        digests.append(
            {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}
        )
    assert any(name.endswith("model.safetensors") for name in digests[0])
    assert any(name.endswith("events.arrow") for name in digests[0])
    assert digests[0] == digests[1], json.dumps(
        sorted(name for name in digests[0] if digests[0][name] != digests[1].get(name))
    )
