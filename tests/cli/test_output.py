"""What commands print."""

import pytest

from mmm4rec_hf.cli.output import print_table


def test_a_title_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["item", "title"], [["1\n2", "\x1b]0;owned\x07\x9b31mRed\u202e"], ["3", "Amélie 愛"]])
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:] == ["1�2   �]0;owned��31mRed�", "3               Amélie 愛", ""]
