"""`hyenadna evaluate-variants`: evaluate scores of labelled variants, such as those of language models."""

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from transformers import AutoModelForCausalLM

from ..arguments import CommandParser
from ..controls import with_controls
from ..data.fasta import Fasta
from ..data.files import LABEL_COLUMNS, find_published
from ..data.labelled import MISSING
from ..data.source import FASTA, regular_file
from ..errors import InputError, WorkError, shorten_list
from ..jobs import Job, folder_job, output_folder, progress, replace_file, sha256
from ..loading import CHECKPOINTS, InferenceArguments, fingerprint, load_trained
from ..processes import processes
from .likelihood import MAX_TOKENS
from .score_table import PART_BASES
from .variant_effects import SCORES, VariantEffect, score_variant_effects
from .variant_metrics import metrics_of_variants
from .variant_report import ALL, draw, figure_of, markdown
from .variant_tables import COLUMNS, PUBLISHED, find_column, numbers_of, read_variants
from .variants import WINDOW, Variant

# Factor of each score, so that a higher value means that a variant is more likely positive.
ORIENTATION = {"llr": -1, "abs_llr": 1, "jsd": 1, "embedding_distance": 1}
BASELINE = "baseline"  # model name of a column of the table
# Labels that need no --positive.
TRUE = ("1", "true", "yes")
FALSE = ("0", "false", "no")


@dataclass(kw_only=True)
class EvaluateVariantsArguments(InferenceArguments):
    model: list[str] = field(  # type: ignore[assignment]
        metadata={"help": f"One or more HyenaDNA language models: {CHECKPOINTS}."}
    )
    table: str = field(
        metadata={
            "help": "Variants with the columns chrom, pos (1-based), ref and alt, in any case: CSV, TSV, JSON, "
            "Parquet, VCF (fields of INFO are columns); - for standard input; or, from the Hub: "
            f"{', '.join(PUBLISHED)}."
        }
    )
    fasta: str = field(metadata={"help": "Reference genome of the variants: FASTA, plain, bgzip or gzip."})
    out: str = field(metadata={"help": "Folder for scores.parquet, metrics.csv, table.md and metrics.png."})
    label_column: str | None = field(
        default=None, metadata={"help": "Column of the labels, for AUROC and AUPRC (default: label, class or target)."}
    )
    positive: list[str] | None = field(
        default=None, metadata={"help": "Positive labels; all others are negative (default: 1, true or yes)."}
    )
    target_column: str | None = field(
        default=None, metadata={"help": "Column of numbers, such as measured effects, for Spearman's correlation."}
    )
    group_column: str | None = field(
        default=None, metadata={"help": "Column of groups, such as consequences, to evaluate separately too."}
    )
    baselines: list[str] = field(
        default_factory=list,
        metadata={"help": "Baselines: columns of scores, higher for variants more likely positive (default: none)."},
    )
    score: list[str] = field(
        default_factory=lambda: list(SCORES), metadata={"help": f"Scores: {', '.join(SCORES)} (default: all)."}
    )
    control: bool = field(default=True, metadata={"help": "Also score with random weights of the same configuration."})
    bootstrap: int = field(
        default=1000, metadata={"help": "Samples of positions for 95 %% intervals; 0 for no intervals."}
    )
    seed: int = field(default=0, metadata={"help": "Random seed of the samples and of the control."})
    window: int = field(default=WINDOW, metadata={"help": "Bases of the reference around a variant."})
    bos: bool = field(
        default=False, metadata={"help": "Put [BOS] before each haplotype (only for models trained that way)."}
    )
    max_tokens: int = field(default=MAX_TOKENS, metadata={"help": "Tokens in a batch, padding included."})


