"""What commands print."""

import logging

import pytest

from mmm4rec_hf.cli.models import saved_model
from mmm4rec_hf.cli.output import print_table


def test_a_title_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["item", "title"], [["1\n2", "\x1b]0;owned\x07\x9b31mRed\u202e"], ["3", "Amélie 愛"]])
    lines = capsys.readouterr().out.split("\n")
    assert lines[1:] == ["1�2   �]0;owned��31mRed�", "3               Amélie 愛", ""]


def test_of_a_hub_that_cannot_be_reached_the_end_is_told_alone(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("huggingface_hub.utils._http")  # warns of each try
    level, propagates = log.level, logging.getLogger("huggingface_hub").propagate
    logging.getLogger("huggingface_hub").propagate = True
    try:
        assert saved_model("organization/model") == "organization/model"
        log.warning("Retrying in 1s [Retry 1/5].")
        log.error("no connection")
    finally:
        log.setLevel(level)
        logging.getLogger("huggingface_hub").propagate = propagates
    assert [record.message for record in caplog.records] == ["no connection"]
