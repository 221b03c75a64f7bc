"""Every command with every class of bad input and of output that cannot be written: one line, and nothing left."""

import gzip
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import set_seed

from hyenadna_cli import COMMANDS, main
from hyenadna_hf import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNAForTokenClassification,
    HyenaDNATokenizer,
)
from hyenadna_hf.jobs import hold_lock

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")
FASTQ = b"@read1\nACGTACGTAC\n+\nIIIIIIIIII\n"
OK, FAILED, BAD_INPUT = 0, 1, 2


@dataclass
class Call:
    """
    A command line that works.

    Args:
        words (`str`): The arguments, in which {model}, {genome}, {source} and {output} stand for paths.
        source (`str`): Name of the input to damage, of those that `good` makes.
        output (`str`): Name of the file or folder to write; `None` if there is none.
        replaces (`bool`): Whether it replaces an older output.
    """

    words: str
    source: str
    output: str | None = None
    replaces: bool = True

    @property
    def makes_a_folder(self):
        return self.output == "made"


PROMPTS = "--dataset {source} --model {model} --output_dir {output} --shots 0 --limit 4 --use_cpu"
SCORES = "--model {model} --out {output} --window 32 --use_cpu"
TRAINING = "--output_dir {output} --max_steps 1 --save_steps 1 --use_cpu"
CALLS = {
    "attribute": Call(
        "--region one:21-40 --fasta {source} --model {model} --out {output} --use_cpu", "genome.fa", "out.bw"
    ),
    "context": Call("--region one --windows 4 --needle_length 8 --fasta {source} " + SCORES, "genome.fa", "made"),
    "convert": Call("{source} {output} --config {model}/config.json", "model.safetensors", "made"),
    "data": Call("info {source}", "table.csv"),
    "dependency-map": Call("--region one:21-30 --fasta {source} " + SCORES, "genome.fa", "map.npz"),
    "embed": Call("--fasta {source} " + SCORES, "genome.fa", "out.parquet", replaces=False),
    "evaluate-variants": Call(
        "--table {source} --label_column kind --positive a --bootstrap 20 --fasta {genome} " + SCORES,
        "variants.csv",
        "made",
    ),
    "export-onnx": Call("--model {source} --out {output} --max_length 16", "model", "out.onnx"),
    "few-shot": Call(PROMPTS + " --tuning_samples 0", "table.csv", "made"),
    "finetune": Call("--dataset {source} --model {model} --no_baselines " + TRAINING, "table.csv", "made"),
    "mutagenesis": Call("--region one:21-30 --fasta {source} " + SCORES, "genome.fa", "scores.tsv"),
    "predict": Call("--input {source} --model {classifier} --out {output} --use_cpu", "table.csv", "predictions.tsv"),
    "pretrain": Call("--fasta {source} --model {model} --validation two --window 32 " + TRAINING, "genome.fa", "made"),
    "probe": Call(
        "--dataset {source} --model {model} --out {output} --classifiers ridge --poolings mean --limit 20 --use_cpu",
        "table.csv",
        "made",
    ),
    "publish": Call("{source} someone/name", "model"),
    "reproduce": Call(
        "local --datasets mine={source} --models small={model} --limit 20 " + TRAINING.replace(" --save_steps 1", ""),
        "table.csv",
        "made",
    ),
    "score-variants": Call("--vcf {source} --fasta {genome} " + SCORES, "variants.vcf", "scores.tsv"),
    "soft-prompt": Call(PROMPTS + " --prompt_tokens 2 --num_train_epochs 1", "table.csv", "made"),
    "track": Call("--fasta {source} " + SCORES, "genome.fa", "out.bw"),
}
FORMATS = {  # besides those above
    "convert, published": Call(CALLS["convert"].words + " --to published", "model.safetensors", "made"),
    "dependency-map, parquet": Call(CALLS["dependency-map"].words, "genome.fa", "map.parquet"),
    "dependency-map, plot": Call(CALLS["dependency-map"].words + " --plot {output}.png", "genome.fa", "map.npz"),
    "embed, npy": Call(CALLS["embed"].words, "genome.fa", "out.npy", replaces=False),
    "embed, h5ad": Call(CALLS["embed"].words, "genome.fa", "out.h5ad", replaces=False),
    "mutagenesis, plot": Call(CALLS["mutagenesis"].words + " --plot {output}.png", "genome.fa", "scores.tsv"),
    "predict, bed": Call("--input {source} --model {annotator} --out {output} --use_cpu", "genome.fa", "out.bed"),
    "predict, bigwig": Call(
        "--input {source} --model {annotator} --target LABEL_1 --out {output} --use_cpu", "genome.fa", "out.bw"
    ),
    "score-variants, vcf": Call(CALLS["score-variants"].words, "variants.vcf", "out.vcf"),
    "score-variants, vcf.gz": Call(CALLS["score-variants"].words, "variants.vcf", "out.vcf.gz"),
    "track, bedgraph": Call(CALLS["track"].words, "genome.fa", "out.bedgraph"),
}
WRITERS = {name: call for name, call in {**CALLS, **FORMATS}.items() if call.output}
WITHOUT_INPUT = {"completion", "doctor"}