def parser() -> CommandParser:
    """Return the argument parser of `hyenadna evaluate-variants`."""
    return CommandParser(
        "evaluate-variants",
        EvaluateVariantsArguments,
        "Score labelled variants with language models, and compute AUROC, AUPRC and Spearman's correlation of each "
        "score, with intervals by bootstrap over positions. The same command resumes a run that was stopped. Several "
        "devices: accelerate launch -m hyenadna_hf evaluate-variants ...",
        "--table TABLE --fasta REFERENCE.fa --model MODEL [MODEL ...] --out FOLDER [ARGUMENT ...]",
        [
            "--table brca1.csv --fasta hg19.fa --model my-lm --label_column function_class --positive LOF "
            "--group_column consequence --baselines phylop cadd --out brca1",
            "--table dms.parquet --fasta hg38.fa --model my-lm --target_column effect --score llr jsd --out dms",
            "--table traitgym_mendelian --fasta hg38.fa --model my-lm --out traitgym --json",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna evaluate-variants` with command-line arguments."""
    args, _ = parser().parse(argv)
    return evaluate_variants(args, shlex.join(["hyenadna", "evaluate-variants", *argv]))


class Questions(NamedTuple):
    """
    Labels, groups and baselines for the scores of variants.

    Attributes:
        labels: Labels of shape `(variants,)` for each metric: 1 and 0 for `auroc` and `auprc`, numbers for `spearman`,
            NaN for missing labels.
        groups: Mask of shape `(variants,)` for each group; the first group contains all variants.
        baselines: Other scores by name.
        columns: Label, target and group of each variant, for the table of scores.
    """

    labels: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    baselines: dict[str, np.ndarray]
    columns: pd.DataFrame


def evaluate_variants(
    args: EvaluateVariantsArguments, command: str = "hyenadna evaluate-variants"
) -> dict[str, Any] | None:
    """
    Score the variants of a table in a resumable [`~hyenadna_hf.jobs.Job`], and evaluate the scores.

    Args:
        args: Arguments of the command.
        command: Command line to show in `table.md`.

    Returns:
        `variants` and `scored`, the numbers of all and of scored variants, and `metrics`, the rows of `metrics.csv`:
        `group`, `score`, `model`, `metric`, `value`, `low`, `high` and `n`. `None` in all processes but the main one.

    Raises:
        InputError: If an argument or a file is invalid, before anything is written.
    """
    state = processes(args.use_cpu)
    out = output_folder("--out", args.out)
    _check_choices(args)
    import_module("matplotlib")  # fail early if it is missing
    variants, table = read_variants(args.table)
    questions = _questions(args, table)
    models = _models(args)
    with Fasta(args.fasta) as fasta:

        def score(model: Any, tokenizer: Any, variants: Iterable[Variant]) -> Iterable[VariantEffect]:
            model.to(state.device)
            return score_variant_effects(
                model, tokenizer, variants, fasta, args.score, args.window, args.bos, args.max_tokens
            )

        for model, tokenizer in models.values():
            score(model, tokenizer, ())  # fail on invalid arguments before writing
        identity = {
            "models": [[name, fingerprint(*pair)] for name, pair in models.items()],
            "fasta": sha256(regular_file(args.fasta, FASTA, unpack=False)),
            "variants": hashlib.sha256(table[[*COLUMNS]].to_csv(index=False).encode()).hexdigest(),
            "scores": args.score,
            "window": args.window,
            "bos": args.bos,
        }
        number, size = len(variants), max(1, PART_BASES // args.window)
        parts = [(name, start) for name in models for start in range(0, number, size)]

        def make(part: tuple[str, int], path: Path, advance: Callable[[int], None]) -> None:
            name, start = part
            _write_part(path, score(*models[name], variants[start : start + size]), args.score, advance)

        def finish(path: Path) -> dict[str, Any]:
            scores = _read_parts(job, parts, size, number, args.score)
            return _write(path, args, table, questions, scores, command)

        with folder_job(out, "scores.parquet", identity, state) as job:
            job.run(
                parts, lambda part: min(size, len(variants) - part[1]), make, "variants", len(variants) * len(models)
            )
            result = job.finish(finish)
    if result is not None:
        _print(out, result)
    return result


def _check_choices(args: EvaluateVariantsArguments) -> None:
    for name, values in (("model", args.model), ("score", args.score), ("baselines", args.baselines)):
        duplicates = [value for value, number in Counter(values).items() if number > 1]
        if duplicates:
            raise InputError(f"--{name} {duplicates[0]}: it is given twice; give it once.")
    wrong = [name for name in args.score if name not in SCORES]
    if wrong:
        raise InputError(f"--score {wrong[0]}: choose one of {', '.join(SCORES)}.")
    if args.bootstrap < 0:
        raise InputError(f"--bootstrap {args.bootstrap}: give a number of samples, or 0 for no intervals.")


def _questions(args: EvaluateVariantsArguments, table: pd.DataFrame) -> Questions:
    """Select labels, groups and baselines from a table."""
    published = find_published(args.table, PUBLISHED)
    label, target = args.label_column, args.target_column
    if label is None and published is not None:
        label = published.label_column
        target = target or published.target_column
    if label is None and target is None:
        label = next((name for name in LABEL_COLUMNS if name in table.columns), None)
        if label is None:
            raise InputError(
                f"{args.table}: there is no column {', '.join(LABEL_COLUMNS)}; set --label_column or, for numbers, "
                f"--target_column to one of its columns: {', '.join(table.columns)}."
            )
    columns = pd.DataFrame(index=table.index)
    labels: dict[str, Any] = {}
    if label is not None:
        values = table[find_column(args.table, table, label, "label_column")]
        positive = args.positive or ([published.positive] if published and label == published.label_column else None)
        labels["auroc"] = labels["auprc"] = _is_positive(label, values, positive)
        columns["label"] = values
    elif args.positive:
        raise InputError(f"--positive {' '.join(args.positive)}: this requires --label_column; set it too.")
    if target is not None:
        labels["spearman"] = columns["target"] = numbers_of(args.table, table, target, "target_column")
    groups: dict[str, np.ndarray] = {ALL: np.ones(len(table), bool)}
    if args.group_column is not None:
        values = table[find_column(args.table, table, args.group_column, "group_column")]
        columns["group"] = values
        names = values[~values.isin(MISSING)].unique()
        if ALL in names:
            raise InputError(
                f"--group_column {args.group_column}: a group has the name {ALL!r}, which stands for all variants; "
                "rename it."
            )
        groups |= {name: (values == name).to_numpy() for name in names}
    baselines = {name: numbers_of(args.table, table, name, "baselines") for name in args.baselines}
    return Questions(labels, groups, baselines, columns)


def _is_positive(column: str, values: pd.Series, positive: list[str] | None) -> np.ndarray:
    """Convert labels to 1 for positive and 0 for other ones, NaN for missing ones."""
    known = ~values.isin(MISSING).to_numpy()
    names = sorted(values[known].unique())
    if positive is None:
        positive = [name for name in names if name.lower() in TRUE]
        if any(name.lower() not in (*TRUE, *FALSE) for name in names):
            raise InputError(
                f"--label_column {column}: the labels are {shorten_list(names, 8)}; set --positive to the positive "
                "ones."
            )
    absent = [name for name in positive if name not in names]
    if absent:
        raise InputError(
            f"--positive {absent[0]}: column {column} has no such label; choose from {shorten_list(names, 8)}."
        )
    if not positive or len(positive) == len(names):
        kind = "positive" if positive else "negative"
        raise InputError(f"--label_column {column}: all variants are {kind}; give positive and negative ones.")
    return np.where(known, values.isin(positive), np.nan)


def _models(args: EvaluateVariantsArguments) -> dict[str, tuple[Any, Any]]:
    """Load models and tokenizers, and add a control for each configuration."""
    models = {
        source: load_trained(AutoModelForCausalLM, source, args.dtype, args.tokenizer, args.trust_remote_code)
        for source in args.model
    }
    return with_controls(models, args.seed) if args.control else models


def _write_part(
    path: Path, effects: Iterable[VariantEffect], scores: list[str], advance: Callable[[int], None]
) -> None:
    rows = []
    for effect in effects:
        rows.append([*(effect.scores.get(name) for name in scores), effect.reason])
        advance(1)
    kinds = {**dict.fromkeys(scores, "float64"), "reason": "object"}
    frame = pd.DataFrame(rows, columns=[*scores, "reason"]).astype(kinds)
    replace_file(path, lambda temporary: frame.to_parquet(temporary, index=False))


def _read_parts(
    job: Job, parts: list[tuple[str, int]], size: int, number: int, scores: list[str]
) -> dict[str, pd.DataFrame]:
    """Read the scores of each model from the files of the parts."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for index, (name, start) in enumerate(parts):
        frame = pd.read_parquet(job.part(index))
        if list(frame.columns) != [*scores, "reason"] or len(frame) != min(size, number - start):
            raise WorkError(f"{job.part(index)}: the rows do not match the variants; delete this part.")
        frames.setdefault(name, []).append(frame)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}


def _write(
    path: Path,
    args: EvaluateVariantsArguments,
    table: pd.DataFrame,
    questions: Questions,
    scores: dict[str, pd.DataFrame],
    command: str,
) -> dict[str, Any]:
    """Write scores, metrics, table and picture, and return the result of the command."""
    variants = table[[*COLUMNS]].assign(pos=table["pos"].astype("int64"))
    variants = pd.concat([variants, questions.columns], axis=1).rename_axis("row").reset_index()
    frames = [pd.concat([variants.assign(model=name), frame], axis=1) for name, frame in scores.items()]
    pd.concat(frames, ignore_index=True).to_parquet(path, index=False)
    clusters = table.groupby(["chrom", "pos"], sort=False).ngroup().to_numpy()
    oriented = {
        (name, model): ORIENTATION[name] * frame[name].to_numpy()
        for model, frame in scores.items()
        for name in args.score
    }
    oriented |= {(name, BASELINE): values for name, values in questions.baselines.items()}
    rows = []
    with progress("groups", len(questions.groups)) as advance:
        for group, members in questions.groups.items():
            metrics = metrics_of_variants(
                {key: values[members] for key, values in oriented.items()},
                {metric: values[members] for metric, values in questions.labels.items()},
                clusters[members],
                args.bootstrap,
                args.seed,
            )
            rows += [{"group": group, **row} for row in metrics]
            advance(1)
    folder = path.parent
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    reasons = Counter(next(iter(scores.values()))["reason"].dropna())
    scored = len(table) - reasons.total()
    is_positive: Any = questions.labels.get("auroc")
    groups = questions.groups if is_positive is not None else {}
    positives = {name: int(np.nansum(is_positive[members])) for name, members in groups.items()}
    text = markdown(rows, len(table), scored, reasons, positives, command, args.bootstrap)
    (folder / "table.md").write_text(text, encoding="utf-8")
    draw(folder / "metrics.png", rows)
    if len(pd.read_parquet(path, columns=["row"])) != len(table) * len(scores):
        raise WorkError(f"{path.name}: the number of rows that were read back is wrong; check the free disk space.")
    return {"variants": len(table), "scored": scored, "metrics": rows}


def _print(out: Path, result: dict[str, Any]) -> None:
    print(f"{out}: {result['scored']:,} of {result['variants']:,} variants have scores")
    for row in result["metrics"]:
        if row["group"] == ALL:
            print(f"{row['model']}, {row['score']}: {row['metric']} {figure_of(row)}")
