"""`hyenadna predict`: predict sequences, or every base of a genome, with a fine-tuned model."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arguments import CommandParser
from ..data.base_labels import BACKGROUND
from ..data.fasta import ENDINGS, Fasta
from ..data.files import SEQUENCE_COLUMNS, read_file, row_name
from ..data.labelled import choose_column
from ..data.sequence import BASES, NOT_A_NUCLEOTIDE
from ..data.source import FASTA, STANDARD_INPUT, TABLE, regular_file
from ..errors import InputError, WorkError
from ..jobs import Job, output_path, save_array, sha256
from ..loading import CHECKPOINTS, InferenceArguments, fingerprint, load_trained
from ..processes import processes
from .batching import chunks_of
from .embed_fasta import Region, list_regions
from .predictions import PROBLEM_TYPES, IntervalCaller, Predictor
from .tracks import (
    BEDGRAPH,
    BIGWIG,
    Piece,
    count_bases,
    count_kept_bases,
    pieces_of,
    read_merged_regions,
    write_bedgraph,
    write_bigwig,
)

PART_BASES = 1 << 20  # size of a part, the work that a kill can lose


@dataclass(kw_only=True)
class PredictArguments(InferenceArguments):
    model: str = field(metadata={"help": f"A fine-tuned model: {CHECKPOINTS}."})
    input: str = field(
        metadata={
            "help": "Sequences: FASTA, - for standard input; a table (CSV, TSV, JSON Lines, Parquet) with a column of "
            "sequences; or with --fasta, intervals as BED (on strand -, sequence models read the reverse complement)."
        }
    )
    fasta: str | None = field(default=None, metadata={"help": "Genome of the intervals of --input, as FASTA."})
    sequence_column: str | None = field(
        default=None, metadata={"help": "Column with the sequences (default: sequence, seq or dna)."}
    )
    out: str = field(
        metadata={
            "help": "File to write: for models of sequences, .tsv, one row each; for models of bases, .bed, intervals "
            f"of classes, or {', '.join((*BEDGRAPH, *BIGWIG))}, one value per base."
        }
    )
    target: str | None = field(
        default=None,
        metadata={"help": "Label whose values a bedGraph or bigWig file contains (default: the only one)."},
    )
    problem_type: str | None = field(
        default=None, metadata={"help": f"{', '.join(PROBLEM_TYPES)} (default: that of the model)."}
    )
    strands: str = field(default="forward", metadata={"help": "both: the mean of both strands; or forward."})
    window: int | None = field(
        default=None,
        metadata={"help": "Bases that a model of bases reads at once (default: as many as it can)."},
    )
    stride: int | None = field(
        default=None, metadata={"help": "Bases from one window to the next (default: half a window)."}
    )
    max_tokens: int = field(default=16_384, metadata={"help": "Tokens in a batch, padding included."})


class Query(NamedTuple):
    """A sequence to predict: the first columns of its row, its length, and the function that reads it."""

    columns: tuple[str, ...]
    length: int
    read: Callable[[], str]


def parser() -> CommandParser:
    """Build the argument parser of `hyenadna predict`."""
    return CommandParser(
        "predict",
        PredictArguments,
        "Predict sequences or bases with a fine-tuned model. The same command resumes an interrupted run. For several "
        "devices: torchrun --nproc_per_node N -m hyenadna_hf predict ...",
        "--model MODEL --input FILE [--fasta REFERENCE.fa] --out FILE [ARGUMENT ...]",
        [
            "--model my_classifier --input sequences.csv --out predictions.tsv --strands both",
            "--model my_regressor --input peaks.bed --fasta ref.fa --out activity.tsv",
            "--model my_annotator --input ref.fa --out exons.bed",
            "--model my_annotator --input regions.bed --fasta ref.fa --target exon --out exons.bw",
        ],
    )


def main(argv: list[str]) -> dict[str, Any] | None:
    """Run `hyenadna predict` with the arguments `argv`."""
    args, _ = parser().parse(argv)
    out = output_path("--out", args.out, (".tsv", ".bed", *BEDGRAPH, *BIGWIG))
    model, tokenizer = load_trained(
        None, args.model, args.dtype, args.tokenizer, args.trust_remote_code, any_architecture=True
    )
    predictor = Predictor(model, tokenizer, args.problem_type, args.strands, args.max_tokens)
    _check_output(args, out, predictor)
    state = processes(args.use_cpu)
    identity = {
        "input": sha256(regular_file(args.input, TABLE, unpack=False)),
        "fasta": args.fasta and sha256(regular_file(args.fasta, FASTA, unpack=False)),
        "model": fingerprint(model, tokenizer),
        "problem_type": predictor.problem_type,
        "strands": args.strands,
        "format": out.suffix,
    }
    if predictor.is_per_base:
        result = _predict_bases(args, out, predictor, identity, state)
    else:
        result = _predict_sequences(args, out, predictor, identity, state)
    if not state.is_main_process:
        return None
    print(f"{out}: " + ", ".join(f"{count:,} {name}" for name, count in result.items()))
    return {"out": out, **result}


def _check_output(args: PredictArguments, out: Path, predictor: Predictor) -> None:
    """Check that format, target, window and stride fit the model."""
    is_track = out.suffix in (*BEDGRAPH, *BIGWIG)
    if predictor.is_per_base == (out.suffix == ".tsv"):
        suffixes = ", ".join((".bed", *BEDGRAPH, *BIGWIG)) if predictor.is_per_base else ".tsv"
        kind = "every base" if predictor.is_per_base else "whole sequences"
        raise InputError(f"--out {out}: this model predicts {kind}; give a file that ends in {suffixes}.")
    if out.suffix == ".bed" and predictor.problem_type == "regression":
        raise InputError(f"--out {out}: this model predicts numbers; give a file that ends in {', '.join(BIGWIG)}.")
    if args.target is not None and (not is_track or args.target not in predictor.names):
        problem = f"the labels are {', '.join(predictor.names)}" if is_track else "only bedGraph and bigWig need it"
        raise InputError(f"--target {args.target}: {problem}.")
    foreground = [name for name in predictor.names if name != BACKGROUND]
    if is_track and args.target is None and len(foreground) > 1:
        raise InputError(f"--target: {out.name} contains one of {', '.join(foreground)}; choose it.")
    if not predictor.is_per_base and (args.window or args.stride):
        raise InputError("--window and --stride: this model reads whole sequences; omit them.")


def _predict_sequences(
    args: PredictArguments, out: Path, predictor: Predictor, identity: dict[str, Any], state: Any
) -> dict[str, int]:
    header, queries, genome = _read_queries(args)
    limit = predictor.longest
    too_long = next((query for query in queries if limit is not None and query.length > limit), None)
    if too_long:
        raise InputError(
            f"--input {args.input}: {too_long.columns[0]} has {too_long.length:,} bases, but the model reads at most "
            f"{limit:,}; shorten it."
        )

    def make(part: list[Query], path: Path, advance: Callable[[int], None]) -> None:
        rows = []
        for query, output in zip(part, predictor.predict(query.read() for query in part), strict=True):
            rows.append(output)
            advance(query.length)
        save_array(path, np.stack(rows))

    parts = list(chunks_of(queries, lambda query: max(query.length, 1), PART_BASES))
    with genome, Job(out, identity, state) as job:
        predictor.model.to(state.device)
        job.run(parts, lambda part: sum(query.length for query in part), make, "bases", sum(q.length for q in queries))
        job.finish(lambda path: _write_table(path, header, parts, job, predictor))
    return {"sequences": len(queries)}


def _read_queries(args: PredictArguments) -> tuple[tuple[str, ...], list[Query], AbstractContextManager[Any]]:
    """Return the names of the first columns, the sequences to predict, and what to close after them."""
    if args.sequence_column is not None and (args.fasta is not None or _is_fasta(args.input)):
        raise InputError(f"--sequence_column {args.sequence_column}: only tables have columns; omit it.")
    if args.fasta is not None or _is_fasta(args.input):
        genome = Fasta(args.fasta or args.input)
        regions = list_regions(genome, args.input if args.fasta is not None else None)
        if args.fasta is None:
            return ("name",), [_query((region.name,), region, genome) for region in regions], genome
        header = ("name", "chrom", "start", "end", "strand")
        return header, [_query(tuple(map(str, region)), region, genome) for region in regions], genome
    table = read_file(Path(args.input))
    column = choose_column(args.input, table, args.sequence_column, SEQUENCE_COLUMNS, "sequence_column")
    if not len(table):
        raise InputError(f"--input {args.input}: the table contains no row of data.")
    for row, text in zip(table.index, table[column]):
        wrong = NOT_A_NUCLEOTIDE.search(text)
        if not text or wrong:
            problem = f"contains {wrong[0]!r} at base {wrong.start() + 1:,}" if wrong else "is empty"
            raise InputError(f"--input {args.input}, {row_name(row)}: the sequence {problem}; correct or remove it.")
    others = [name for name in table.columns if name != column]
    names = [str(row + 1) if isinstance(row, int) else row for row in table.index]
    queries = [
        Query((name, *columns), len(text), partial(str, text))
        for name, text, columns in zip(names, table[column], table[others].itertuples(index=False))
    ]
    return ("row", *others), queries, nullcontext()


def _query(columns: tuple[str, ...], region: Region, genome: Fasta) -> Query:
    return Query(columns, region.length, partial(region.read, genome))


def _is_fasta(path: str) -> bool:
    return path in STANDARD_INPUT or path.removesuffix(".gz").endswith(ENDINGS)


def _write_table(path: Path, header: tuple[str, ...], parts: list[list[Query]], job: Job, predictor: Predictor) -> None:
    is_class = predictor.problem_type == "single_label_classification"
    prefix = "" if predictor.problem_type == "regression" else "probability_"
    names = [*header, *(["predicted_class"] if is_class else []), *(f"{prefix}{name}" for name in predictor.names)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(names)
        for number, part in enumerate(parts):
            outputs = np.load(job.part(number))
            if outputs.shape != (len(part), len(predictor.names)):
                raise WorkError(f"{job.part(number)}: the shape does not match the input; delete this part.")
            for query, output in zip(part, outputs):
                best = [predictor.names[int(output.argmax())]] if is_class else []
                writer.writerow([*query.columns, *best, *(f"{value:.6g}" for value in output)])


def _predict_bases(
    args: PredictArguments, out: Path, predictor: Predictor, identity: dict[str, Any], state: Any
) -> dict[str, int]:
    if args.fasta is None and not _is_fasta(args.input):
        raise InputError(f"--input {args.input}: this model predicts every base; give FASTA, or BED with --fasta.")
    window = predictor.longest if args.window is None else args.window
    if window is None:
        raise InputError(f"--model {args.model}: it reads windows of any length; give --window.")
    stride = max(1, window // 2) if args.stride is None else args.stride
    if not 1 <= stride <= window <= (predictor.longest or window):
        bounds = f"1 to {predictor.longest:,} bases" if predictor.longest else "at least 1 base"
        raise InputError(
            f"--window {window} --stride {stride}: give a window of {bounds}, and a stride of at most a window."
        )
    with Fasta(args.fasta or args.input) as genome:
        whole = [(contig, 0, length) for contig, length in genome.lengths.items()]
        regions = whole if args.fasta is None else read_merged_regions(args.input, genome)
        if not regions:
            raise InputError(f"--input {args.input}: the file contains no interval.")
        columns = _columns(args, out, predictor)
        identity |= {"window": window, "stride": stride, "columns": columns}

        def parts() -> Iterator[list[Piece]]:
            return chunks_of(pieces_of(genome, regions, window, stride), count_kept_bases, PART_BASES)

        def make(part: list[Piece], path: Path, advance: Callable[[int], None]) -> None:
            outputs = []
            for piece, output in zip(part, predictor.predict(genome.fetch(*piece[:3]) for piece in part), strict=True):
                kept = slice(piece.keep_start - piece.start, piece.keep_end - piece.start)
                text = genome.fetch(piece.contig, piece.keep_start, piece.keep_end)
                output = output[kept, columns]
                output[[letter not in BASES for letter in text.upper().replace("U", "T")]] = np.nan
                outputs.append(output)
                advance(len(output))
            save_array(path, np.concatenate(outputs))

        def finish(path: Path) -> None:
            pieces = _read_parts(job, parts(), len(columns))
            if path.suffix == ".bed":
                _write_bed(path, pieces, predictor, list(genome.lengths))
                return
            write = write_bedgraph if path.suffix in BEDGRAPH else write_bigwig
            write(path, ((contig, start, values[:, 0]) for contig, start, values in pieces), genome.lengths)

        total = sum(end - start for _, start, end in regions)
        with Job(out, identity, state) as job:
            predictor.model.to(state.device)
            job.run(parts(), count_bases, make, "bases", total)
            job.finish(finish)
    return {"bases": total, "regions": len(regions)}


def _columns(args: PredictArguments, out: Path, predictor: Predictor) -> list[int]:
    """Return the indices of the labels that the output needs."""
    if out.suffix == ".bed":
        return list(range(len(predictor.names)))
    label = args.target or next((name for name in predictor.names if name != BACKGROUND), predictor.names[0])
    return [predictor.names.index(label)]


def _read_parts(job: Job, parts: Iterable[list[Piece]], columns: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield contig, start and values of each piece from the files of the parts."""
    for number, part in enumerate(parts):
        values = np.load(job.part(number))
        if values.shape != (count_bases(part), columns):
            raise WorkError(f"{job.part(number)}: the shape does not match the regions; delete this part.")
        for piece, piece_values in zip(part, np.split(values, np.cumsum([*map(count_kept_bases, part)])[:-1])):
            yield piece.contig, piece.keep_start, piece_values


def _write_bed(
    path: Path, pieces: Iterable[tuple[str, int, np.ndarray]], predictor: Predictor, contigs: list[str]
) -> None:
    """Write contig, start, end, class and 1000 times the mean probability of each interval, sorted."""
    caller = IntervalCaller(predictor.names, predictor.problem_type == "multi_label_classification", BACKGROUND)
    for contig, start, values in pieces:
        caller.add(contig, start, values)
    order = {contig: number for number, contig in enumerate(contigs)}
    with path.open("w", encoding="utf-8") as file:
        for contig, start, end, name, mean in sorted(caller.finish(), key=lambda row: (order[row[0]], row[1:])):
            file.write(f"{contig}\t{start}\t{end}\t{name}\t{round(1000 * mean)}\t.\n")
