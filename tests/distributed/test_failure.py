import time

import pytest


@pytest.mark.parametrize("how, message", [("killed", "SIGKILL"), ("raises", "the data of rank 1 ended")])
def test_the_end_of_one_rank_is_the_end_of_the_run(how, message, launch):
    """With its error, and at once: the others wait for it in a collective, for minutes if nobody ended them."""
    started = time.monotonic()
    output = launch("fail.py", 2, how, fails=True)
    assert message in output
    assert "all steps done" not in output
    assert time.monotonic() - started < 60
