"""`hyenadna reproduce`: run a published table, or the same models on other data."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..arguments import CommandParser
from ..data.named import BENCHMARKS
from ..errors import InputError, WorkError
from ..jobs import output_folder, write_text, writing_folder
from ..processes import processes
from ..training.recipes import RECIPES
from . import report
from .cells import FIRST_OUTPUT, Cell, Step, run, share
from .data import Data, prepare, train_fasta
from .tables import MODELS, TABLES, WINDOW_LENGTHS, Model, Row, Table

WARMUP_FACTOR = 16  # ratio of the last sequence length to the first
# Recipe of a data set, by kind of data.
RECIPE_NAMES = {"labelled": "{}", "species": "species_{}", "chromatin": "chromatin_{}"}


@dataclass
class ReproduceArguments:
    """Options of `hyenadna reproduce`."""

    output_dir: str | None = field(
        default=None,
        metadata={
            "formerly": ["out"],
            "help": "Folder for the table and the results of cells (default: reproduce/TABLE).",
        },
    )
    data: str | None = field(
        default=None,
        metadata={
            "help": "Folder of local files: NAME/ or NAME_train.csv.gz and NAME_test.csv.gz for each data set; "
            "a genome for each species; a GTF file and its genome (default: the Hub)."
        },
    )
    datasets: list[str] = field(
        default_factory=list,
        metadata={"help": "Data sets to run, NAME or NAME=PATH (default: all data sets of the table)."},
    )
    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Models to run: names of columns, anything that finetune --model accepts, or NAME=MODEL (default: "
            f"the columns of the table). Names: {', '.join(MODELS)}."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [2222], metadata={"help": "Seeds; each gives one run."})
    limit: int | None = field(
        default=None, metadata={"help": "Maximum number of sequences per split, in the proportions of the classes."}
    )
    num_train_epochs: float | None = field(
        default=None,
        metadata={"formerly": ["epochs"], "help": "Passes over the training split (default: those of the recipe)."},
    )
    dry_run: bool = field(default=False, metadata={"help": "Only print the cells, their commands and their cost."})


def parser() -> CommandParser:
    """Create the parser of `hyenadna reproduce`."""
    command = CommandParser(
        "reproduce",
        ReproduceArguments,
        "Run a published table and write it with the published figures next to ours. Tables: "
        f"{', '.join(TABLES)}. Finished cells are skipped, so the same command resumes a run. Further arguments are "
        "passed to the command of each cell (mostly finetune). Several processes, started by torchrun or accelerate "
        "launch -m hyenadna_hf reproduce ..., take cells in turn.",
        "TABLE [--data FOLDER] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "genomic-benchmarks",
            "gb-ablations --data FOLDER --limit 2000 --num_train_epochs 5 --seeds 1 2 3",
            "local --datasets mine=my_data/ --models cnn gpt hyenadna",
        ],
        allow_abbrev=False,  # unknown arguments are those of the cells
    )
    command.add_argument("table", help=f"Table to run: {', '.join(TABLES)}.")
    return command


def main(argv: list[str]) -> dict[str, Any]:
    """Run `hyenadna reproduce` with the arguments `argv`."""
    args, positional, rest = parser().parse_args_into_dataclasses(argv, return_remaining_strings=True)
    args.output_dir = args.output_dir or f"reproduce/{positional.table}"
    missing = reproduce(positional.table, args, rest, shlex.join(["hyenadna", "reproduce", *argv]))
    result = {"table": positional.table, "output_dir": args.output_dir, "missing": missing}
    if missing:
        raise WorkError(f"{missing} cells have no result; {args.output_dir}/table.md lists the reasons.", result)
    return result


def reproduce(name: str, args: ReproduceArguments, rest: Sequence[str] = (), command: str = "") -> int:
    """
    Run the cells of a table that have no result yet, and write the table.

    Each cell is a [`~hyenadna_hf.jobs.Job`]. The table is not: it is written with the results so far, also after an
    interruption or if cells fail, and other models, data sets and seeds share a folder on purpose.

    Args:
        name: A key of `TABLES`.
        args: Options of the command.
        rest: Further arguments of each cell.
        command: Command line to record in the table.

    Returns:
        The number of cells without a result, for reasons given in the table. 0 on all ranks but the first.

    Raises:
        InputError: If an argument is invalid, before anything is written.
    """
    if name not in TABLES:
        raise InputError(f"table {name}: there is no such table; choose one of {', '.join(TABLES)}.")
    table = TABLES[name]
    sources, models = _select_datasets(table, name, args), _select_models(table, args)
    for argument, value in (("--limit", args.limit), ("--num_train_epochs", args.num_train_epochs)):
        if value is not None and value <= 0:
            raise InputError(f"{argument} {value}: it must be greater than 0.")
    out = output_folder("--output_dir", args.output_dir or f"reproduce/{name}")
    state = processes()
    with writing_folder(out, "--output_dir", state):
        return _run_table(table, sources, models, args, rest, out, state, command)


def _run_table(
    table: Table,
    sources: Mapping[str, str | None],
    models: Mapping[str, Model],
    args: ReproduceArguments,
    rest: Sequence[str],
    out: Path,
    state: Any,
    command: str,
) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    work = out / "scratch"
    with state.main_process_first():
        work.mkdir(parents=True, exist_ok=True)
        write_text(work / ".gitignore", "*\n")  # data are not part of a record
        cells, unavailable = _make_cells(table, sources, models, args, rest, work)
    pending = [cell for cell in cells if "metrics" not in (cell.load(out) or {})]
    pending.sort(key=lambda cell: args.seeds.index(cell.seed))  # the first run of every cell precedes any second run
    state.wait_for_everyone()  # or a rank could see results of another one
    own_cells = share(pending, state.process_index, state.num_processes)
    costs = _CostEstimate([result for cell in cells if (result := cell.load(out))])
    if args.dry_run:
        _print_cells(console, pending, costs, state)
        return 0
    device = state.local_process_index if state.num_processes > 1 else None
    try:
        _run_all(console, own_cells, out, device, costs)
        state.wait_for_everyone()
    finally:  # an interrupted run writes the table with the results so far
        if state.is_main_process:
            results = [cell.load(out) or cell.describe(reason="not run yet") for cell in cells] + unavailable
            lines = report.summarise(table, _select_rows(table, sources), results)
            report.write(table, lines, out, command)
    if not state.is_main_process:
        return 0
    missing = sum("metrics" not in result for result in results)
    console.print(f"{len(results) - missing} of {len(results)} cells have a result: {escape(str(out / 'table.md'))}")
    return missing


def _select_datasets(table: Table, name: str, args: ReproduceArguments) -> dict[str, str | None]:
    """Map each data set to run to its path, or to `None` for its default location."""
    named = [value.partition("=") for value in args.datasets]
    known = dict.fromkeys(row.dataset for row in table.rows.values())
    unknown = next((dataset for dataset, _, _ in named if known and dataset not in known), None)
    if unknown is not None:
        raise InputError(f"--datasets {unknown}: the table {name} has {', '.join(known)}; use table local for others.")
    if not known and not named:
        raise InputError(f"--datasets: the table {name} has no data sets of its own; give some as NAME or NAME=PATH.")
    return {dataset: path or None for dataset, _, path in named} or known


def _select_models(table: Table, args: ReproduceArguments) -> dict[str, Model]:
    """Map each column to its model."""
    models = {}
    for value in args.models:
        name, _, source = value.partition("=")
        known = table.models.get(name) or MODELS.get(name) or Model(name)
        models[name] = replace(known, source=source) if source else known
    return models or table.models


def _make_cells(
    table: Table,
    sources: Mapping[str, str | None],
    models: Mapping[str, Model],
    args: ReproduceArguments,
    rest: Sequence[str],
    work: Path,
) -> tuple[list[Cell], list[dict[str, Any]]]:
    """Return the cells that can run, and results with a reason for those that cannot."""
    cells, unavailable = [], []
    for dataset, source in sources.items():
        try:
            data, error = prepare(table.data, dataset, source, args.data, args.limit, work / "data"), ""
        except InputError as exception:
            data, error = None, str(exception)
        for name, model in models.items():
            model_source = model.source_for(dataset)
            no_weights = f"there are no public weights; provide them with --models {name}=FOLDER"
            for seed in args.seeds:
                if data is None or model_source is None:
                    reason = error or no_weights
                    failed = {"dataset": dataset, "model": name, "seed": seed, "seconds": 0.0, "reason": reason}
                    unavailable.append(failed)
                    continue
                steps = _make_steps(table, dataset, data, name, model, model_source, seed, args.num_train_epochs, rest)
                cells.append(Cell(dataset, name, model_source, seed, steps, data, _describe_evaluation(steps)))
    return cells, unavailable


def _make_steps(
    table: Table,
    dataset: str,
    data: Data,
    name: str,
    model: Model,
    source: str,
    seed: int,
    epochs: float | None,
    rest: Sequence[str],
) -> tuple[Step, ...]:
    """Return the commands of a cell."""
    common = ("--dataset", data.argument, "--model", source, "--seed", str(seed), *model.arguments)
    passes = () if epochs is None else ("--num_train_epochs", f"{epochs:g}")
    if table.kind in ("probe", "few-shot", "bits"):
        return (Step(table.kind, (*common, *table.arguments, *rest)),)
    if table.kind == "soft-prompt":
        return (Step(table.kind, (*common, *passes, *rest)),)
    recipe = RECIPE_NAMES[table.data].format(dataset.lower() if table.data == "species" else dataset)
    training = (*(("--recipe", recipe) if recipe in RECIPES else ()), *model.training, *table.arguments)
    training = (*training, "--no_baselines", *passes, *rest)
    if table.kind == "finetune":
        return (Step("finetune", (*common, *training), resumes=True),)
    length = WINDOW_LENGTHS[dataset]
    warm_up = ("--initial_length", str(length // WARMUP_FACTOR)) if name == "warm-up" else ()
    windows = ("--fasta", train_fasta(data.argument), "--window", str(length))
    pretraining = (*windows, "--model", source, "--seed", str(seed), *passes, *warm_up)
    tuning = ("--dataset", data.argument, "--model", FIRST_OUTPUT, "--seed", str(seed), *training)
    return (Step("pretrain", pretraining, "pretraining.json", resumes=True), Step("finetune", tuning, resumes=True))


def _describe_evaluation(steps: Sequence[Step]) -> str:
    words = steps[-1].arguments
    if steps[-1].command != "finetune":
        return "test split"
    position = words.index("--load_best_model_at_end") + 1 if "--load_best_model_at_end" in words else None
    best = position is not None and (position == len(words) or words[position].lower() not in ("false", "no", "0"))
    return "best on validation" if best else "last epoch"


def _select_rows(table: Table, sources: Mapping[str, str | None]) -> dict[str, Row]:
    """Select the rows of the table to run; a table without rows gets one per data set, with its usual metric."""
    if table.rows:
        return {name: row for name, row in table.rows.items() if row.dataset in sources}
    return {name: Row(name, BENCHMARKS[name].metric if name in BENCHMARKS else "accuracy") for name in sources}


class _CostEstimate:
    """Seconds per base of the training split, by model, measured on finished cells."""

    def __init__(self, results: Sequence[dict[str, Any]]) -> None:
        self.finished: dict[str, tuple[float, int]] = {}
        for result in results:
            self.add(result)

    def add(self, result: dict[str, Any]) -> None:
        if "metrics" in result:
            seconds, bases = self.finished.get(result["model"], (0.0, 0))
            self.finished[result["model"]] = (seconds + result["seconds"], bases + result["bases"])

    def seconds(self, cell: Cell) -> float | None:
        """Estimate the time of a cell from cells of its model, or of any model; `None` before the first one."""
        measured = [self.finished[cell.model]] if cell.model in self.finished else list(self.finished.values())
        if not measured:
            return None
        return cell.data.bases * sum(seconds for seconds, _ in measured) / sum(bases for _, bases in measured)


def _run_all(console: Console, cells: Sequence[Cell], out: Path, device: int | None, costs: _CostEstimate) -> None:
    for number, cell in enumerate(cells, start=1):
        remaining = [costs.seconds(later) for later in cells[number - 1 :]]
        known = [seconds for seconds in remaining if seconds is not None]
        eta = f"; about {_format_time(sum(known))} left" if len(known) == len(remaining) else ""
        title = escape(f"[{number}/{len(cells)}] {_title(cell)}")
        console.print(f"{title}: {cell.data.bases:,} bases to train on{eta}")
        with console.status(title):
            result = run(cell, out, device)
        costs.add(result)
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.get("metrics", {}).items())
        outcome = metrics or "no result: " + result["reason"]
        console.print(f"  {escape(outcome)} ({_format_time(result['seconds'])})")


def _print_cells(console: Console, cells: Sequence[Cell], costs: _CostEstimate, state: Any) -> None:
    if not state.is_main_process:
        return
    for cell in cells:
        seconds = costs.seconds(cell)
        cost = "cost unknown until a cell is finished" if seconds is None else f"about {_format_time(seconds)}"
        console.print(
            f"{escape(cell.dataset)}, {escape(cell.model)}, seed {cell.seed}: {cell.data.bases:,} bases, {cost}"
        )
        for step in cell.steps:
            console.print(f"  {escape(shlex.join(step.words()))}")
    known = [seconds for cell in cells if (seconds := costs.seconds(cell)) is not None]
    total = f", about {_format_time(sum(known))} with one process" if known else ""
    console.print(f"{len(cells)} cells to run{total}.")


def _title(cell: Cell) -> str:
    return f"{cell.dataset}, {cell.model}, seed {cell.seed}"


def _format_time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
