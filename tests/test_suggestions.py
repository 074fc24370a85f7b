"""Which name was meant by one that there is not."""

import pytest

from mmm4rec_hf.suggestions import did_you_mean, nearest, remedy

OPTIONS = [
    *("num_train_epochs", "learning_rate", "lr_scheduler_type", "per_device_train_batch_size"),
    *("per_device_eval_batch_size", "max_steps", "max_sequence_length", "fsdp"),
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("epochs", ["num_train_epochs"]),
        ("epoch", ["num_train_epochs"]),
        ("num_epochs", ["num_train_epochs"]),
        ("max_len", ["max_sequence_length"]),
        ("lr", ["learning_rate"]),
        ("learning-rate", ["learning_rate"]),
        ("Learning_Rat", ["learning_rate"]),
        ("scheduler", ["lr_scheduler_type"]),
        ("batch_size", ["per_device_eval_batch_size", "per_device_train_batch_size"]),
        ("zzz", []),
        ("_", []),
        ("", []),
    ],
)
def test_a_name_is_taken_for_one_of_its_words_initials_or_spelling(name: str, meant: list[str]) -> None:
    assert nearest(name, OPTIONS) == meant
    assert nearest(name, []) == []


def test_words_go_before_letters() -> None:
    # By its letters alone the first would be the nearest.
    assert nearest("--time-column", ["--item-column", "--timestamp-column", "--time-unit"]) == ["--timestamp-column"]
    assert nearest("--outptu", ["--output", "--options"]) == ["--output"]
    assert nearest("recomend", ["demo", "report", "recommend"]) == ["recommend"]


def test_of_many_names_the_place_is_told_and_of_few_each() -> None:
    assert remedy("epochs", OPTIONS, "the manual") == "did you mean 'num_train_epochs'?"
    assert remedy("zzz", ["b", "a"], "the manual") == "there are a, b"
    many = [f"option{n}x" for n in range(40)]
    assert remedy("zzz", many, "the manual") == "the manual lists all 40"
    assert remedy("zzz", many).count(",") == 39


def test_several_names_are_joined_as_in_speech() -> None:
    assert did_you_mean(["a"]) == "did you mean 'a'?"
    assert did_you_mean(["a", "b", "c"]) == "did you mean 'a', 'b' or 'c'?"
