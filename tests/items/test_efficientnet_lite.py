"""The image encoder out of two unpacked packages, here stand-ins with the shape of the real ones."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmm4rec_hf.items.efficientnet_lite import MODULE_NAME, EfficientNetLiteEncoder

# One convolution in place of the network: its maps are the pixels that it was given, twice.
CODE = """
import torch


class EfficientNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 1, bias=False)

    @classmethod
    def from_name(cls, name):
        assert name == "efficientnet-lite0"
        return cls()

    def extract_features(self, pixels):
        assert not self.training
        return self.conv(pixels)
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folders of the code and of the weights."""
    # Set and removed, so that what the test imports is forgotten after it, and what others imported before it.
    for name in {MODULE_NAME, *(name for name in sys.modules if name.startswith(f"{MODULE_NAME}."))}:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    code, weights = tmp_path / "code", tmp_path / "weights" / "models"
    code.mkdir()
    weights.mkdir(parents=True)
    (code / "__init__.py").write_text("from .model import EfficientNet\n")
    (code / "model.py").write_text(CODE)
    kernel = torch.eye(3).repeat(2, 1)[..., None, None]
    torch.save({"conv.weight": kernel}, weights / "efficientnet-lite0-1234.pth")
    yield code, weights.parent
    sys.modules.pop(f"{MODULE_NAME}.model", None)


def test_pictures_are_scaled_as_the_network_was_trained_and_pooled_by_the_mean(packages):
    encoder = EfficientNetLiteEncoder(*packages)
    pictures = [Image.new("RGB", size, (255, 127, 0)) for size in [(30, 40), (500, 20), (1, 3)] * 4]
    expected = [(255 - 127) / 128, 0, -127 / 128] * 2
    np.testing.assert_allclose(encoder(pictures), [expected] * 12, atol=1e-5)
    assert encoder.model.training
    assert encoder.info["encoder"] == "efficientnet-lite0" and encoder.info["revision"].startswith("sha256:")


def test_the_code_s_folder_does_not_join_the_search_path(packages):
    before = list(sys.path)
    EfficientNetLiteEncoder(*packages)
    EfficientNetLiteEncoder(packages[0], next(packages[1].rglob("*.pth")))
    assert sys.path == before


def test_weights_that_would_run_code_are_refused(packages, tmp_path):
    class Malicious:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "pwned",))

    (file,) = packages[1].rglob("*.pth")
    file.write_bytes(pickle.dumps({"conv.weight": Malicious()}, protocol=2))
    with pytest.raises(ValueError, match="efficientnet-lite0-1234.pth does not hold the weights"):
        EfficientNetLiteEncoder(*packages)
    assert not (tmp_path / "pwned").exists()


def test_other_weights_and_missing_parts_are_named(packages, tmp_path):
    code, weights = packages
    (file,) = weights.rglob("*.pth")
    torch.save({"other": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="does not hold the weights of EfficientNet-Lite0"):
        EfficientNetLiteEncoder(code, weights)
    with pytest.raises(ValueError, match="found 0"):
        EfficientNetLiteEncoder(code, tmp_path / "code")


def test_a_folder_without_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, MODULE_NAME, raising=False)
    (tmp_path / "efficientnet-lite0-1.pth").touch()
    with pytest.raises(ValueError, match="is not the unpacked package efficientnet_lite_pytorch"):
        EfficientNetLiteEncoder(tmp_path, tmp_path)
