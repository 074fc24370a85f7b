"""Makes transformers' own tests importable; without them (see `run.py`) there is nothing to collect here."""

import os
import sys

import pytest

SOURCES = os.environ.get("MMM4REC_HF_SUITE")

if SOURCES is None:
    collect_ignore_glob = ["test_*.py"]
else:
    sys.path.insert(0, SOURCES)


def pytest_configure(config: pytest.Config) -> None:
    for name in (
        "accelerate_tests",
        "flash_attn_test",
        "flash_attn_3_test",
        "flash_attn_4_test",
        "torch_compile_test",
    ):
        config.addinivalue_line("markers", f"{name}: a marker of transformers' own suite")
