import pytest

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.slow
@pytest.mark.parametrize("how, message", [("killed", "SIGKILL"), ("raises", "the data of rank 1 ended")])
def test_the_end_of_one_rank_is_the_end_of_the_run(how, message, launch):
    """With its error, and long before a collective gives up, which takes half an hour."""
    output = launch("fail.py", 2, how, launcher=TORCHRUN, fails=True, timeout=400)
    assert message in output
    assert "all steps done" not in output
