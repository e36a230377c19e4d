"""What the suite of failovers makes of losses and of a load that does not respond."""

import os

import pytest

from tests.failover.loader import Load
from tests.failover.row import Seen
from tests.support.kube import CommandFailed


def test_watched_order_that_is_lost_counts_its_events() -> None:
    assert Seen().count({"lost": [1, 2], "there": [1]}, {"there": [1]}) != (0, 0)


def test_events_of_an_earlier_case_count_once() -> None:
    seen = Seen()
    assert seen.count({"a": [1]}, {"a": [1, 2]}) == (1, 0)
    assert seen.count({"a": [1]}, {"a": [1, 2]}) == (0, 0)
    assert seen.count({"b": [1, 1]}, {"a": [1, 2], "b": [1]}) == (0, 1)


def test_late_response_is_not_taken_for_another() -> None:
    commands, written = os.pipe()
    read, responses = os.pipe()
    with os.fdopen(written, "w") as stdin, os.fdopen(read) as stdout:
        load = Load(stdin, stdout)
        os.write(responses, b'{"age": 1}\n')
        assert load.ask("progress") == {"age": 1}
        with pytest.raises(CommandFailed, match="does not respond to stop"):
            load.ask("stop", timeout=0.01)
        os.write(responses, b'{"late": 1}\n')
        with pytest.raises(CommandFailed, match="earlier command"):
            load.ask("progress")
    os.close(commands)
    os.close(responses)
