"""
Trainer runs that must end alike however many processes share the work, the batch or the sequences.

`train.py FOLDER` writes to `FOLDER/results.pt` the losses, the weights and what `predict` gives, for each head and size
of context; the last head's runs also resume half-way, and read their rows from streams.
"""

import sys
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
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
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.data.streams import WindowStream
from hyenadna_hf.distributed import context_parallel_trainer
from hyenadna_hf.errors import InputError

# Padding on the right: with padding before it, the first base of a row counts among the scored ones of the Trainer.
TOKENIZER = HyenaDNATokenizer(model_max_length=64, padding_side="right")
HEADS = {
    "causal": (HyenaDNAForCausalLM, DataCollatorForLanguageModeling(TOKENIZER, mlm=False)),
    "classifier": (HyenaDNAForSequenceClassification, DataCollatorWithPadding(TOKENIZER)),
    "tokens": (HyenaDNAForTokenClassification, DataCollatorForTokenClassification(TOKENIZER)),
}
GLOBAL_BATCH = 8
STEPS = 4
RESUMES = not transformers.__version__.startswith(
    "4."
)  # which asks torch.load for a device "cpu:0" in several processes


def rows(head, count):
    """Rows of different lengths, some of them hardly labelled: ranks do not score equally many tokens."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for i in range(count):
        length = int(torch.randint(8, 50, (1,), generator=generator))
        ids = torch.randint(7, 11, (length,), generator=generator)
        row = {"input_ids": ids.tolist(), "attention_mask": [1] * length}
        if head == "classifier":
            row["labels"] = i % 2
        if head == "tokens":
            row["labels"] = (ids == 9).long().masked_fill(torch.arange(length) > 3 * i, -100).tolist()
        found.append(row)
    return Dataset.from_list(found)


class Stream(WindowStream):
    """Rows by number, in their order."""

    def __init__(self, rows, **share):
        super().__init__(shuffle=False, **share)
        self.rows = rows

    def size(self):
        return len(self.rows)

    def example(self, index):
        return self.rows[index]


def run(folder, head, context_size, resume_from=None, as_data=lambda rows: rows):
    model_class, collator = HEADS[head]
    set_seed(5)
    model = model_class(HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=64, embed_dropout=0.0))
    args = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=GLOBAL_BATCH // 2 * context_size // PartialState().num_processes,
        per_device_eval_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        adam_epsilon=1e-5,  # Adam divides by the size of a gradient, so rounding of tiny ones would make whole steps
        save_steps=STEPS // 2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
        label_names=["labels"],
    )
    data = {"train_dataset": as_data(rows(head, 3 * GLOBAL_BATCH)), "eval_dataset": as_data(rows(head, 7))}
    trainer = Trainer(model, args, data_collator=collator, **data)
    with context_parallel_trainer(trainer, context_size):
        trainer.train(resume_from_checkpoint=resume_from)
        predictions = trainer.predict(trainer.eval_dataset)
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "predictions": torch.from_numpy(predictions.predictions),
        "test_loss": predictions.metrics["test_loss"],
    }


STREAMS = {
    "datasets stream": lambda rows: rows.to_iterable_dataset(),
    "our stream": lambda rows: Stream(rows, rank=0, world_size=1),
}


def main(folder):
    state = PartialState(cpu=True)
    results = {}
    for context_size in sorted({1, state.num_processes}):
        for head in HEADS:
            output = Path(folder, f"{head}-{context_size}")
            results[f"{head}, context {context_size}"] = run(output, head, context_size)
        if RESUMES or state.num_processes == 1:
            middle = str(output / f"checkpoint-{STEPS // 2}")
            results[f"{head}, context {context_size}, resumed"] = run(output, head, context_size, middle)
    for name, as_data in STREAMS.items():
        results[f"{name}, context {context_size}"] = run(output, head, context_size, as_data=as_data)
    if state.num_processes > 1:  # where a stream shares itself out
        try:
            run(output, head, state.num_processes, as_data=Stream)
        except InputError as error:
            assert "create it with rank=0, world_size=1" in str(error), error
        else:
            raise AssertionError("not refused")
    if state.is_main_process:
        torch.save(results, Path(folder, "results.pt"))
    state.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
