"""What PEFT needs of the configuration and the masks."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNAForSequenceClassification

TASKS = {"CAUSAL_LM": HyenaDNAForCausalLM, "SEQ_CLS": HyenaDNAForSequenceClassification}


@pytest.mark.parametrize("task", TASKS)
def test_prompt_tuning_of_a_left_padded_row_is_that_of_the_row_alone(make_model, config, task):
    """PEFT's mask for such a row has a gap: prompt, padding, sequence."""
    model = get_peft_model(
        make_model(TASKS[task], config), PromptTuningConfig(task_type=task, num_virtual_tokens=5)
    ).eval()
    ids = torch.randint(7, 11, (1, 12))
    padded = torch.cat([torch.full((1, 4), 4), ids], dim=1)
    mask = (padded != 4).long()
    labels = {"CAUSAL_LM": ids, "SEQ_CLS": torch.tensor([1])}[task]
    alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    padded_labels = padded.masked_fill(mask == 0, -100) if task == "CAUSAL_LM" else labels
    together = model(input_ids=padded, attention_mask=mask, labels=padded_labels)
    torch.testing.assert_close(together.loss, alone.loss, rtol=0, atol=1e-5)
    logits = (
        torch.cat([together.logits[:, :5], together.logits[:, 9:]], dim=1) if task == "CAUSAL_LM" else together.logits
    )
    torch.testing.assert_close(logits, alone.logits, rtol=0, atol=1e-4)
    together.loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("prompt" in name for name in trained) and not any("backbone" in name for name in trained)


def test_lora(make_model, config, tmp_path):
    base = make_model(HyenaDNAForSequenceClassification, config)
    ids = torch.randint(7, 11, (2, 12))
    expected = base(ids).logits
    targets = ["in_proj", "out_proj", "fc1", "fc2", "implicit_filter.0"]
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=targets)).eval()
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    changed = model(input_ids=ids).logits
    assert (changed - expected).abs().max() > 1e-3
    torch.testing.assert_close(model.merge_and_unload()(ids).logits, changed, rtol=0, atol=1e-4)
