"""One model for several threads."""

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
import torch
from reference import randomise

from hyenadna_hf import HyenaDNAConfig, HyenaDNAModel

LENGTHS = (15, 30, 60, 120, 300, 700)
THREADS = 8


@pytest.mark.parametrize("calls", [40, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("memory", ["auto", "low", "fast"])
def test_threads_get_what_one_thread_gets(memory, calls):
    """Each call is of another transform size than most before it, so that kept spectra are replaced all the time."""
    config = HyenaDNAConfig(d_model=10, n_layer=2, filter_order=8, max_seq_len=1000, memory=memory)
    model = randomise(HyenaDNAModel(config)).double().eval()
    inputs = [torch.randint(7, 12, (1, length)) for length in LENGTHS]

    @torch.no_grad()
    def run(ids):
        return model(ids)[0]

    expected = [run(ids) for ids in inputs]
    tolerance = 1e-12 * float(torch.cat(expected, 1).abs().max())

    def work(seed):
        random = Random(seed)
        for _ in range(calls):
            n = random.randrange(len(inputs))
            torch.testing.assert_close(run(inputs[n]), expected[n], rtol=0, atol=tolerance)
        return calls

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == THREADS * calls
