import pytest


@pytest.mark.parametrize("processes", [2, 4])
def test_sharded_sequences_give_the_values_and_gradients_of_one_process(processes, launch):
    launch("shard_sequences.py", processes)
