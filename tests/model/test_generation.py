import pytest
import torch

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("by_embeddings", [False, True])
def test_each_step_is_a_full_forward_over_the_sequence_so_far(make_model, order, by_embeddings):
    config = HyenaDNAConfig(d_model=12, max_seq_len=40, embed_dropout=0.0, hyena_order=order)
    model = make_model(HyenaDNAForCausalLM, config)
    ids = torch.randint(7, 11, (2, 10))
    ids[0, :4] = 4
    mask = (ids != 4).long()
    prompt = {"inputs_embeds": model.get_input_embeddings()(ids)} if by_embeddings else {"input_ids": ids}
    generated = model.generate(**prompt, attention_mask=mask, max_new_tokens=9, do_sample=False, eos_token_id=None)
    sequence = ids
    with torch.no_grad():
        for _ in range(9):
            following = model(sequence, mask).logits[:, -1].argmax(-1, keepdim=True)
            sequence = torch.cat([sequence, following], dim=1)
            mask = torch.cat([mask, torch.ones_like(following)], dim=1)
    assert torch.equal(generated, sequence[:, 10:] if by_embeddings else sequence)
