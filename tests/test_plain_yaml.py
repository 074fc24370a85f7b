"""YAML of others: plain values or one error, and never more than it looks."""

from pathlib import Path

import pytest

from mmm4rec_hf.cli import main
from mmm4rec_hf.conversion.published import read_published_config
from mmm4rec_hf.plain_yaml import load_yaml
from mmm4rec_hf.training.finetuning import FinetuneRecipe
from mmm4rec_hf.training.recipes import load_recipe

TARGET = "pwned-by-yaml"
LAUGHS = "a: &a [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1 or ''}, *a{n - 1 or ''}]\n" for n in range(1, 60))
HOSTILE = {
    "call": f"output_dir: !!python/object/apply:os.system ['touch {TARGET}']\n",
    "new": "output_dir: !!python/object/new:subprocess.Popen [[touch, pwned-by-yaml]]\n",
    "module": "output_dir: !!python/module:antigravity\n",
    "own tag": "output_dir: !x y\n",
    "truth of a tag": "seed: !!bool maybe\n",
    "number of a tag": 'seed: !!int ""\n',
    "set": "output_dir: !!set {a, b}\n",
    "bytes": "output_dir: !!binary aGVsbG8=\n",
    "laughs": LAUGHS,
    "merges": "a: &a {x: 1}\nb: {<<: [*a, *a]}\n",
    "itself": "output_dir: &a [*a]\n",
    "nested lists": "[" * 50_000,
    "nested sections": "{a: " * 50_000,
    "no key": "? [a]\n: b\n",
    "no date": "output_dir: 9999-99-99\n",
    "digits": f"seed: {'9' * 5000}\n",
    "long": "# " + "x" * (1 << 20),
    "no UTF-8": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_reader_of_yaml_refuses_it_in_one_line_and_runs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[kind]
    path = tmp_path / "values.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match="values.yaml"):
        load_recipe(FinetuneRecipe, path)
    with pytest.raises(ValueError, match="values.yaml"):
        read_published_config(path)
    with pytest.raises(SystemExit, match="2"):
        main(["prepare", "log.csv", "--output", "out", "--options", str(path)])
    assert "values.yaml" in capsys.readouterr().err.splitlines()[-1]
    assert main(["finetune", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["values.yaml"]


def test_plain_values_are_read() -> None:
    assert load_yaml("a: [1, 2.5, true, null, 'x*y']\nb: {c: \"&d\"}\n", "it") == {
        "a": [1, 2.5, True, None, "x*y"],
        "b": {"c": "&d"},
    }


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "No", "ON", "y", "n"])
def test_only_true_and_false_are_truth_values(word: str) -> None:
    assert load_yaml(f"eval_strategy: {word}", "it") == {"eval_strategy": word}
    assert load_yaml("[true, True, FALSE]", "it") == [True, True, False]
