"""The stock Trainer, unchanged."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForMaskedLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """transformers 4 leaves the last run's precision in the environment."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")


TOKENIZER = HyenaDNATokenizer(model_max_length=64)
HEADS = {
    HyenaDNAForCausalLM: DataCollatorForLanguageModeling(TOKENIZER, mlm=False),
    HyenaDNAForMaskedLM: DataCollatorForLanguageModeling(TOKENIZER, mlm_probability=0.3),
    HyenaDNAForSequenceClassification: DataCollatorWithPadding(TOKENIZER),
    HyenaDNAForTokenClassification: DataCollatorForTokenClassification(TOKENIZER),
}


def sequences(model_class, count=32, equal_lengths=False):
    """Repeats of a class's own word: each head has something to learn."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for i in range(count):
        length = 32 if equal_lengths else int(torch.randint(8, 50, (1,), generator=generator))
        encoding = TOKENIZER((["ACG", "TTG"][i % 2] * 20)[:length])
        row = {"input_ids": encoding["input_ids"], "attention_mask": encoding["attention_mask"]}
        if model_class is HyenaDNAForSequenceClassification:
            row["labels"] = i % 2
        if model_class is HyenaDNAForTokenClassification:
            row["labels"] = [int(token == 9) for token in encoding["input_ids"]]
        rows.append(row)
    return Dataset.from_list(rows)


def train(model_class, folder, data, **options):
    set_seed(5)
    sizes = {"d_model": 16, "filter_order": 16, "max_seq_len": 64, "embed_dropout": 0.0}
    model = model_class(HyenaDNAConfig(**sizes, bidirectional=model_class is HyenaDNAForMaskedLM))
    settings = {"max_steps": 20, "per_device_train_batch_size": 8, "learning_rate": 3e-3, **options}
    arguments = TrainingArguments(
        str(folder), report_to="none", save_strategy="no", logging_steps=1, dataloader_pin_memory=False, **settings
    )
    trainer = Trainer(
        model, arguments, train_dataset=data, data_collator=HEADS[model_class], processing_class=TOKENIZER
    )
    trainer.train()
    return model, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("model_class", HEADS)
def test_it_learns(model_class, tmp_path):
    _, losses = train(model_class, tmp_path, sequences(model_class), max_steps=40, learning_rate=1e-2)
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


# Its name in transformers 4, if the newer one is not there.
CHECKPOINTING = (
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)


@pytest.mark.parametrize("options", [{"bf16": True, "use_cpu": True}, {CHECKPOINTING: True}])
def test_it_learns_in_bfloat16_and_with_gradient_checkpointing(options, tmp_path):
    data = sequences(HyenaDNAForSequenceClassification)
    _, losses = train(HyenaDNAForSequenceClassification, tmp_path, data, max_steps=30, **options)
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


# In transformers, the masks of a masked language model depend on the shape of the batch.
@pytest.mark.parametrize("model_class", [head for head in HEADS if head is not HyenaDNAForMaskedLM])
def test_gradient_accumulation_is_a_larger_batch(model_class, tmp_path):
    """Also where rows differ in length, for the heads whose loss is a mean over positions."""
    data = sequences(model_class, equal_lengths=model_class is HyenaDNAForSequenceClassification)
    whole, _ = train(model_class, tmp_path, data, max_steps=3)
    parts, _ = train(
        model_class, tmp_path, data, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        # Adam divides by the gradient's size, which makes rounding of tiny gradients visible in the weights.
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4, msg=name)
