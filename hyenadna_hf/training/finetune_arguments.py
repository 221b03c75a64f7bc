"""Arguments of `hyenadna finetune`: options, settings from recipes, and checks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arguments import CommandParser
from ..data.files import HUB_ID
from ..data.labelled import BUNDLED
from ..errors import InputError
from ..model.configuration_hyenadna import CLASSIFIER_POOLINGS, HyenaDNAConfig
from ..model.tokenization_hyenadna import SPECIAL_TOKENS_MODES
from .classifier import ModelArguments
from .optimizer import MUON_RATIO
from .recipes import find_recipe, recipe_of
from .runs import RunArguments, check_run_folder, check_trainer_arguments

RESULTS_FILE = "results.json"
TASKS = ("classification", "regression", "token", "track")


@dataclass
class ClassifierArguments(ModelArguments):
    """The model, and changes to the configuration of HyenaDNA models."""

    classifier_pooling: str | None = field(
        default=None,
        metadata={
            "help": f"Pooling that the head reads: {', '.join(CLASSIFIER_POOLINGS)} (default: the model's, or mean)."
        },
    )
    embed_dropout: float | None = field(
        default=None, metadata={"help": "Dropout on the embeddings, 0 to 1 (default: the model's)."}
    )
    resid_dropout: float | None = field(
        default=None, metadata={"help": "Dropout on the output of each mixer and MLP, 0 to 1 (default: the model's)."}
    )
    bidirectional: bool | None = field(
        default=None,
        metadata={
            "help": "Also read the positions after each base, as HyenaDNA's bidirectional models do. The filters over "
            "later positions of a causal checkpoint start at zero (default: as the model is)."
        },
    )
    regression_loss: str | None = field(
        default=None,
        metadata={
            "help": "Loss of --task regression: mse, or poisson for counts, for HyenaDNA models only (default: mse)."
        },
    )

    def config_fields(self) -> dict[str, Any]:
        """Return the configuration fields that were set."""
        names = ("classifier_pooling", "embed_dropout", "resid_dropout", "bidirectional", "regression_loss")
        fields = {name: getattr(self, name) for name in names}
        return {name: value for name, value in fields.items() if value is not None}


@dataclass
class DataArguments:
    dataset: str = field(
        default="splice_sites_chr20",
        metadata={
            "help": "Labelled sequences: a folder with files train, validation, test; the common prefix of such files "
            "(x for x_train.csv.gz and x_test.csv.gz); one file; a data set that ships with the package "
            f"({', '.join(BUNDLED)}); a data set of GenomicBenchmarks or a task of the Nucleotide Transformer paper or "
            "GUE, by name (hyenadna data info lists them); or a Hub data set. CSV, TSV, Parquet, or FASTA with "
            "headers >name|label. For several labels per sequence, see --label_column."
        },
    )
    task: str = field(
        default="classification",
        metadata={
            "help": "classification; regression, for labels that are numbers; token, to classify every base by the "
            "intervals of --annotation; or track, to predict the values of --bigwig."
        },
    )
    recipe: str | None = field(
        default=None,
        metadata={
            "help": "Use the published settings of a data set for all arguments that are not given: a recipe name, "
            "auto for the recipe of --dataset if there is one, or list to print all recipes."
        },
    )
    sequence_column: str | None = field(
        default=None, metadata={"help": "Column with the sequences (default: sequence, seq or dna)."}
    )
    label_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the classes or numbers (default: label, class or target). For several labels per "
            "sequence, each 0 or 1, or several numbers, their columns separated by commas (CTCF,DNase); not needed for "
            "a save_to_disk folder with labels."
        },
    )
    fasta: str | None = field(
        default=None, metadata={"help": "For --task token or track: the genome as FASTA, plain, bgzip or gzip."}
    )
    annotation: str | None = field(
        default=None,
        metadata={
            "help": "For --task token: intervals of classes; BED, whose fourth column is the class, or GTF or GFF3, "
            "whose third column is. Other bases are background. Strands are ignored."
        },
    )
    features: list[str] = field(
        default_factory=list, metadata={"help": "For --task token: classes to use, such as exon (default: all)."}
    )
    multi_label: bool = field(
        default=False,
        metadata={"help": "For --task token: predict each class by itself, so that classes may overlap."},
    )
    bigwig: list[str] = field(
        default_factory=list, metadata={"help": "For --task track: bigWig files of counts or coverage, at least 0."}
    )
    bin_size: int = field(default=32, metadata={"help": "For --task track: bases over which values are averaged."})
    validation: list[str] = field(
        default_factory=list,
        metadata={"help": "For --task token or track: sequences or regions (chr7 chr9:1-5000000) for validation."},
    )
    test: list[str] = field(
        default_factory=list,
        metadata={
            "help": "For --task token or track: sequences or regions for the test. The other sequences with labels are "
            "train."
        },
    )
    window: int | None = field(
        default=None,
        metadata={
            "help": "For --task token or track: bases that the model reads at once (default: as many as it can)."
        },
    )
    label_groups: str | None = field(
        default=None,
        metadata={
            "help": "Groups of labels to report the median AUROC of: deepsea (TF, DHS and HM), or a JSON file "
            '{"group": ["label", ...]}.'
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={"help": "Longest input, in tokens; the rest is truncated (default: the longest of the model)."},
    )
    padding_side: str | None = field(default=None, metadata={"help": "left or right (default: the tokenizer's)."})
    reverse_complement: float = field(
        default=0.0, metadata={"help": "Probability of reverse-complementing a training sequence."}
    )
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Fraction of train to hold out if there is no validation split."}
    )
    test_fraction: float = field(
        default=0.2, metadata={"help": "Fraction of train to hold out if there is no test split."}
    )
    split_by_similarity: bool = field(
        default=False,
        metadata={
            "help": "Merge all splits and make new ones without shared near duplicates, with --validation_fraction and "
            "--test_fraction of all sequences."
        },
    )
    baselines: bool = field(
        default=True,
        metadata={
            "help": "Compare with the majority class or the mean, a linear model on 6-mer counts, position weight "
            "matrices and a CNN."
        },
    )


@dataclass
class FinetuneArguments(RunArguments):
    """
    Arguments of transformers, with defaults for HyenaDNA. (DNABERT and similar models need a learning rate near 3e-5.)
    """

    output_dir: str = field(default="hyenadna-finetuned", metadata={"help": "Folder for the checkpoint."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the training split."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sequences per step and device."})
    per_device_eval_batch_size: int = field(
        default=128, metadata={"help": "Sequences per step and device in evaluation."}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate of AdamW."})
    filter_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of HyenaDNA's filters (default: --learning_rate)."}
    )
    muon_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Update the weight matrices of HyenaDNA's blocks with Muon, at this peak learning rate, and all "
            f"other parameters with --optim; 0: no Muon (default: {MUON_RATIO:g} times --learning_rate, if --optim is "
            "AdamW and the matrices are not sharded)."
        },
    )
    weight_decay: float = field(
        default=0.1, metadata={"help": "Weight decay, except for HyenaDNA's filters, biases and norms."}
    )
    class_weights: str | None = field(
        default=None, metadata={"help": "balanced: weight the loss so that all classes count equally."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={
            "help": "Stop after so many evaluations without a better --metric_for_best_model (default: loss) "
            "on validation, and use the best checkpoint."
        },
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Resume with the remaining patience."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on validation."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint to resume from."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between log entries."})

    def __post_init__(self) -> None:
        if self.early_stopping_patience is not None:
            self.load_best_model_at_end = True
        super().__post_init__()


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna finetune`."""
    return CommandParser(
        "finetune",
        [ClassifierArguments, DataArguments, FinetuneArguments],
        "Fine-tune a sequence classifier or regressor and compare it with simple baselines on held-out sequences.",
        "[--dataset DATA] [--model MODEL] [--recipe NAME] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "",
            "--dataset my_data/ --num_train_epochs 10 --output_dir my_model",
            "--dataset my_data/ --model hyenadna-tiny-1k-seqlen --bf16",
            "--dataset mpra.tsv --task regression --label_column HepG2,K562",
            "--task token --fasta hg38.fa --annotation genes.gtf.gz --features exon --validation chr8 --test chr9",
            "--recipe list",
        ],
    )


