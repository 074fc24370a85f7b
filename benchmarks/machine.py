"""What a benchmark ran on, for its record."""

import os
import platform
import re
from pathlib import Path

import torch


def machine_class() -> str:
    """Such as `2 cores of an AMD EPYC, no GPU`."""
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpus.read_text(), re.MULTILINE) if cpus.is_file() else []
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores of an {names[0] if names else platform.machine()}, {device}"
