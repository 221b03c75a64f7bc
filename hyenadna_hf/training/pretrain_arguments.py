"""Arguments of `hyenadna pretrain`."""

from dataclasses import dataclass, field

from ..arguments import CommandParser
from ..hub.sizes import SIZE_NAMES
from ..loading import CHECKPOINTS, CheckpointArguments
from .runs import RunArguments


@dataclass
class GenomeArguments:
    fasta: list[str] = field(
        default_factory=list,
        metadata={
            "action": "extend",
            "help": "Genome: FASTA, plain, bgzip or gzip. Can be given several times.",
        },
    )
    weights: list[float] = field(
        default_factory=list,
        metadata={
            "help": "Relative sampling frequency of each genome, and then of --dataset (default: its number of "
            "training windows)."
        },
    )
    bed: list[str] = field(
        default_factory=list,
        metadata={
            "action": "extend",
            "help": "BED file for each genome, with train, validation or test in the fourth column.",
        },
    )
    validation: list[str] = field(
        default_factory=list,
        metadata={"help": "Without --bed: sequences or regions (chr7 chr9:1-5000000) for evaluation during training."},
    )
    test: list[str] = field(
        default_factory=list,
        metadata={"help": "Without --bed: sequences or regions for evaluation at the end. The rest is train."},
    )
    window: int | None = field(
        default=None,
        metadata={
            "help": "Bases that the model reads at once (default: its longest input less 2 special tokens).",
            "formerly": ["max_length"],
        },
    )
    both_strands: bool = field(
        default=False,
        metadata={
            "help": "In training, reverse-complement half of the windows at random.",
            "formerly": ["reverse_complement"],
        },
    )
    append_sep: bool = field(default=False, metadata={"help": "End each window with [SEP], as the paper does."})


@dataclass
class DataArguments(GenomeArguments):
    """Genomes, and sequences of other files."""

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Sequences to train on, alone or beside --fasta: CSV, TSV, JSON Lines, Parquet, FASTA or text with "
            "one sequence per line; one file, a folder with files train, validation, test, the common prefix of such "
            "files, or a Hub data set. Labels are ignored."
        },
    )
    sequence_column: str | None = field(
        default=None, metadata={"help": "Column of --dataset with the sequences (default: sequence, seq or dna)."}
    )
    validation_fraction: float = field(
        default=0.05,
        metadata={
            "help": "Fraction of train of --dataset to hold out if it has no validation split, 0 for none. Equal "
            "sequences and reverse complements stay together."
        },
    )
    test_fraction: float = field(
        default=0.05,
        metadata={"help": "Fraction of train of --dataset to hold out if it has no test split, 0 for none."},
    )


@dataclass
class PretrainedArguments(CheckpointArguments):
    model: str = field(
        default="hyenadna-tiny-1k-seqlen",
        metadata={
            "help": f"Model to train: a published size, from scratch ({', '.join(SIZE_NAMES)}), gpt (attention at the "
            "size of hyenadna-tiny-1k-seqlen, from scratch), or a language model with HyenaDNA's tokens, trained "
            f"further if it has weights: {CHECKPOINTS} (an adapter is merged into its base model)."
        },
    )
    objective: str = field(
        default="clm",
        metadata={
            "help": "clm: predict the next base, with a causal model; mlm: predict masked bases from both sides, with "
            "a bidirectional model (published sizes become bidirectional)."
        },
    )
    mlm_probability: float | None = field(
        default=None, metadata={"help": "For --objective mlm: fraction of the bases to mask (default: 0.15)."}
    )
    initial_length: int | None = field(
        default=None, metadata={"help": "Start with sequences of so many bases and double their length up to --window."}
    )
    length_warmup_steps: float = field(
        default=0.4, metadata={"help": "Steps until the last doubling; below 1, a fraction of all steps."}
    )


@dataclass
class PretrainArguments(RunArguments):
    """Arguments of transformers, with the settings of the paper as defaults."""

    output_dir: str = field(default="hyenadna-pretrained", metadata={"help": "Folder for the checkpoint."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the training bases."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Windows per step and device."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Windows per step and device in evaluation."})
    learning_rate: float = field(default=6e-4, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.1, metadata={"help": "Weight decay, except for filters, biases and norms."})
    min_lr_rate: float = field(
        default=0.1, metadata={"help": "Final learning rate of cosine_with_min_lr, as a fraction of the peak, 0 to 1."}
    )
    warmup_steps: float = field(default=0.01, metadata={"help": "Warm-up steps; below 1, a fraction of all steps."})
    eval_strategy: str = field(default="steps", metadata={"help": "When to evaluate on validation."})
    eval_steps: float | None = field(
        default=0.1, metadata={"help": "Steps between evaluations; below 1, a fraction of all steps."}
    )
    save_steps: float = field(
        default=0.1, metadata={"help": "Steps between checkpoints; below 1, a fraction of all steps."}
    )
    logging_steps: float = field(
        default=0.005, metadata={"help": "Steps between log entries; below 1, a fraction of all steps."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # One process reads for all, so that the n-th example is the same everywhere.
        self.accelerator_config.dispatch_batches = True


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna pretrain`."""
    return CommandParser(
        "pretrain",
        [DataArguments, PretrainedArguments, PretrainArguments],
        "Train a language model to predict the next or the masked nucleotides of genomes and other sequences.",
        "[--fasta GENOME ...] [--dataset DATA] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "--fasta hg38.fa --validation chr8 --test chr9 --bf16",
            "--fasta hg38.fa --fasta mm39.fa --bed human.bed --bed mouse.bed --weights 2 1",
            "--fasta hg38.fa --model hyenadna-large-1m-seqlen --initial_length 15625 --per_device_train_batch_size 1",
            "--dataset promoters.csv --objective mlm --both_strands",
        ],
    )
