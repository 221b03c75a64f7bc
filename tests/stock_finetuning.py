"""A fine-tuning script like the public ones for DNA language models: it knows only transformers and a model's name."""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

model_name, output_dir = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(
    model_name, model_max_length=64, padding_side="right", use_fast=True, trust_remote_code=True
)
config = AutoConfig.from_pretrained(model_name, num_labels=2, trust_remote_code=True)
model = AutoModelForSequenceClassification.from_pretrained(model_name, config=config, trust_remote_code=True)
sequences = ["ACGT" * length for length in range(4, 24)] + ["GGCA" * length for length in range(4, 24)]
encoded = tokenizer(sequences, padding="longest", truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
examples = [{"input_ids": torch.tensor(ids), "labels": i // 20} for i, ids in enumerate(encoded)]


def collate(rows):
    ids = torch.stack([row["input_ids"] for row in rows])
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": ids.ne(tokenizer.pad_token_id)}


arguments = TrainingArguments(output_dir, num_train_epochs=3, learning_rate=1e-3, report_to="none", seed=0)
trainer = Trainer(model, arguments, train_dataset=examples, eval_dataset=examples, data_collator=collate)
trainer.train()
trainer.save_model(output_dir)
tokenizer.save_pretrained(output_dir)
print(json.dumps([type(model).__module__, trainer.evaluate()["eval_loss"]]))
