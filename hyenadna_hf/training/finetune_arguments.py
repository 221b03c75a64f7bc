"""The arguments of `hyenadna finetune`: options, the settings of recipes, and checks."""

from dataclasses import dataclass, field
from pathlib import Path

from ..arguments import CommandParser
from ..data.files import HUB_ID
from ..data.labelled import BUNDLED
from ..errors import InputError
from ..model.configuration_hyenadna import CLASSIFIER_POOLINGS, HyenaDNAConfig
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES
from .classifier import ModelArguments
from .recipes import find_recipe, recipe_of
from .runs import RunArguments, check_run_folder, check_trainer_arguments

RESULTS_FILE = "results.json"


@dataclass
class ClassifierArguments(ModelArguments):
    """The model, and changes to its configuration, for HyenaDNA only."""

    classifier_pooling: str | None = field(
        default=None,
        metadata={
            "help": f"What the head reads: {', '.join(CLASSIFIER_POOLINGS)} (default: the model's; mean if new)."
        },
    )
    embed_dropout: float | None = field(
        default=None, metadata={"help": "Dropout on the embeddings, 0 to 1 (default: the model's)."}
    )
    resid_dropout: float | None = field(
        default=None, metadata={"help": "Dropout on the output of each mixer and MLP, 0 to 1 (default: the model's)."}
    )

    def config_fields(self):
        """The given values by the name of the field."""
        asked = {name: getattr(self, name) for name in ("classifier_pooling", "embed_dropout", "resid_dropout")}
        return {name: value for name, value in asked.items() if value is not None}


@dataclass
class DataArguments:
    dataset: str = field(
        default="splice_sites_chr20",
        metadata={
            "help": "Labelled sequences: a folder with files train, validation, test; the common beginning of files "
            "named so (x for x_train.csv.gz and x_test.csv.gz); one file; a set that ships with the package "
            f"({', '.join(BUNDLED)}); a set of GenomicBenchmarks or a task of the Nucleotide Transformer paper or of "
            "GUE, by its name (hyenadna data info lists them); or a Hub data set. CSV, TSV, Parquet, or FASTA with "
            "headers >name|label. With several labels a sequence: see --label_column."
        },
    )
    recipe: str | None = field(
        default=None,
        metadata={
            "help": "Take the published settings of a data set for all that is not given here: the name of a recipe, "
            "auto for that of --dataset where there is one, or list to print them."
        },
    )
    sequence_column: str | None = field(default=None, metadata={"help": "Default: sequence, seq or dna."})
    label_column: str | None = field(
        default=None,
        metadata={
            "help": "Default: label, class or target. Several, with commas between (CTCF,DNase), are labels that each "
            "are 0 or 1; a data set with a list column labels, saved by save_to_disk, has them without this."
        },
    )
    label_groups: str | None = field(
        default=None,
        metadata={
            "help": "Groups of labels to give the median AUROC of: deepsea (TF, DHS and HM of its 919), or a JSON file "
            '{"group": ["label", ...]}.'
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "Longest input, in tokens; the rest is cut off (default: the model's longest)."},
    )
    padding_side: str | None = field(default=None, metadata={"help": "left or right (default: the tokenizer's)."})
    reverse_complement: float = field(
        default=0.0, metadata={"help": "Probability with which a training sequence is read on the other strand."}
    )
    validation_fraction: float = field(default=0.1, metadata={"help": "Held out of train if there is no validation."})
    test_fraction: float = field(default=0.2, metadata={"help": "Held out of train if there is no test split."})
    split_by_similarity: bool = field(
        default=False,
        metadata={
            "help": "Merge all splits and make new ones that share no near duplicates, of --validation_fraction and "
            "--test_fraction of all sequences."
        },
    )
    baselines: bool = field(
        default=True,
        metadata={
            "help": "Also train and score the majority class, a linear model on 6-mer counts, a position weight matrix "
            "and the CNN of GenomicBenchmarks."
        },
    )


