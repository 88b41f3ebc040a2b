"""Calls in worker processes: what a killed worker had in hand is done again, and only a while."""

import os
import signal

import pytest
from tqdm import tqdm

from common.command_line import UserError
from common.processes import run_in_processes


def test_what_a_killed_worker_had_in_hand_is_done_again(cache, capfd):
    """By hand: the third of four calls ends its process, once."""
    calls = [(_die_once, str(cache.parent / "died"), number) for number in range(4)]
    with tqdm(total=4) as progress:
        assert run_in_processes(calls, 2, progress) == [0, 1, 4, 9]
    assert "killed by another program" in capfd.readouterr().err
    with tqdm(total=1) as progress, pytest.raises(UserError, match="fewer --workers"):
        run_in_processes([(os.abort,)], 1, progress)


def _die_once(marker, number):
    if number == 2 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number ** 2
