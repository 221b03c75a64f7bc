"""A training script for one process or several: `plain.py FOLDER` leaves a model and `found.json` there."""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments, set_seed

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM

GLOBAL_BATCH = 8


def main(folder):
    set_seed(5)
    ids = torch.randint(7, 11, (3 * GLOBAL_BATCH, 40)).tolist()
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=64, embed_dropout=0.0))
    args = TrainingArguments(
        folder,
        max_steps=4,
        per_device_train_batch_size=GLOBAL_BATCH // 2 // int(os.environ.get("WORLD_SIZE", 1)),
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        adam_epsilon=1e-5,  # Adam divides by the size of a gradient, so rounding of tiny ones would make whole steps
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, args, train_dataset=Dataset.from_dict({"input_ids": ids, "labels": ids}))
    trainer.train()
    trainer.save_model()
    if trainer.is_world_process_zero():
        found = {
            "mode": str(trainer.accelerator.distributed_type.value),
            "wrapped": type(trainer.model_wrapped).__name__,
        }
        found["losses"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        Path(folder, "found.json").write_text(json.dumps(found))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(*sys.argv[1:])
