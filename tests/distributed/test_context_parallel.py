import pytest


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_sharded_sequences_give_the_values_and_gradients_of_one_process(processes, launch):
    launch("shard_sequences.py", processes)
