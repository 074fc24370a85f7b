"""What an upload asks of the Hub, and how its refusals are told. tests/hub uploads to a Hub on the loopback."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from mmm4rec_hf import MMM4RecProcessor
from mmm4rec_hf.modeling import hub_mmm4rec
from mmm4rec_hf.modeling.hub_mmm4rec import push_folder


class Hub:
    """Answers as `HfApi` does, and keeps what it was asked."""

    def __init__(self, error: Exception | None = None, has_card: bool = False) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error, self.has_card = error, has_card

    def create_repo(self, repo_id: str, **options: Any) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        self.calls.append(("create_repo", options))
        return SimpleNamespace(repo_id=f"author/{repo_id}")

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id} | options))

    def file_exists(self, repo_id: str, name: str, **options: Any) -> bool:
        return self.has_card

    def create_commit(self, repo_id: str, operations: list[Any], **options: Any) -> str:
        files = {operation.path_in_repo for operation in operations}
        self.calls.append(("create_commit", {"repo_id": repo_id, "files": files} | options))
        return "the commit"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\ntags:\n- films\n---\n# films\n")
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "items.jsonl").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "secret").write_text("")
    return tmp_path


def pushed(monkeypatch: pytest.MonkeyPatch, hub: Hub, folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: hub)
    assert push_folder(folder, "films", **options) == "the commit"
    return dict(hub.calls)


def test_what_is_there_already_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls = pushed(monkeypatch, Hub(), folder, revision="experiment", private=True)
    assert calls["create_repo"] == {"repo_type": "model", "private": True, "exist_ok": True}
    branch = {"repo_id": "author/films", "repo_type": "model", "branch": "experiment", "exist_ok": True}
    assert calls["create_branch"] == branch
    commit = calls["create_commit"]
    assert commit["repo_id"] == "author/films" and commit["revision"] == "experiment" and not commit["create_pr"]
    assert commit["files"] == {"config.json", "README.md", "catalog/items.jsonl"}


def test_a_pull_request_needs_no_branch_and_a_card_is_kept_on_request(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    calls = pushed(
        monkeypatch, Hub(has_card=True), folder, revision="main", create_pr=True, keep_card=True, repo_type="dataset"
    )
    assert "create_branch" not in calls and calls["create_commit"]["create_pr"]
    assert calls["create_commit"]["repo_type"] == "dataset"
    assert calls["create_commit"]["files"] == {"config.json", "catalog/items.jsonl"}
    # One that the repository lacks is written.
    calls = pushed(monkeypatch, Hub(), folder, keep_card=True)
    assert "README.md" in calls["create_commit"]["files"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HFValidationError("two slashes"), "'films' cannot be the name of a repository: two slashes"),
        (LocalTokenNotFoundError("none"), "an upload to films needs a token: run `hf auth login`"),
        (
            HfHubHTTPError("403\nForbidden", response=httpx.Response(403, request=httpx.Request("POST", "http://a"))),
            "the Hub refused the upload to films; it needs a token that may write there: 403 Forbidden",
        ),
    ],
)
def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception, message: str) -> None:
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: Hub(error))
    with pytest.raises(ValueError) as told:
        push_folder(folder, "films")
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "message"), [({}, "Upload processor"), ({"commit_message": "Titles"}, "Titles")], ids=str
)
def test_a_processor_is_uploaded_with_its_items(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    processor, hub = MMM4RecProcessor(), Hub()
    processor.set_items(SimpleNamespace(item_ids=["a"], titles=["A"]))
    monkeypatch.setattr(hub_mmm4rec, "HfApi", lambda token: hub)
    assert processor.push_to_hub("author/films", **options) == "the commit"
    commit = dict(hub.calls)["create_commit"]
    assert commit["commit_message"] == message and {"processor_config.json", "items.jsonl"} <= commit["files"]
