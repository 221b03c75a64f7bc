import csv
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from forked import COMMAND, run_script
from genomes import write_composition
from hypothesis import given
from hypothesis import strategies as st

import hyenadna_hf
from hyenadna_hf import HyenaDNAConfig
from hyenadna_hf.data.genomic_benchmarks import GENOMIC_BENCHMARKS
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.reproduce import cells, command, report
from hyenadna_hf.reproduce.cells import Cell, Step, share
from hyenadna_hf.reproduce.command import main
from hyenadna_hf.reproduce.data import Data, find, prepare
from hyenadna_hf.reproduce.tables import MODELS, TABLES, Row, Table

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "reproduce_splice_sites"
BAND = 6.0  # points of accuracy, about three standard deviations of the recorded runs


def write_data(folder, prefix=""):
    return write_composition(folder, {"train": 60, "test": 24}, prefix)


def read_table(out):
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_published_figures_of_genomic_benchmarks(shared):
    lines = (shared / "reference" / "recipes.md").read_text().splitlines()
    names = ["cnn", "dnabert", "gpt-main", "gpt", "gpt-pretrained", "hyenadna", "hyenadna-pretrained"]
    names += ["hyenadna-kmer", "hyenadna-bidirectional"]
    published = {}
    for cells_ in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")):
        if cells_[0] in GENOMIC_BENCHMARKS:
            published[cells_[0]] = dict(zip(names, map(float, cells_[3:])))
    assert len(published) == 8
    main_table, ablations = (TABLES[name].published for name in ("genomic-benchmarks", "gb-ablations"))
    for name, figures in published.items():
        gpt = figures.pop("gpt-main")
        assert main_table[name]["gpt-pretrained"] == gpt
        assert {**main_table[name], **ablations[name]} == figures


def test_published_figures_of_the_nucleotide_transformer_tasks(shared):
    text = (shared / "reference" / "recipes.md").read_text()
    text = text[text.index("Results (NT 500M") : text.index("Original files")]
    published = [list(map(float, found.split("/"))) for found in re.findall(r"\d[\d.]+/\d[\d./]+\d", text)]
    ours = TABLES["nucleotide-transformer"].published
    order = ("nt-500m", "nt-2.5b-human", "nt-2.5b-species", "hyenadna-pretrained")
    assert sorted(published) == sorted([figures[name] for name in order] for figures in ours.values())
    assert ours["H3K4me3"]["hyenadna-pretrained"] == 61.2 and ours["promoter_tata"]["nt-500m"] == 94.8


def test_every_figure_belongs_to_a_row_and_a_column_that_can_be_run():
    for table in TABLES.values():
        assert set(table.published) <= set(table.rows)
        for row, figures in table.published.items():
            for model in figures:
                source = (MODELS | table.models)[model].source  # some columns are there only if they are asked for
                if isinstance(source, dict):
                    assert table.rows[row].dataset in source


@given(st.lists(st.integers(), unique=True), st.integers(1, 9))
def test_each_cell_is_run_by_one_rank(numbers, world_size):
    shares = [share(numbers, rank, world_size) for rank in range(world_size)]
    assert sorted(number for mine in shares for number in mine) == sorted(numbers)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def steps_are_forked(monkeypatch):
    """Runs each step in a process that need not import everything; tests/reproduce/test_bits.py runs them unchanged."""

    def run(words, stdin, stdout, stderr, env):
        assert words[:3] == [sys.executable, "-m", "hyenadna_hf"]
        result = run_script(COMMAND, *words[3:], environment=env)
        stdout.write(result.stdout + result.stderr)
        return result

    monkeypatch.setattr(cells.subprocess, "run", run)