@dataclass
class FinetuneArguments(RunArguments):
    """Those of transformers, with defaults for HyenaDNA. (DNABERT and the like need a learning rate near 3e-5.)"""

    output_dir: str = field(default="hyenadna-finetuned", metadata={"help": "Where the checkpoint goes."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "Passes over the training split."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sequences a step and device."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Sequences a step and device, evaluating."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    filter_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of HyenaDNA's filters (default: --learning_rate)."}
    )
    weight_decay: float = field(default=0.1, metadata={"help": "Not of HyenaDNA's filters, nor of biases and norms."})
    class_weights: str | None = field(
        default=None, metadata={"help": "balanced: weigh the loss so that every class counts the same."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations in a row without a better --metric_for_best_model (default: loss) "
            "on validation, and take the best checkpoint."
        },
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Resume with the patience that was left."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on validation."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint to resume from."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two lines of the log."})

    def __post_init__(self) -> None:
        if self.early_stopping_patience is not None:
            self.load_best_model_at_end = True
        super().__post_init__()


def parser():
    """The arguments of `hyenadna finetune`."""
    return CommandParser(
        "finetune",
        [ClassifierArguments, DataArguments, FinetuneArguments],
        "Fine-tune a sequence classifier and compare it with simple baselines on held-out sequences.",
        "[--dataset DATA] [--model MODEL] [--recipe NAME] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "",
            "--dataset my_data/ --num_train_epochs 10 --output_dir my_model",
            "--dataset my_data/ --model hyenadna-tiny-1k-seqlen --bf16",
            "--recipe list",
        ],
    )


def parse_arguments(argv: list[str]) -> tuple:
    """
    Parse the arguments of `hyenadna finetune`. Given values override the recipe, and the recipe overrides defaults.

    Args:
        argv: The command line, after `hyenadna finetune`.

    Returns:
        [`ClassifierArguments`], [`DataArguments`] and [`FinetuneArguments`], as [`finetune`] takes them.

    Raises:
        InputError: If an argument or the recipe is unknown, or arguments contradict each other.
    """
    command = parser()
    asked, _ = command.parse_known_args(argv)
    recipe = recipe_of(asked.dataset) if asked.recipe == "auto" else asked.recipe
    if recipe not in (None, "list"):
        command.set_defaults(**find_recipe(recipe).arguments())
    model_args, data_args, training_args, _ = command.parse(argv)
    data_args.recipe = recipe
    return model_args, data_args, training_args


def check_arguments(model_args, data_args, args) -> None:
    """Raise an `InputError` for arguments that are invalid, before any work; [`finetune`] calls it."""
    if model_args.kmer is not None and model_args.kmer < 1:
        raise InputError(f"--kmer {model_args.kmer}: a word has at least one base.")
    if model_args.special_tokens_mode not in SPECIAL_TOKENS_MODES:
        raise InputError(
            f"--special_tokens_mode {model_args.special_tokens_mode}: it is one of {', '.join(SPECIAL_TOKENS_MODES)}."
        )
    try:
        HyenaDNAConfig(**model_args.config_fields())
    except ValueError as error:
        raise InputError(f"--{error}") from error
    for name in ("model", "tokenizer"):
        source = getattr(model_args, name)
        if source is not None and not Path(source).is_dir() and not HUB_ID.fullmatch(source):
            raise InputError(f"--{name} {source}: there is no such folder, and it is no Hub id; check the path.")
    at_least_one = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    at_least_zero = ("learning_rate", "filter_learning_rate", "weight_decay")
    for name, least in {**dict.fromkeys(at_least_one, 1), **dict.fromkeys(at_least_zero, 0)}.items():
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise InputError(f"--{name} {value}: give {least} or more.")
    if not (args.num_train_epochs > 0 or args.max_steps > 0):
        raise InputError(f"--num_train_epochs {args.num_train_epochs}: give more than 0, or --max_steps.")
    if not 0 <= data_args.reverse_complement <= 1:
        raise InputError(f"--reverse_complement {data_args.reverse_complement}: give 0 to 1.")
    if data_args.padding_side not in (None, "left", "right"):
        raise InputError(f"--padding_side {data_args.padding_side}: it is left or right.")
    if args.class_weights not in (None, "balanced"):
        raise InputError(f"--class_weights {args.class_weights}: it is balanced, or left out.")
    if args.early_stopping_patience is not None and args.early_stopping_patience < 1:
        raise InputError(f"--early_stopping_patience {args.early_stopping_patience}: give 1 or more.")
    check_trainer_arguments(args)
    check_run_folder(args, RESULTS_FILE)


def check_metric(args, names: list[str]) -> None:
    """Raise an `InputError` if checkpoints are to be chosen by none of the metrics `names` (a list of `str`)."""
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") not in ("loss", *names):
        raise InputError(
            f"--metric_for_best_model {metric}: for these data it is one of {', '.join(('loss', *names))}."
        )
