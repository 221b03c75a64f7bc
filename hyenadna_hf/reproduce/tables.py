"""Published tables: their figures, and the model and data of each cell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.genomic_benchmarks import GENOMIC_BENCHMARKS
from ..data.nucleotide_transformer import GUE_TASKS, NUCLEOTIDE_TRANSFORMER_TASKS
from ..training.optimizer import MUON_RATIO


@dataclass(frozen=True)
class Model:
    """
    Model of a column.

    Attributes:
        source: Value of `--model`, for all data sets or by data set; `None` without public weights.
        arguments: Further arguments of every command.
        training: Further arguments of fine-tuning.
    """

    source: str | dict[str, str] | None
    arguments: tuple[str, ...] = ()
    training: tuple[str, ...] = ()

    def source_for(self, dataset: str) -> str | None:
        """Return the value of `--model` for a data set, or `None`."""
        return self.source.get(dataset) if isinstance(self.source, dict) else self.source


@dataclass(frozen=True)
class Row:
    """Line of a table: a metric on a data set."""

    dataset: str
    metric: str
    scale: float = 100.0  # figures are in percent
    digits: int = 1  # after the decimal point


@dataclass(frozen=True)
class Table:
    """
    Published table.

    Attributes:
        title: Title of the table.
        kind: Command that a cell runs: `finetune`, `probe`, `bits`, `soft-prompt`, `few-shot` or `warm-up`.
        data: Kind of the data sets: `labelled`, `species`, `biotypes`, `chromatin` or `genomes`.
        rows: Rows by name; empty if the user names the data sets.
        models: Columns by name.
        published: Published figures by row and model.
        arguments: Further arguments of every cell.
        note: Remarks on the published figures.
    """

    title: str
    kind: str
    data: str
    rows: dict[str, Row]
    models: dict[str, Model]
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    note: str = ""


def _figures(text: str) -> dict[str, dict[str, float]]:
    """Parse a table of words into figures by row and column; `-` means no figure."""
    head, *lines = (line.split() for line in text.strip().splitlines())
    return {row: {name: float(x) for name, x in zip(head, figures) if x != "-"} for row, *figures in lines}


# HyenaDNA paper (Nguyen et al. 2023), tables 4.1 and A.5: accuracy, %.
_GENOMIC_BENCHMARKS = _figures("""
                                 cnn  dnabert gpt-main gpt  gpt-pretrained hyenadna hyenadna-pretrained hyenadna-kmer hyenadna-bidirectional
dummy_mouse_enhancers_ensembl    69.0 66.9    80.1     79.3 79.3           84.7     85.1                81.8          80.6
demo_coding_vs_intergenomic_seqs 87.6 92.5    88.8     89.3 91.2           90.9     91.3                86.7          90.3
demo_human_or_worm               93.0 96.5    95.6     94.8 96.6           96.4     96.6                92.9          95.9
human_enhancers_cohn             69.5 74.0    70.5     67.7 72.9           72.9     74.2                69.8          72.1
human_enhancers_ensembl          68.9 85.7    83.5     79.0 88.3           85.7     89.2                88.0          85.9
human_ensembl_regulatory         93.3 88.1    91.5     90.2 91.8           90.4     93.8                90.2          89.1
human_nontata_promoters          84.6 85.6    87.7     85.2 90.1           93.3     96.6                83.5          88.5
human_ocr_ensembl                68.0 75.1    73.0     68.3 79.9           78.8     80.9                70.2          75.3
""")  # noqa: E501

# The same paper, table 4.2: MCC or macro F1, %.
_NUCLEOTIDE_TRANSFORMER = _figures("""
                       nt-500m nt-2.5b-human nt-2.5b-species hyenadna-pretrained