def test_local_table(untrained, tmp_path, capsys, steps_are_forked):
    write_data(tmp_path / "mine")
    out = tmp_path / "out"
    settings = [
        "--limit",
        "40",
        "--num_train_epochs",
        "4",
        "--learning_rate",
        "1e-2",
        "--per_device_train_batch_size",
        "8",
    ]
    arguments = ["local", "--datasets", f"mine={tmp_path / 'mine'}", *settings, "--output_dir", str(out)]
    main([*arguments, "--models", f"small={untrained}", "--seeds", "1", "2"])
    (ours,) = read_table(out)
    assert float(ours["mean"]) > 70 and ours["n"] == "2" and ours["seeds"] == "1 2" and float(ours["sd"]) >= 0
    assert (ours["train"], ours["test"], ours["epochs"]) == ("40", "24", "4.0")
    assert ours["split"] == "splits as in the files; limited to 40 per split" and ours["evaluated"] == "last epoch"
    assert ours["command"].endswith("--num_train_epochs 4 --learning_rate 1e-2 --per_device_train_batch_size 8")
    assert (out / "table.png").stat().st_size > 1000
    assert not list((out / "cells").glob("*.partial"))  # checkpoints of what is done are not kept

    main([*arguments, "--models", f"small={untrained}", "--seeds", "1", "2", "3", "--dry_run"])
    assert capsys.readouterr().err.splitlines()[-1].startswith("1 cells to run, about ")  # by the time of the others

    # Called again, only what has no result is run; figures are those of the files; what fails does not end the run.
    (done,) = (out / "cells").glob("mine-small-seed1-*.json")
    result = json.loads(done.read_text())
    result["metrics"]["accuracy"] = 0.125
    done.write_text(json.dumps(result))
    more = ["--models", f"small={untrained}", "no/such-model", "gpt-pretrained", "--seeds", "1"]
    with pytest.raises(WorkError, match="5 cells have no result; .*/table.md lists the reasons") as failed:
        main([*arguments[:3], f"absent={tmp_path / 'absent'}", *arguments[3:], *more])
    assert failed.value.result == {"table": "local", "output_dir": str(out), "missing": 5}
    lines = {(line["row"], line["model"]): line for line in read_table(out)}
    assert lines["mine", "small"]["mean"] == "12.5" and json.loads(done.read_text()) == result
    assert "cannot be loaded" in lines["mine", "no/such-model"]["reason"]
    assert lines["mine", "gpt-pretrained"]["reason"].startswith("there are no public weights")
    assert "there is no such file or folder" in lines["absent", "small"]["reason"]
    text = (out / "table.md").read_text()
    assert "| mine | 12.5 (1) | - | - |" in text and "hyenadna reproduce local --datasets" in text