def parse_arguments(argv: list[str]) -> tuple[ClassifierArguments, DataArguments, FinetuneArguments]:
    """
    Parse the arguments of `hyenadna finetune`. Command-line values override the recipe, which overrides the defaults.

    Args:
        argv: Command line after `hyenadna finetune`.

    Returns:
        The arguments of [`finetune`].

    Raises:
        InputError: If an argument or the recipe is unknown, or arguments contradict each other.
    """
    command = parser()
    values, _ = command.parse_known_args(argv)
    recipe = recipe_of(values.dataset) if values.recipe == "auto" else values.recipe
    if recipe not in (None, "list"):
        command.set_defaults(**find_recipe(recipe).arguments())
    model_args, data_args, training_args, _ = command.parse(argv)
    data_args.recipe = recipe
    return model_args, data_args, training_args


def check_arguments(model_args: ClassifierArguments, data_args: DataArguments, args: FinetuneArguments) -> None:
    """Raise an `InputError` for invalid arguments, before any work. Called by [`finetune`]."""
    if model_args.kmer is not None and model_args.kmer < 1:
        raise InputError(f"--kmer {model_args.kmer}: give at least 1.")
    if model_args.special_tokens_mode not in SPECIAL_TOKENS_MODES:
        raise InputError(
            f"--special_tokens_mode {model_args.special_tokens_mode}: choose one of {', '.join(SPECIAL_TOKENS_MODES)}."
        )
    try:
        HyenaDNAConfig(**model_args.config_fields())
    except ValueError as error:
        raise InputError(f"--{error}") from error
    for name in ("model", "tokenizer"):
        source = getattr(model_args, name)
        if source is not None and not Path(source).is_dir() and not HUB_ID.fullmatch(source):
            raise InputError(f"--{name} {source}: this is neither a folder nor a Hub id; check the path.")
    at_least_one = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    at_least_zero = ("learning_rate", "filter_learning_rate", "weight_decay")
    for name, least in {**dict.fromkeys(at_least_one, 1), **dict.fromkeys(at_least_zero, 0)}.items():
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise InputError(f"--{name} {value}: give at least {least}.")
    if not (args.num_train_epochs > 0 or args.max_steps > 0):
        raise InputError(f"--num_train_epochs {args.num_train_epochs}: give more than 0, or --max_steps.")
    if not 0 <= data_args.reverse_complement <= 1:
        raise InputError(f"--reverse_complement {data_args.reverse_complement}: give 0 to 1.")
    if data_args.padding_side not in (None, "left", "right"):
        raise InputError(f"--padding_side {data_args.padding_side}: choose left or right.")
    if args.class_weights not in (None, "balanced"):
        raise InputError(f"--class_weights {args.class_weights}: give balanced or omit it.")
    if args.early_stopping_patience is not None and args.early_stopping_patience < 1:
        raise InputError(f"--early_stopping_patience {args.early_stopping_patience}: give at least 1.")
    _check_task(model_args, data_args, args)
    check_trainer_arguments(args)
    check_run_folder(args, RESULTS_FILE)