enhancers              53.5    59.3          58.0            62.6
enhancers_types        48.5    50.0          47.4            55.7
H3                     73.7    77.6          81.4            81.7
H3K4me1                35.8    44.5          55.9            57.1
H3K4me2                28.1    30.0          32.6            53.9
H3K4me3                26.3    28.1          42.1            61.2
H3K9ac                 46.2    50.8          57.5            65.1
H3K14ac                37.7    47.1          55.0            66.3
H3K36me3               46.7    53.3          63.2            65.3
H3K79me3               57.7    59.2          64.2            71.6
H4                     76.2    78.9          82.2            79.6
H4ac                   34.4    42.3          50.1            63.7
promoter_all           95.4    96.6          97.4            96.5
promoter_no_tata       95.6    96.9          97.7            96.6
promoter_tata          94.8    95.8          96.4            96.7
splice_sites_acceptors 96.5    98.5          99.0            96.6
splice_sites_donors    97.2    98.2          98.4            97.3
splice_sites_all       97.2    97.8          98.3            97.9
""")

# Median AUROC of a group of labels, %, on windows of 1,000 and 8,000 bases.
_CHROMATIN = _figures("""
       deepsea-cnn bigbird hyenadna
TF,1k  95.8        -       96.4
DHS,1k 92.3        -       93.0
HM,1k  85.6        -       86.3
TF,8k  -           96.1    95.5
DHS,8k -           92.1    91.7
HM,8k  -           88.7    89.3
""")

# Accuracy, %, of classifying five species by windows of this length.
_SPECIES = _figures("""
     gpt  hyenadna-pretrained
1k   55.4 61.1
32k  88.9 93.4
250k -    97.9
450k -    99.4
1M   -    99.5
""")

# F1, %, of ten biotypes.
_BIOTYPES = _figures("""
         dnabert nt-500m hyenadna-pretrained
biotypes 64.6    66.5    72.0
""")

# AUROC, %, of a classifier on mean frozen hidden states; Nature Communications 16:10780 (2025), tables 1 to 3.
_FROZEN = _figures("""
                        dnabert-2 nt-v2 hyenadna-pretrained caduceus-ph grover