@pytest.mark.slow
def test_ranks_run_each_cell_once(untrained, tmp_path):
    write_data(tmp_path / "mine")
    out = tmp_path / "out"
    script = tmp_path / "reproduce.py"
    script.write_text("import sys; from hyenadna_hf.reproduce.command import main; main(sys.argv[1:])")
    arguments = [
        "local",
        "--datasets",
        f"mine={tmp_path / 'mine'}",
        "--models",
        str(untrained),
        "--num_train_epochs",
        "1",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    status = subprocess.run(
        [*launch, str(script), *arguments, "--seeds", "1", "2", "--output_dir", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(hyenadna_hf.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert status.returncode == 0, status.stderr
    assert status.stderr.count("bases to train on") == 2
    assert read_table(out)[0]["n"] == "2"


def test_a_run_that_is_stopped_leaves_the_table_so_far(untrained, tmp_path, monkeypatch):
    def stopped_at_the_third(cell, out, *_):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append((cell.dataset, cell.seed))
        result = cell.describe(metrics={"accuracy": 0.5}, seconds=1.0)
        cell.path(out).parent.mkdir(exist_ok=True)
        cell.path(out).write_text(json.dumps(result))
        return result

    seen, out = [], tmp_path / "out"
    monkeypatch.setattr(command, "run", stopped_at_the_third)
    datasets = [f"{name}={write_data(tmp_path / name)}" for name in ("one", "two")]
    with pytest.raises(KeyboardInterrupt):
        main(
            [
                "local",
                "--datasets",
                *datasets,
                "--models",
                str(untrained),
                "--seeds",
                "7",
                "3",
                "--output_dir",
                str(out),
            ]
        )
    assert seen == [("one", 7), ("two", 7)]  # the first seed of each comes first
    for line in read_table(out):
        assert (line["n"], line["seeds"], line["reason"]) == ("1", "7", "not run yet")


def test_pictures_of_a_cell_are_kept(tmp_path, monkeypatch):
    def drawn(step, folder, number, device):
        (folder / "step-0").mkdir()
        (folder / "step-0" / "embeddings.png").write_bytes(b"picture")
        return {"metrics": {"accuracy": 0.5}}

    monkeypatch.setattr(cells, "_run_step", drawn)
    data = Data("somewhere", "somewhere", "", {}, 1, "data")
    cell = Cell("mine", "small", "model", 1, (Step("probe", ("--picture",)),), data)
    result = cells.run(cell, tmp_path / "out")
    assert result == cell.load(tmp_path / "out") and result["metrics"] == {"accuracy": 0.5}
    kept = cell.path(tmp_path / "out")
    assert kept.with_name(f"{kept.stem}-embeddings.png").read_bytes() == b"picture"
    assert len(list(kept.parent.iterdir())) == 2


def test_a_cell_that_fails_resumes_with_the_step_that_failed(tmp_path, monkeypatch):
    """The results of its first step are kept; the reason is there until the cell has a result."""
    made = []

    def step(step, folder, number, device):
        made.append(step.command)
        if step.command == "finetune" and len(made) == 2:
            raise InputError("no room")
        return {"train_seconds": 2.0} if step.command == "pretrain" else {"test": {"model": {"accuracy": 0.5}}}

    monkeypatch.setattr(cells, "_run_step", step)
    steps = Step("pretrain", ()), Step("finetune", ())
    cell = Cell("mine", "small", "model", 1, steps, Data("somewhere", "somewhere", "", {}, 1, "data"))
    result = cells.run(cell, tmp_path)
    assert result["reason"] == "no room" and "metrics" not in result and cell.load(tmp_path) == result
    assert cells.run(cell, tmp_path)["metrics"] == {"pretraining_seconds": 2.0, "accuracy": 0.5}
    assert made == ["pretrain", "finetune", "finetune"] and "reason" not in cell.load(tmp_path)
    assert list((tmp_path / "cells").iterdir()) == [cell.path(tmp_path)]


def test_a_cell_is_another_one_if_anything_that_matters_differs(tmp_path, untrained):
    def key(argument="somewhere", fingerprint="data", more=(), model=untrained):
        step = Step("finetune", ("--dataset", argument, "--model", str(model), *more))
        data = Data(argument, argument, "", {}, 1, fingerprint)
        return Cell("mine", "small", str(model), 1, (step,), data).key

    first = key()
    shutil.copytree(untrained, tmp_path / "copy")
    assert key(argument="elsewhere", model=tmp_path / "copy") == first  # where things lie does not matter
    assert key(fingerprint="other") != first
    assert key(more=("--seed", "2")) != first
    HyenaDNAConfig(d_model=16, filter_order=8, max_seq_len=64).save_pretrained(untrained)
    assert key() != first


@pytest.mark.parametrize("state", ['{"global_step": 3}', '{"glob'])
def test_a_killed_cell_goes_on_from_its_checkpoint(untrained, tmp_path, monkeypatch, state):
    """Or starts anew if the kill has cut the checkpoint."""
    folder = tmp_path / "run" / "step-0"
    (folder / "checkpoint-3").mkdir(parents=True)
    (folder / "checkpoint-3" / "trainer_state.json").write_text(state)
    (folder / "results.json").write_text("{}")  # some commands write it as they go
    called = []

    def finished(words, **_):
        called.append(words)
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text('{"test": {"model": {"accuracy": 1.0}}}')
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(cells.subprocess, "run", finished)
    step = Step("finetune", ("--dataset", "x"), resumes=True)
    assert cells._run_step(step, folder.parent, 0, None) == {"test": {"model": {"accuracy": 1.0}}}
    resumed = called[0][-2:] == ["--resume_from_checkpoint", "true"]
    assert resumed == state.endswith("}") == (folder / "checkpoint-3").is_dir()


def test_where_data_are_found(tmp_path):
    write_data(tmp_path / "folder" / "one")
    write_data(tmp_path / "folder", "two_")
    write_data(tmp_path / "other")
    (tmp_path / "other" / "test.csv").rename(tmp_path / "folder" / "test_three.csv")
    folder = str(tmp_path / "folder")
    assert find(folder, "one") == str(tmp_path / "folder" / "one")
    assert find(folder, "two") == str(tmp_path / "folder" / "two")
    assert find(folder, "three") == str(tmp_path / "folder" / "test_three.csv")
    with pytest.raises(InputError, match="the folder contains neither four nor four_train"):
        find(folder, "four")


def test_a_single_file_is_split_and_said_to_be(tmp_path):
    write_data(tmp_path)
    (tmp_path / "train.csv").rename(tmp_path / "test_human_nontata_promoters.csv")
    name = "human_nontata_promoters"
    data = prepare("labelled", name, None, str(tmp_path), None, tmp_path / "work")
    assert data.split == "75% and 25% of test_human_nontata_promoters.csv, not the published split"
    assert data.sizes["test"] == 15 and sum(data.sizes.values()) == 60
    again = prepare("labelled", name, None, str(tmp_path), None, tmp_path / "work")
    assert again == data
    tables = [pd.read_parquet(Path(data.argument) / f"{split}.parquet") for split in data.sizes]
    assert set(tables[0]["label"]) == {"AT", "GC"}
    sequences = [set(table["sequence"]) for table in tables]
    assert not sequences[0] & sequences[2] and not sequences[1] & sequences[2]


def test_sizes_tell_the_published_split(tmp_path):
    write_data(tmp_path, "human_enhancers_cohn_")
    data = prepare("labelled", "human_enhancers_cohn", None, str(tmp_path), None, tmp_path / "work")
    assert data.split == "60 / 24 of 20,843 / 6,948 sequences, not the published split"
    assert data.argument == str(tmp_path / "human_enhancers_cohn")  # whole: read where it is


def test_limit_keeps_the_proportions_of_classes(tmp_path):
    write_data(tmp_path)
    data = prepare("labelled", "mine", str(tmp_path), None, 20, tmp_path / "work")
    assert data.sizes == {"train": 20, "validation": 6, "test": 20}
    train = pd.read_parquet(Path(data.argument) / "train.parquet")
    assert train["label"].value_counts().to_dict() == {"AT": 10, "GC": 10}
    with pytest.raises(InputError, match="--limit 1"):
        prepare("labelled", "mine", str(tmp_path), None, 1, tmp_path / "work")


def test_mean_and_spread_over_seeds():
    table = Table("A table", "finetune", "labelled", {"a": Row("a", "mcc")}, {}, {"a": {"m": 61.2}})
    runs = [
        {"dataset": "a", "model": "m", "seed": seed, "seconds": 2.0, "metrics": {"mcc": value, "accuracy": 0.9}}
        for seed, value in enumerate((0.5, 0.6, 0.7))
    ]
    runs.append({"dataset": "a", "model": "m", "seed": 9, "seconds": 1.0, "reason": "no | room"})
    (line,) = report.summarise(table, table.rows, runs)
    assert (line["published"], line["n"], line["seeds"]) == (61.2, 3, "0 1 2")
    assert line["mean"] == pytest.approx(60) and line["sd"] == pytest.approx(10)
    text = report.markdown(table, [line], "hyenadna reproduce a")
    assert "| a | 60.0 ± 10.0 (3) [61.2] |" in text and "no \\| room" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "table nonsense: there is no such table"),
        (["local"], "--datasets: the table local has no data sets of its own"),
        (["species", "--datasets", "2k"], "--datasets 2k: the table species has 1k"),
        (["genomic-benchmarks", "--limit", "0"], "--limit 0: it must be greater than 0"),
        (["genomic-benchmarks", "--num_train_epochs", "-1"], "--num_train_epochs -1.0: it must be greater than 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert not list(tmp_path.iterdir())


def test_dry_run_tells_commands_and_writes_no_table(untrained, tmp_path, capsys):
    write_data(tmp_path / "mine")
    out = tmp_path / "out"
    arguments = [
        "local",
        "--datasets",
        f"mine={tmp_path / 'mine'}",
        "--models",
        str(untrained),
        "--output_dir",
        str(out),
    ]
    main([*arguments, "--dry_run", "--max_steps", "1"])
    told = capsys.readouterr().err
    assert "cost unknown" in told and "--max_steps 1" in told and "1 cells to run" in told
    assert not (out / "cells").exists() and not (out / "table.md").exists()


@pytest.mark.slow
def test_warm_up_pretrains_then_tells_species_apart(tmp_path, monkeypatch):
    rng = random.Random(0)
    genomes = tmp_path / "genomes"
    genomes.mkdir()
    for name, weights in (("one", (1, 4, 4, 1)), ("two", (4, 1, 1, 4))):
        bases = "".join(rng.choices("ACGT", weights, k=40_000))
        (genomes / f"{name}.fa").write_text(f">chr1\n{bases}\n")
    model = tmp_path / "model"
    HyenaDNAConfig(d_model=8, n_layer=1, filter_order=8, max_seq_len=1026).save_pretrained(model)
    arguments = ["--datasets", "1k", "--data", str(genomes), "--limit", "8", "--num_train_epochs", "1"]
    out = tmp_path / "out"
    main(["warm-up", *arguments, "--models", f"full length={model}", f"warm-up={model}", "--output_dir", str(out)])
    lines = {(line["row"], line["model"]): line for line in read_table(out)}
    for name in ("full length", "warm-up"):
        assert 0 <= float(lines["1k, accuracy", name]["mean"]) <= 100
        assert float(lines["1k, pretraining, s", name]["mean"]) > 0
    assert "--initial_length 64" in lines["1k, accuracy", "warm-up"]["command"]
    assert "--initial_length" not in lines["1k, accuracy", "full length"]["command"]


@pytest.mark.slow
def test_a_fresh_run_lands_near_the_recorded_one(tmp_path):
    """One cell of the record, run again with another seed: within the band of the recorded mean."""
    (recorded,) = (line for line in read_table(RECORDED) if line["model"] == "cnn")
    out = tmp_path / "out"
    arguments = ["--datasets", "splice_sites_chr20", "--models", "cnn", "--limit", "2000", "--num_train_epochs", "3"]
    main(["local", *arguments, "--seeds", "7", "--output_dir", str(out)])
    (fresh,) = read_table(out)
    assert fresh["train"] == recorded["train"] and fresh["epochs"] == recorded["epochs"]
    assert math.isclose(float(fresh["mean"]), float(recorded["mean"]), abs_tol=BAND)