def test_every_command_is_in_the_table():
    assert CALLS.keys() | WITHOUT_INPUT == COMMANDS.keys()


@pytest.fixture(autouse=True)
def without_anndata(request):
    if "h5ad" in request.node.name:
        pytest.importorskip("anndata")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with good inputs of all kinds, small and real."""
    folder, rng = tmp_path_factory.mktemp("good"), random.Random(0)
    set_seed(0)
    sizes = {"d_model": 8, "n_layer": 1, "filter_order": 8, "max_seq_len": 64}
    HyenaDNAForCausalLM(HyenaDNAConfig(**sizes)).save_pretrained(folder / "model")
    config = HyenaDNAConfig(**sizes, num_labels=2, problem_type="single_label_classification")
    HyenaDNAForSequenceClassification(config).save_pretrained(folder / "classifier")
    HyenaDNAForTokenClassification(config).save_pretrained(folder / "annotator")
    for name in ("model", "classifier", "annotator"):
        HyenaDNATokenizer(model_max_length=64).save_pretrained(folder / name)
    (folder / "model.safetensors").write_bytes((folder / "model" / "model.safetensors").read_bytes())
    contigs = {name: "".join(rng.choices("ACGT", k=300)) for name in ("one", "two")}
    (folder / "genome.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in contigs.items()))
    header = "##fileformat=VCFv4.2\n" + "".join(f"##contig=<ID={name},length=300>\n" for name in contigs)
    header += "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    references = [(position, contigs["one"][position - 1]) for position in range(50, 90)]
    alleles = [(position, base, "ACGT".replace(base, "")[0]) for position, base in references]
    rows = (f"one\t{position}\t.\t{base}\t{other}\t.\t.\t.\n" for position, base, other in alleles)
    (folder / "variants.vcf").write_text(header + "".join(rows))
    rows = (f"one,{position},{base},{other},{'ab'[position % 2]}\n" for position, base, other in alleles)
    (folder / "variants.csv").write_text("chrom,pos,ref,alt,kind\n" + "".join(rows))
    table = (f"{''.join(rng.choices('ACGT', k=20))},{'ab'[i % 2]}\n" for i in range(60))
    (folder / "table.csv").write_text("sequence,label\n" + "".join(table))
    return folder


def snapshot(folder):
    """Every file and folder under a folder, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith((".fai", ".gzi"))
    }


def argv(name, good, source, output):
    """The command line with paths; they have no blanks."""
    models = {name: good / name for name in ("model", "classifier", "annotator")}
    paths = {**models, "genome": good / "genome.fa", "source": source, "output": output}
    return [name.split(",")[0], *{**CALLS, **FORMATS}[name].words.format(**paths).split()]


def run(name, good, source, output, capfd):
    """The exit status of a command, and what it printed on stderr."""
    status = main(argv(name, good, source, output))
    return status, capfd.readouterr().err


def check_error(name, status, err, expected, alone=True):
    """The one line of an error. Progress bars are no lines: in this process, tqdm was imported before the command."""
    lines = [line for line in re.split(r"[\r\n]|\x1b\[A", err) if line.strip() and not re.search(r"\d%\|", line)]
    errors = [line for line in lines if line.startswith("hyenadna")]
    assert status in expected, err
    assert len(errors) == 1 and errors[0].startswith(f"hyenadna {name.split(',')[0]}: error: "), err
    assert "Traceback" not in err
    if alone:
        assert lines == errors
    return errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WRITERS, "data"])
def test_the_calls_are_good(name, good, tmp_path, capfd):
    """Or else the tests below would show nothing."""
    call = {**CALLS, **FORMATS}[name]
    status, err = run(name, good, good / call.source, tmp_path / (call.output or "none"), capfd)
    assert status == OK, err


def missing(path, good):
    return path


def folder(path, good):
    path.mkdir()
    return path


def beyond_a_file(path, good):
    path.write_bytes(b"x")
    return path / path.name


def empty(path, good):
    path.write_bytes(b"")
    return path


