"""`hyenadna reproduce`: run a published table, or the same models on other data, cell by cell."""

import shlex
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..arguments import CommandParser
from ..data.named import BENCHMARKS
from ..errors import InputError, WorkError
from ..jobs import locked, write_text
from ..processes import processes
from ..training.recipes import RECIPES
from . import report
from .cells import FIRST_OUTPUT, Cell, Step, run, share
from .data import prepare, train_fasta
from .tables import MODELS, TABLES, WINDOW_LENGTHS, Model, Row

WARMUP_FACTOR = 16  # how much longer the last sequences are than the first ones
# The recipe of a data set, by kind of data.
RECIPE_NAMES = {"labelled": "{}", "species": "species_{}", "chromatin": "chromatin_{}"}


@dataclass
class ReproduceArguments:
    output_dir: str | None = field(
        default=None,
        metadata={
            "formerly": ["out"],
            "help": "Folder of the table and of the results of cells (default: reproduce/TABLE).",
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
        metadata={"help": "Data sets to run, NAME or NAME=PATH (default: all of the table, if it has any)."},
    )
    models: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Models to run: names of columns, anything that finetune --model takes, or NAME=MODEL (default: "
            f"the columns of the table). Names: {', '.join(MODELS)}."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [2222], metadata={"help": "A run for each."})
    limit: int | None = field(
        default=None, metadata={"help": "Sequences a split at most, in the proportions of the classes."}
    )
    num_train_epochs: float | None = field(
        default=None,
        metadata={"formerly": ["epochs"], "help": "Passes over the training split (default: the recipe's)."},
    )
    dry_run: bool = field(default=False, metadata={"help": "Only print the cells, their commands and their cost."})


def parser():
    """The arguments of `hyenadna reproduce`."""
    command = CommandParser(
        "reproduce",
        ReproduceArguments,
        "Run a published table and write it with the published figures beside ours. Tables: "
        f"{', '.join(TABLES)}. Finished cells are skipped, so the same command resumes a run. Further arguments are "
        "passed to the command of each cell (mostly finetune). Several processes, started by torchrun or accelerate "
        "launch -m hyenadna_hf reproduce ..., take cells in turn.",
        "TABLE [--data FOLDER] [--output_dir FOLDER] [ARGUMENT ...]",
        [
            "genomic-benchmarks",
            "gb-ablations --data FOLDER --limit 2000 --num_train_epochs 5 --seeds 1 2 3",
            "local --datasets mine=my_data/ --models cnn gpt hyenadna",
        ],
        allow_abbrev=False,  # unknown arguments belong to the cells
    )
    command.add_argument("table", help=f"Table to run: {', '.join(TABLES)}.")
    return command


def main(argv):
    """Run `hyenadna reproduce` with the arguments `argv` (a list of `str`)."""
    args, positional, rest = parser().parse_args_into_dataclasses(argv, return_remaining_strings=True)
    args.output_dir = args.output_dir or f"reproduce/{positional.table}"
    missing = reproduce(positional.table, args, rest, shlex.join(["hyenadna", "reproduce", *argv]))
    result = {"table": positional.table, "output_dir": args.output_dir, "missing": missing}
    if missing:
        raise WorkError(f"{missing} cells have no result; {args.output_dir}/table.md has the reasons.", result)
    return result


def reproduce(name, args, rest=(), command=""):
    """
    Run the cells of a table that have no result yet, and write the table.

    Args:
        name (`str`): A key of `TABLES`.
        args ([`ReproduceArguments`]): The options.
        rest (`list[str]`): Further arguments of each cell.
        command (`str`): The command line that the table names as its origin.

    Returns:
        `int`: how many cells have no result, for a reason that the table has. 0 on all ranks but the first.

    Raises:
        InputError: if an argument is invalid, before anything is written.
    """
    if name not in TABLES:
        raise InputError(f"table {name}: there is no such table; there are {', '.join(TABLES)}.")
    table = TABLES[name]
    sources, models = _datasets(table, name, args), _models(table, args)
    for argument, value in (("--limit", args.limit), ("--num_train_epochs", args.num_train_epochs)):
        if value is not None and value <= 0:
            raise InputError(f"{argument} {value}: give more than 0.")
    out = Path(args.output_dir or f"reproduce/{name}").expanduser()
    if out.is_file():
        raise InputError(f"--output_dir {out}: this is a file; name a folder.")
    state = processes()
    with locked(out, f"--output_dir {out}") if state.is_main_process else nullcontext():
        return _run_table(table, sources, models, args, rest, out, state, command)


def _run_table(table, sources, models, args, rest, out, state, command):
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    work = out / "scratch"
    with state.main_process_first():
        work.mkdir(parents=True, exist_ok=True)
        write_text(work / ".gitignore", "*\n")  # data and checkpoints are not part of a record
        cells, absent = _cells(table, sources, models, args, rest, work)
    pending = [cell for cell in cells if "metrics" not in (cell.load(out) or {})]
    pending.sort(key=lambda cell: args.seeds.index(cell.seed))  # one run of each cell comes before the second of any
    state.wait_for_everyone()  # or else a rank would see what another one has done already
    mine = share(pending, state.process_index, state.num_processes)
    rates = _Rates([result for cell in cells if (result := cell.load(out))])
    if args.dry_run:
        _tell(console, pending, rates, state)
        return 0
    device = state.local_process_index if state.num_processes > 1 else None
    try:
        _run_all(console, mine, out, work, device, rates)
        state.wait_for_everyone()
    finally:  # a run that is stopped leaves the table as far as it has come
        if state.is_main_process:
            results = [cell.load(out) or cell.describe(reason="not run yet") for cell in cells] + absent
            found = report.lines(table, _rows(table, sources), results)
            report.write(table, found, out, command)
    if not state.is_main_process:
        return 0
    missing = sum("metrics" not in result for result in results)
    console.print(f"{len(results) - missing} of {len(results)} cells have a result: {escape(str(out / 'table.md'))}")
    return missing


def _datasets(table, name, args):
    """Where each data set to run is, or `None` for where the table has it, by name."""
    named = [value.partition("=") for value in args.datasets]
    known = dict.fromkeys(row.dataset for row in table.rows.values())
    unknown = next((dataset for dataset, _, _ in named if known and dataset not in known), None)
    if unknown is not None:
        raise InputError(f"--datasets {unknown}: the table {name} has {', '.join(known)}; for others there is local.")
    if not known and not named:
        raise InputError(f"--datasets: the table {name} has none of its own; name some, as NAME or NAME=PATH.")
    return {dataset: path or None for dataset, _, path in named} or known


def _models(table, args):
    """What stands for each column, by name."""
    models = {}
    for value in args.models:
        name, _, source = value.partition("=")
        known = table.models.get(name) or MODELS.get(name) or Model(name)
        models[name] = replace(known, source=source) if source else known
    return models or table.models


def _cells(table, sources, models, args, rest, work):
    """The cells that can run, and results with the reason for those that cannot."""
    cells, absent = [], []
    for dataset, source in sources.items():
        try:
            data, reason = prepare(table.data, dataset, source, args.data, args.limit, work / "data"), None
        except InputError as error:
            data, reason = None, str(error)
        for name, model in models.items():
            where = model.source_for(dataset)
            no_weights = f"there are no public weights; give them by --models {name}=FOLDER" if where is None else None
            for seed in args.seeds:
                if reason or no_weights:
                    why = reason or no_weights
                    absent.append({"dataset": dataset, "model": name, "seed": seed, "seconds": 0.0, "reason": why})
                    continue
                steps = _steps(table, dataset, data, name, model, seed, args.num_train_epochs, rest)
                cells.append(Cell(dataset, name, where, seed, steps, data, _evaluated(steps)))
    return cells, absent


def _steps(table, dataset, data, name, model, seed, epochs, rest):
    """The commands of a cell."""
    source = model.source_for(dataset)
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


def _evaluated(steps):
    words = steps[-1].arguments
    if steps[-1].command != "finetune":
        return "test split"
    at = words.index("--load_best_model_at_end") + 1 if "--load_best_model_at_end" in words else None
    best = at is not None and (at == len(words) or words[at].lower() not in ("false", "no", "0"))
    return "best on validation" if best else "last epoch"


def _rows(table, sources):
    """The rows of the table that are run; where it has none of its own, one a data set with its usual metric."""
    if table.rows:
        return {name: row for name, row in table.rows.items() if row.dataset in sources}
    return {name: Row(name, BENCHMARKS[name].metric if name in BENCHMARKS else "accuracy") for name in sources}


class _Rates:
    """Seconds for a base of the training split, by model, of the cells that are done."""

    def __init__(self, results):
        self.done = {}
        for result in results:
            self.add(result)

    def add(self, result):
        if "metrics" in result:
            seconds, bases = self.done.get(result["model"], (0.0, 0))
            self.done[result["model"]] = (seconds + result["seconds"], bases + result["bases"])

    def seconds(self, cell):
        """What a cell will take, by cells of its model, or of any if there is none; `None` before the first one."""
        found = [self.done[cell.model]] if cell.model in self.done else list(self.done.values())
        if not found:
            return None
        return cell.data.bases * sum(seconds for seconds, _ in found) / sum(bases for _, bases in found)


def _run_all(console, cells, out, work, device, rates):
    for number, cell in enumerate(cells, start=1):
        left = [rates.seconds(later) for later in cells[number - 1 :]]
        eta = f"; about {_time(sum(left))} left" if None not in left else ""
        title = escape(f"[{number}/{len(cells)}] {_title(cell)}")
        console.print(f"{title}: {cell.data.bases:,} bases to train on{eta}")
        with console.status(title):
            result = run(cell, out, work, device)
        rates.add(result)
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in result.get("metrics", {}).items())
        console.print(f"  {escape(metrics or 'no result: ' + result['reason'])} ({_time(result['seconds'])})")


def _tell(console, cells, rates, state):
    if not state.is_main_process:
        return
    for cell in cells:
        seconds = rates.seconds(cell)
        cost = "cost unknown until a cell is finished" if seconds is None else f"about {_time(seconds)}"
        console.print(
            f"{escape(cell.dataset)}, {escape(cell.model)}, seed {cell.seed}: {cell.data.bases:,} bases, {cost}"
        )
        for step in cell.steps:
            console.print(f"  {escape(shlex.join(step.words()))}")
    known = [seconds for cell in cells if (seconds := rates.seconds(cell)) is not None]
    total = f", about {_time(sum(known))} by one process" if known else ""
    console.print(f"{len(cells)} cells to run{total}.")


def _title(cell):
    return f"{cell.dataset}, {cell.model}, seed {cell.seed}"


def _time(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
