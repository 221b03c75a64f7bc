"""Commands that are killed at random moments and started again, against runs that nothing has interrupted."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pysam
import pytest
import torch
from forked import server_with
from genomes import write_composition
from reference import randomise
from safetensors.torch import load_file

from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.training.runs import last_whole_checkpoint

KILLS = 20
# Modules that are loaded once, in the process that all others are forked from.
MODULES = (
    *("inference.attribute", "inference.context", "inference.dependency_map", "inference.embed_fasta"),
    *("inference.evaluate_variants", "inference.mutagenesis", "inference.predict", "inference.score_variants"),
    *("inference.tracks", "probing.probe", "training.pretrain", "training.soft_prompt"),
)


@pytest.fixture(scope="module")
def context():
    modules = [f"hyenadna_hf.{name}" for name in MODULES]
    with server_with(modules) as context, pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2])  # for the processes, which import this module
        process = context.Process(target=int)  # waits for the modules
        process.start()
        process.join()
        yield context


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    torch.manual_seed(0)
    config = HyenaDNAConfig(d_model=16, n_layer=2, max_seq_len=130, filter_order=16, embed_dropout=0.0)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(folder / "model")
    config.num_labels, config.problem_type = 2, "single_label_classification"
    randomise(HyenaDNAForSequenceClassification(config)).save_pretrained(folder / "classifier")
    randomise(HyenaDNAForTokenClassification(config)).save_pretrained(folder / "annotator")
    for name in ("model", "classifier", "annotator"):
        HyenaDNATokenizer().save_pretrained(folder / name)
    rng = random.Random(0)
    contig = "".join(rng.choices("ACGT", k=20_000))
    (folder / "genome.fa").write_text(f">chr1\n{contig}\n>chr2\n{contig[:5000][::-1]}\n")
    pysam.faidx(str(folder / "genome.fa"))
    lines = [
        f"chr1\t{at + 1}\t.\t{contig[at]}\t{'A' if contig[at] != 'A' else 'C'}\t.\t.\t.\n"
        for at in range(0, 20_000, 40)
    ]
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "in.vcf").write_text(header + "".join(lines))
    intervals = (rng.randrange(19_900) for _ in range(2000))
    (folder / "in.bed").write_text("".join(f"chr1\t{start}\t{start + 100}\n" for start in intervals))
    (folder / "regions.bed").write_text("".join(f"chr1\t{at}\t{at + 50}\n" for at in range(100, 4100, 100)))
    rows = [f"{contig[at : at + 100]},{at}\n" for at in range(0, 19_900, 10)]
    (folder / "in.csv").write_text("sequence,number\n" + "".join(rows))
    rows = [line.split("\t")[:5] for line in lines[:200]]
    rows = [f"{name},{at},{ref},{alt},{number % 2}\n" for number, (name, at, _, ref, alt) in enumerate(rows)]
    (folder / "variants.csv").write_text("chrom,pos,ref,alt,label\n" + "".join(rows))
    write_composition(folder / "labelled", {"train": 60, "dev": 20, "test": 20})
    return folder


def run(module, constants, argv):
    """A command in a process of its own, with small parts."""
    torch.set_num_threads(1)
    imported = __import__(f"hyenadna_hf.{module}", fromlist=["main"])
    for name, value in constants.items():
        owner, _, constant = name.rpartition(".")
        setattr(__import__(f"hyenadna_hf.{owner}", fromlist=["x"]), constant, value)
    imported.main(argv)


def check_with_kills(start, whole, killed, compare, is_done=lambda folder: False):
    """
    Run a command whole, then kill it at `KILLS` random moments, and compare each result that comes about.

    Args:
        start (`Callable`): Starts the command with results in a folder, or starts it again; gives its process.
        whole, killed (`Path`): Folders for the results.
        compare (`Callable`): Compares the results in the two folders.
        is_done (`Callable`): Whether the result in a folder is there, though the process was killed after that.
    """
    started = time.monotonic()
    process = start(whole)
    process.join()
    seconds = time.monotonic() - started
    assert process.exitcode == 0
    rng, kills, results = random.Random(0), 0, 0
    while kills < KILLS or not results:
        process = start(killed)
        process.join(rng.uniform(0, seconds) if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0 or is_done(killed):
            compare(whole, killed)
            shutil.rmtree(killed)
            results += 1


# Module, file or folder to write, and options, in which the files of `folder` stand for their paths.
GENOME = ["--fasta", "genome.fa", "--model", "model"]
BASES = ["--input", "genome.fa", "--model", "annotator"]
WINDOW = ["--window", "120"]
EVALUATE = ["--table", "variants.csv", "--label_column", "label", "--bootstrap", "20", "--window", "100"]
PROBE = ["--dataset", "labelled", "--model", "model", "--poolings", "mean", "--train_sizes", "2", "all"]
PROBE += ["--classifiers", "ridge", "knn"]
RESUMABLE = {
    "attribute": ("inference.attribute", "out.bw", [*GENOME, "--bed", "regions.bed", "--method", "input_x_gradient"]),
    "context": ("inference.context", "made", [*GENOME, "--region", "chr1", "--windows", "40", "--needle_length", "8"]),
    "dependency-map": ("inference.dependency_map", "out.npz", [*GENOME, "--region", "chr1:1001-1100", *WINDOW]),
    "embed, NumPy": ("inference.embed_fasta", "out.npy", [*GENOME, "--bed", "in.bed"]),
    "embed, Parquet": ("inference.embed_fasta", "out.parquet", [*GENOME, "--bed", "in.bed"]),
    "evaluate-variants": ("inference.evaluate_variants", "made", [*GENOME, *EVALUATE]),
    "mutagenesis": ("inference.mutagenesis", "out.tsv", [*GENOME, "--region", "chr1:1001-1200", *WINDOW]),
    "predict, BED": ("inference.predict", "out.bed", BASES),
    "predict, bigWig": ("inference.predict", "out.bw", [*BASES, "--target", "LABEL_1"]),
    "predict, TSV": ("inference.predict", "out.tsv", ["--input", "in.csv", "--model", "classifier"]),
    "probe": ("probing.probe", "made", PROBE),
    "score-variants, TSV": ("inference.score_variants", "out.tsv", [*GENOME, "--vcf", "in.vcf", *WINDOW]),
    "score-variants, VCF": ("inference.score_variants", "out.vcf.gz", [*GENOME, "--vcf", "in.vcf", *WINDOW]),
    "track, bedGraph": ("inference.tracks", "out.bg", [*GENOME, *WINDOW]),
    "track, bigWig": ("inference.tracks", "out.bw", [*GENOME, *WINDOW]),
}
SMALL_PARTS = {
    "inference.context.PART_TOKENS": 3000,
    "inference.dependency_map.PART_TOKENS": 3000,
    "inference.embed_fasta.PART_BASES": 5000,
    "inference.evaluate_variants.PART_BASES": 2000,
    "inference.predict.PART_BASES": 2000,
    "inference.score_table.PART_BASES": 2000,
    "inference.tracks.PART_BASES": 1000,
    "probing.probe.PART_BASES": 2000,
}


@pytest.mark.slow
@pytest.mark.parametrize("command", RESUMABLE)
def test_a_result_is_the_same_whatever_kills_there_were(context, folder, tmp_path, command):
    module, out, options = RESUMABLE[command]
    options = [str(folder / word) if (folder / word).exists() else word for word in options]

    def start(folder):
        folder.mkdir(exist_ok=True)
        argv = [*options, "--use_cpu", "true", "--out", str(folder / out)]
        process = context.Process(target=run, args=(module, SMALL_PARTS, argv))
        process.start()
        return process

    def compare(whole, killed):
        files, found = (
            sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            for folder in (whole, killed)
        )
        assert found == files and (whole / out).exists()
        for name in files:
            expected = (whole / name).read_bytes().replace(str(whole).encode(), str(killed).encode())  # command lines
            assert (killed / name).read_bytes() == expected, name

    def is_done(folder):  # embed would refuse to write over it
        return (folder / out).is_file() and not (folder / f"{out}.partial").exists()

    check_with_kills(start, tmp_path / "whole", tmp_path / "killed", compare, is_done)


@pytest.mark.slow
def test_prompts_are_the_same_whatever_kills_there_were(context, folder, tmp_path):
    options = ["--dataset", str(folder / "labelled"), "--model", str(folder / "model"), "--use_cpu", "true"]
    options += ["--prompt_tokens", "0", "2", "4", "--shots", "0", "--num_train_epochs", "3", "--baselines", "lora"]

    def start(folder):
        argv = [*options, "--output_dir", str(folder / "made")]
        process = context.Process(target=run, args=("training.soft_prompt", {}, argv))
        process.start()
        return process

    def compare(whole, killed):
        results = [json.loads((folder / "made" / "results.json").read_text()) for folder in (whole, killed)]
        for rows in (row for result in results for row in (*result["runs"], *result["rows"], *result["baselines"])):
            del rows["seconds"]
        assert results[0] == results[1]
        files, found = (
            sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            for folder in (whole, killed)
        )
        assert files == found and not [name for name in files if "checkpoint" in name or "partial" in name]
        prompts = [name for name in files if name.endswith("adapter_model.safetensors")]
        assert len(prompts) == 2
        for name in prompts:
            assert (whole / name).read_bytes() == (killed / name).read_bytes()

    check_with_kills(start, tmp_path / "whole", tmp_path / "killed", compare)


@pytest.mark.slow
def test_pretraining_ends_with_the_same_weights_whatever_kills_there_were(context, folder, tmp_path):
    common = [
        "--fasta",
        str(folder / "genome.fa"),
        "--model",
        str(folder / "model"),
        "--test",
        "chr2",
        "--window",
        "64",
    ]
    common += ["--per_device_train_batch_size", "8", "--max_steps", "30", "--save_steps", "2", "--eval_strategy", "no"]

    def start(folder):
        resume = ["--resume_from_checkpoint", "true"] if folder.is_dir() and last_whole_checkpoint(folder) else []
        argv = [*common, "--output_dir", str(folder), *resume]
        process = context.Process(target=run, args=("training.pretrain", {}, argv))
        process.start()
        return process

    def compare(whole, killed):
        expected, found = (load_file(folder / "model.safetensors") for folder in (whole, killed))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)

    check_with_kills(start, tmp_path / "whole", tmp_path / "killed", compare)