def truncated_gzip(path, good):
    path = path.with_name(f"{path.name}.gz")
    whole = gzip.compress(good.read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    return path


def picture(path, good):
    path.write_bytes(PNG)
    return path


def fastq(path, good):
    path.write_bytes(FASTQ)
    return path


def lfs_pointer(path, good):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n")
    return path


def web_page(path, good):
    path.write_bytes(b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
    return path


BAD_INPUTS = (missing, folder, beyond_a_file, empty, truncated_gzip, picture, fastq, lfs_pointer, web_page)


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.__name__)
@pytest.mark.parametrize("command", CALLS)
def test_bad_input(command, bad, good, tmp_path, capfd):
    call = CALLS[command]
    (tmp_path / "in").mkdir()
    whole = good / call.source if (good / call.source).is_file() else good / "genome.fa"
    source, output = bad(tmp_path / "in" / call.source, whole), tmp_path / (call.output or "none")
    if call.replaces and not call.makes_a_folder:
        output.write_text("an older one")
    before = snapshot(tmp_path)
    status, err = run(command, good, source, output, capfd)
    if command == "reproduce":  # the table has the reason
        check_error(command, status, err, {FAILED}, alone=False)
        assert str(source) in (output / "table.md").read_text()
        return
    assert str(source) in check_error(command, status, err, {BAD_INPUT})
    assert snapshot(tmp_path) == before


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written to, also by root, with an older output in it."""
    yield from mounted(tmp_path, read_only=True)


@pytest.fixture
def full(tmp_path):
    """A folder on a disk with no room left."""
    yield from mounted(tmp_path, pages=0)


@pytest.fixture
def nearly_full(tmp_path):
    """A folder on a disk with room for one small file."""
    yield from mounted(tmp_path, pages=1)


def mounted(tmp_path, read_only=False, pages=0):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting takes root")
    try:
        for call in WRITERS.values():
            if call.replaces and not call.makes_a_folder:
                (disk / call.output).write_text("an older one")
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        else:
            fill(disk / "filler")
            os.truncate(disk / "filler", (disk / "filler").stat().st_size - pages * os.sysconf("SC_PAGESIZE"))
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass


@pytest.mark.parametrize("name", [name for name, call in WRITERS.items() if not call.makes_a_folder])
def test_output_in_no_folder(name, good, tmp_path, capfd):
    call = WRITERS[name]
    status, err = run(name, good, good / call.source, tmp_path / "absent" / call.output, capfd)
    assert "absent" in check_error(name, status, err, {BAD_INPUT})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_output_beyond_a_file(name, good, tmp_path, capfd):
    call = WRITERS[name]
    (tmp_path / "file").write_text("x")
    status, err = run(name, good, good / call.source, tmp_path / "file" / call.output, capfd)
    assert str(tmp_path / "file") in check_error(name, status, err, {FAILED, BAD_INPUT}, alone=False)
    assert snapshot(tmp_path) == {"file": b"x"}


@pytest.mark.parametrize("kind", ["read_only", "full", "nearly_full"])
@pytest.mark.parametrize("name", WRITERS)
def test_output_that_cannot_be_written(name, kind, good, tmp_path, capfd, request):
    call, disk = WRITERS[name], request.getfixturevalue(kind)
    before = snapshot(disk)
    status, err = run(name, good, good / call.source, disk / call.output, capfd)
    error = check_error(name, status, err, {FAILED}, alone=False)
    check_left(call, disk, before)
    assert str(disk) in error and ("Read-only" in error or "space" in error)


LOCKED = [name for name in WRITERS if name.partition(",")[0] not in ("convert", "export-onnx")]  # those are quick


@pytest.mark.parametrize("name", LOCKED)
def test_twice_at_once(name, good, tmp_path, capfd):
    call = WRITERS[name]
    output = tmp_path / call.output
    folder = output if call.makes_a_folder else tmp_path / f"{call.output}.partial"
    with hold_lock(folder, "the first run"):
        before = snapshot(tmp_path)
        status, err = run(name, good, good / call.source, output, capfd)
        assert "another run is writing it" in check_error(name, status, err, {BAD_INPUT}, alone=False)
        assert snapshot(tmp_path) == before


def check_left(call, folder, before=()):
    """Older outputs are as before. Whole files may stay that let the same command resume; they are no output."""
    after = snapshot(folder)
    new = {name: content for name, content in after.items() if name not in before}
    assert {name: after.get(name) for name in before} == dict(before)
    if call.makes_a_folder:
        assert b"" not in new.values() and not [name for name in new if "unfinished" in name]
    else:
        assert not [name for name in new if not name.startswith(f"{call.output}.partial")]


@pytest.mark.slow
# The file of "embed, npy" is small enough; pyBigWig keeps the cause to itself, and "attribute" has nothing larger.
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("embed, npy", "attribute")])
def test_a_file_size_limit_in_a_process(name, good, tmp_path):
    """As for users who are not root: the limit stands for a full disk."""
    call = WRITERS[name]
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)); "
    result = subprocess.run(
        [
            *(sys.executable, "-c", f"{limit}from hyenadna_cli import main; sys.exit(main())"),
            *argv(name, good, good / call.source, tmp_path / call.output),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    error = check_error(name, result.returncode, result.stderr, {FAILED}, alone=False)
    check_left(call, tmp_path)
    assert str(tmp_path) in error and "too large" in error