def _check_task(model_args: ClassifierArguments, data_args: DataArguments, args: FinetuneArguments) -> None:
    if data_args.task not in TASKS:
        raise InputError(f"--task {data_args.task}: choose one of {', '.join(TASKS)}.")
    _check_token_arguments(model_args, data_args)
    if data_args.task not in ("regression", "track"):
        if model_args.regression_loss is not None:
            raise InputError(f"--regression_loss {model_args.regression_loss}: add --task regression, or omit it.")
        return
    if data_args.task == "track" and model_args.regression_loss not in (None, "poisson"):
        raise InputError(f"--regression_loss {model_args.regression_loss}: tracks have the Poisson loss; omit it.")
    unsuitable = {
        "class_weights": args.class_weights,
        "label_smoothing_factor": args.label_smoothing_factor,
        "label_groups": data_args.label_groups,
    }
    for name, value in unsuitable.items():
        if value:
            raise InputError(f"--{name} {value}: only classes have them; omit it with --task {data_args.task}.")


def _check_token_arguments(model_args: ClassifierArguments, args: DataArguments) -> None:
    of_token, of_track = ("annotation", "features", "multi_label"), ("bigwig",)
    of_genome = ("fasta", "validation", "test", "window")
    for names, tasks in ((of_token, ["token"]), (of_track, ["track"]), (of_genome, ["token", "track"])):
        given = next((name for name in names if getattr(args, name)), None)
        if given and args.task not in tasks:
            raise InputError(f"--{given}: it belongs to --task {' or '.join(tasks)}; change --task, or omit it.")
    if args.task not in ("token", "track"):
        return
    of_sequences = ("dataset", "recipe", "sequence_column", "label_column", "label_groups", "max_length")
    values = {name: (getattr(args, name), getattr(DataArguments(), name)) for name in of_sequences}
    values |= {
        name: (getattr(model_args, name), getattr(ClassifierArguments(), name))
        for name in ("kmer", "classifier_pooling", "special_tokens_mode")
    }
    values["split_by_similarity"] = args.split_by_similarity, False
    for name, (value, default) in values.items():
        if value != default:
            raise InputError(f"--{name} {value}: it has no effect with --task {args.task}; omit it.")


def check_metric(args: FinetuneArguments, names: list[str]) -> None:
    """Raise an `InputError` if `metric_for_best_model` is neither the loss nor one of the metrics `names`."""
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") not in ("loss", *names):
        raise InputError(
            f"--metric_for_best_model {metric}: for this data set, choose one of {', '.join(('loss', *names))}."
        )
