"""`examples/space`: made by its README's lines, it serves the model from a folder of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

# Python 3.10 has no tomllib; the lists are read as they stand.
LIST = r"^{} = \[\n((?:    .*\n)*?)\]"
# What a visitor's requests would give, without a network.
VISIT = """
import json, app, mmm4rec_hf
from fastapi.testclient import TestClient
with TestClient(app.app) as client:
    print(json.dumps({
        "package": mmm4rec_hf.__file__,
        "health": client.get("/health").json(),
        "page": client.get("/").status_code,
        "picture": client.get("/items/item-1/image").headers["content-type"],
    }))
"""


@pytest.fixture
def space(repository: Path) -> Path:
    return repository / "examples" / "space"


def test_its_card_says_how_to_run_it(space: Path) -> None:
    head = (space / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    card = yaml.safe_load(head)
    assert card["sdk"] == "gradio" and (space / card["app_file"]).is_file()
    # The Hub refuses a longer one.
    assert len(card["short_description"]) <= 60
    pinned = (space.parents[1] / "constraints.txt").read_text()
    assert f"gradio=={card['sdk_version']}\n" in pinned


def test_it_asks_for_what_the_package_asks_for(space: Path, repository: Path) -> None:
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    wanted = []
    for name in ("dependencies", "serve"):
        (block,) = re.findall(LIST.format(name), project, re.MULTILINE)
        wanted += re.findall(r'^    "(.*)",$', block, re.MULTILINE)
    lines = (space / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert len(wanted) > 15
    assert [line for line in lines if not line.startswith("#")] == wanted, (
        "bring examples/space/requirements.txt up to date"
    )


@pytest.mark.slow
def test_a_space_made_by_its_readme_serves_the_model_with_pictures(
    space: Path, repository: Path, run: Path, tmp_path: Path
) -> None:
    text = (space / "README.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if re.match(r"    (cp|python) ", line)]
    assert len(lines) == 4
    for name, target in {
        "examples": repository / "examples",
        "mmm4rec_hf": repository / "mmm4rec_hf",
        "run": run,
    }.items():
        (tmp_path / name).symlink_to(target)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=tmp_path, env=environment, check=True, capture_output=True)
    # The pictures are the Space's own now.
    records = [json.loads(line) for line in (tmp_path / "my-space/model/catalog/items.jsonl").open()]
    assert {record["image"].split("/")[0] for record in records if "image" in record} == {"images"}
    visited = subprocess.run(
        [sys.executable, "-c", VISIT], cwd=tmp_path / "my-space", check=True, capture_output=True, text=True
    )
    seen = json.loads(visited.stdout.splitlines()[-1])
    assert Path(seen["package"]).is_relative_to(tmp_path / "my-space")
    assert seen["health"]["num_items"] == 36 and seen["page"] == 200 and seen["picture"] == "image/jpeg"
    assert "bert" in seen["health"]["new_items_problem"]
