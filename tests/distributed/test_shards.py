"""What needs no second process."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.distributed import context_parallel_trainer
from hyenadna_hf.errors import InputError
from hyenadna_hf.model.filter_hyenadna import HyenaDNAFilter


@pytest.mark.parametrize("trained_positions", [False, True])
def test_a_stretch_of_a_filter_is_that_of_the_whole(trained_positions, config):
    config.trained_positions = trained_positions
    filters = HyenaDNAFilter(config).double()
    if trained_positions:
        torch.nn.init.normal_(filters.pos_emb.z)
    whole = filters(torch.arange(config.max_seq_len))
    stretches = [filters(torch.arange(start, start + 10)) for start in range(0, config.max_seq_len, 10)]
    torch.testing.assert_close(torch.cat(stretches, dim=-1), whole, rtol=0, atol=1e-12)


def test_a_trainer_of_one_process(config, tmp_path):
    model = HyenaDNAForCausalLM(config)
    trainer = Trainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    with pytest.raises(InputError, match="context_size=2: 1 processes"), context_parallel_trainer(trainer, 2):
        pass
    with context_parallel_trainer(trainer, 1):
        assert not model._forward_pre_hooks
