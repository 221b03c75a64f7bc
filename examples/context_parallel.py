"""
Train a language model on sequences that are shared by all processes, each with a stretch of every sequence.

    torchrun --nproc_per_node 8 examples/context_parallel.py --model hyenadna-large-1m-seqlen --length 1000000

The data are random bases: put your own windows in their place. With --context_size 4 on 8 processes there are two
groups of 4, with a batch each.
"""

from dataclasses import dataclass, field

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments, set_seed

import hyenadna_hf  # noqa: F401  (registers the classes)
from hyenadna_hf.distributed import context_parallel_trainer
from hyenadna_hf.hub.sizes import published_config


@dataclass
class Arguments:
    model: str = field(default="hyenadna-large-1m-seqlen", metadata={"help": "A published size, from random weights."})
    length: int = field(default=1_000_000, metadata={"help": "Bases of a sequence."})
    sequences: int = field(default=64, metadata={"help": "How many."})
    context_size: int | None = field(default=None, metadata={"help": "Processes that share a sequence; default: all."})


@dataclass
class Settings(TrainingArguments):
    output_dir: str = field(default="context-parallel", metadata={"help": "Where the checkpoint goes."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Sequences a step and group."})
    gradient_checkpointing: bool = field(default=True, metadata={"help": "Compute activations again for the gradient."})
    logging_steps: float = field(default=1, metadata={"help": "Steps between two lines of the log."})
    report_to: str | None = field(default="none", metadata={"help": "Trackers to report to."})


def main():
    arguments, settings = HfArgumentParser((Arguments, Settings)).parse_args_into_dataclasses()
    set_seed(settings.seed)
    model = AutoModelForCausalLM.from_config(published_config(arguments.model))
    bases = torch.randint(7, 11, (arguments.sequences, arguments.length)).tolist()
    trainer = Trainer(model, settings, train_dataset=Dataset.from_dict({"input_ids": bases, "labels": bases}))
    with context_parallel_trainer(trainer, arguments.context_size or settings.world_size):
        trainer.train()
    trainer.save_model()
    trainer.accelerator.wait_for_everyone()  # on CPUs, PyTorch may abort a process that ends before the others


if __name__ == "__main__":
    main()