prom_core_all           83.11     85.27 83.20               87.48       85.06
tf_0                    83.82     83.15 83.01               87.96       86.18
prom_300_tata           76.46     77.91 80.77               76.00       78.00
human_nontata_promoters 92.97     89.05 92.80               94.26       93.95
human_enhancers_cohn    82.23     78.94 77.54               82.10       81.61
human_ocr_ensembl       72.53     71.83 71.91               76.50       74.55
human_enhancers_ensembl 93.69     93.89 93.56               94.31       93.82
""")

# Encoders are fine-tuned at a lower learning rate than HyenaDNA, and count positions from the left.
_ENCODER: dict[str, Any] = {
    "arguments": ("--trust_remote_code",),
    "training": ("--learning_rate", "3e-5", "--padding_side", "right"),
}

MODELS = {
    "cnn": Model("cnn"),
    "deepsea-cnn": Model("deepsea-cnn"),
    "gpt": Model("gpt"),
    "gpt-pretrained": Model(None),
    "hyenadna": Model("hyenadna-tiny-1k-seqlen"),
    "hyenadna-pretrained": Model("LongSafari/hyenadna-tiny-1k-seqlen-hf"),
    "hyenadna-kmer": Model("hyenadna-kmer"),
    "hyenadna-bidirectional": Model("hyenadna-bidirectional"),
    "dnabert": Model("zhihan1996/DNA_bert_6", ("--kmer", "6", "--trust_remote_code"), _ENCODER["training"]),
    "nt-500m": Model("InstaDeepAI/nucleotide-transformer-500m-human-ref", **_ENCODER),
    "nt-2.5b-human": Model("InstaDeepAI/nucleotide-transformer-2.5b-1000g", **_ENCODER),
    "nt-2.5b-species": Model("InstaDeepAI/nucleotide-transformer-2.5b-multi-species", **_ENCODER),
    "bigbird": Model("AIRI-Institute/gena-lm-bigbird-base-t2t", **_ENCODER),
}
# Length in bases of the windows of each species data set.
WINDOW_LENGTHS = {"1k": 1_024, "32k": 32_768, "250k": 250_000, "450k": 450_000, "1M": 1_000_000}
_D256 = "hyenadna-tiny-1k-seqlen-d256"
_SIZE_BY_LENGTH = {
    "1k": "hyenadna-tiny-1k-seqlen",
    "32k": "hyenadna-small-32k-seqlen",
    "250k": "hyenadna-medium-450k-seqlen",
    "450k": "hyenadna-medium-450k-seqlen",
    "1M": "hyenadna-large-1m-seqlen",
}


def _choose(figures: Mapping[str, Mapping[str, float]], *names: str, **renamed: str) -> dict[str, dict[str, float]]:
    """Select the named columns of a table; keyword arguments map new names to names in the table."""
    old = {**{name: name for name in names}, **renamed}
    return {row: {new: cells[name] for new, name in old.items() if name in cells} for row, cells in figures.items()}


def _models(*names: str, **others: Model) -> dict[str, Model]:
    return {name: MODELS[name] for name in names} | others


def _with_muon(learning_rate: float) -> tuple[str, ...]:
    """Return the arguments of fine-tuning with Muon, which the published recipes leave out."""
    return ("--learning_rate", f"{learning_rate:g}", "--muon_learning_rate", f"{MUON_RATIO * learning_rate:g}")


_ABLATED = ("gpt", "gpt-pretrained", "hyenadna", "hyenadna-pretrained", "hyenadna-kmer", "hyenadna-bidirectional")
_NO_FIGURES = "The paper shows curves without numbers."

TABLES = {
    "genomic-benchmarks": Table(
        "GenomicBenchmarks",
        "finetune",
        "labelled",
        {name: Row(name, GENOMIC_BENCHMARKS[name].metric) for name in _GENOMIC_BENCHMARKS},
        _models("cnn", "dnabert", "gpt-pretrained", "hyenadna-pretrained"),
        _choose(_GENOMIC_BENCHMARKS, "cnn", "dnabert", "hyenadna-pretrained", **{"gpt-pretrained": "gpt-main"}),
        note="The published figures are those of the best epoch on the test split; ours never select on it.",
    ),
    "gb-ablations": Table(
        "GenomicBenchmarks: effect of pretraining, single nucleotides and causality",
        "finetune",
        "labelled",
        {name: Row(name, GENOMIC_BENCHMARKS[name].metric) for name in _GENOMIC_BENCHMARKS},
        _models(*_ABLATED),
        _choose(_GENOMIC_BENCHMARKS, "cnn", *_ABLATED),
        note="The published figures are those of the best epoch on the test split; ours never select on it.",
    ),
    "nucleotide-transformer": Table(
        "The 18 tasks of the Nucleotide Transformer",
        "finetune",
        "labelled",
        {name: Row(name, NUCLEOTIDE_TRANSFORMER_TASKS[name].metric) for name in _NUCLEOTIDE_TRANSFORMER},
        _models("nt-500m", "nt-2.5b-human", "nt-2.5b-species")
        | {"hyenadna": Model(_D256), "hyenadna-pretrained": Model(f"LongSafari/{_D256}-hf")},
        _NUCLEOTIDE_TRANSFORMER,
    ),
    "chromatin": Table(
        "Chromatin profiles: median AUROC of transcription factors, DNase and histone marks",
        "finetune",
        "chromatin",
        {name: Row(name.partition(",")[2], f"auroc_{name.partition(',')[0]}") for name in _CHROMATIN},
        _models("deepsea-cnn", "bigbird")
        | {"hyenadna": Model({"1k": "hyenadna-tiny-1k-seqlen", "8k": "hyenadna-small-32k-seqlen"})},
        _CHROMATIN,
        ("--label_groups", "deepsea"),
        note="The published HyenaDNA has 7 M parameters at 1k and 3.5 M at 8k. Its BigBird was trained on 8,000 bases; "
        "the one available on the Hub is that of GENA-LM.",
    ),
    "species": Table(
        "Species classification",
        "finetune",
        "species",
        {length: Row(length, "accuracy") for length in _SPECIES},
        _models("gpt")
        | {"hyenadna-pretrained": Model({k: f"LongSafari/{v}-hf" for k, v in _SIZE_BY_LENGTH.items()})}
        | {"hyenadna": Model(_SIZE_BY_LENGTH)},
        _SPECIES,
        note="Published: human, lemur, mouse, pig and hippo; the Transformer has figures at 1k and 32k only.",
    ),
    "biotypes": Table(
        "Biotypes of genes, by gradient-boosted trees on mean embeddings",
        "probe",
        "biotypes",
        {"biotypes": Row("biotypes", "f1_weighted, all")},
        _models("dnabert", "nt-500m") | {"hyenadna-pretrained": Model("LongSafari/hyenadna-medium-160k-seqlen-hf")},
        _BIOTYPES,
        ("--probe", "boosted", "--picture"),
        note="Ours is F1 weighted by class, of scikit-learn's histogram gradient boosting on sequences truncated to "
        "the maximum length of the model. The weighting of the published figure and its size of NT are our reading.",
    ),
    "soft-prompt": Table(
        "Soft prompts",
        "soft-prompt",
        "labelled",
        {},
        _models("hyenadna-pretrained"),
        arguments=("--prompt_position", "published"),
        note=_NO_FIGURES,
    ),
    "few-shot": Table(
        "Few-shot prompting", "few-shot", "labelled", {}, _models("hyenadna-pretrained"), note=_NO_FIGURES
    ),
    "warm-up": Table(
        "Pretraining with and without sequence-length warm-up, then species classification",
        "warm-up",
        "species",
        {
            f"{length}, {name}": Row(length, metric, scale)
            for length in WINDOW_LENGTHS
            for name, metric, scale in (("accuracy", "accuracy", 100.0), ("pretraining, s", "pretraining_seconds", 1.0))
        },
        {"full length": Model(_SIZE_BY_LENGTH), "warm-up": Model(_SIZE_BY_LENGTH)},
        note="Published, at 450k: 40 % less training time and 7.5 points more accuracy with warm-up.",
    ),
    "probe": Table(
        "Linear models on mean embeddings, of all training sequences or a few per class",
        "probe",
        "labelled",
        {},
        _models("hyenadna", "hyenadna-pretrained"),
        arguments=("--shots", "4", "16", "64", "0"),
    ),
    "frozen": Table(
        "Linear models on the mean embeddings of frozen models: AUROC",
        "probe",
        "labelled",
        {name: Row(name, "auroc, all", digits=2) for name in _FROZEN},
        {
            "dnabert-2": Model("zhihan1996/DNABERT-2-117M", **_ENCODER),
            "nt-v2": Model("InstaDeepAI/nucleotide-transformer-v2-500m-multi-species", **_ENCODER),
            "hyenadna-pretrained": MODELS["hyenadna-pretrained"],
            "caduceus-ph": Model("kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16", **_ENCODER),
            "grover": Model("PoetschLab/GROVER", **_ENCODER),
        },
        _FROZEN,
        note="The paper does not state the classifier of these figures; --probe forest fits a random forest.",
    ),
    "gue": Table(
        "GUE: the bundled language model, the same from random weights, and baselines, fine-tuned",
        "finetune",
        "labelled",
        {name: Row(name, GUE_TASKS[name].metric) for name in ("prom_core_all", "tf_0", "prom_300_tata")},
        {
            "cnn": Model("cnn", training=("--learning_rate", "3e-3")),
            "gpt": Model("gpt", training=("--learning_rate", "5e-4")),
            "hyenadna": Model("hyenadna-tiny-1k-seqlen", training=_with_muon(2e-3)),
            "hyenadna-pretrained": Model("hyenadna-tiny-1k-human", training=_with_muon(4e-3)),
        },
        arguments=("--num_train_epochs", "2", "--load_best_model_at_end"),
        note="Learning rates are the best of three or four on validation, for 6,000 sequences of prom_core_all.",
    ),
    "pretrained": Table(
        "Language models on held-out regions: bits per base, and by the number of bases before it",
        "bits",
        "genomes",
        {
            "bits a base": Row("genomes", "bits", scale=1.0, digits=4),
            "bits a base at position": Row("genomes", "bits at position", scale=1.0, digits=4),
        },
        {"markov-5": Model("markov-5"), "markov-11": Model("markov-11")}
        | {name.rpartition("-")[2]: Model(name) for name in ("hyenadna-tiny-1k-chr20", "hyenadna-tiny-1k-human")},
        note="Bits per base, not percent. A position P is the mean of bases P to 2 P - 1 of a window, counted from 0.",
    ),
    "local": Table(
        "Your own data sets",
        "finetune",
        "labelled",
        {},
        _models("cnn", "gpt", "hyenadna", "hyenadna-kmer", "hyenadna-bidirectional"),
    ),
}
