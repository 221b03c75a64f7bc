import gzip
import json
import os
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pysam
import pytest
import torch
from forked import run_in_two_processes, run_script
from reference import randomise
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, set_seed

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.hub.sizes import write_size_folder
from hyenadna_hf.inference import embed_fasta, embedding_files
from hyenadna_hf.inference.embed import embed
from hyenadna_hf.inference.embed_fasta import main
from hyenadna_hf.pretrained import BUNDLED_CHECKPOINTS


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    set_seed(0)
    folder = tmp_path_factory.mktemp("model")
    config = HyenaDNAConfig(d_model=8, n_layer=2, max_seq_len=300, filter_order=16)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(folder)
    HyenaDNATokenizer(special_tokens_mode="sep").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def loaded(model_folder):
    return AutoModel.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture
def records():
    rng = random.Random(1)
    return {f"s{i}": "".join(rng.choices("ACGTacgtN", k=rng.randint(1, 150))) for i in range(60)}


@pytest.fixture
def fasta(tmp_path, records):
    path = tmp_path / "in.fa"
    path.write_text("".join(f">{name} of something\n{sequence}\n" for name, sequence in records.items()))
    return path


def rows(path):
    return pq.read_table(path).to_pylist()


def test_a_row_for_each_sequence_in_their_order(fasta, records, model_folder, loaded, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed_fasta, "PART_BASES", 1000)
    out = tmp_path / "new" / "out.parquet"
    out.parent.mkdir()
    main(["--fasta", str(fasta), "--model", model_folder, "--out", str(out), "--layer", "1", "--reverse-complement"])
    expected = embed(*loaded, records.values(), layer=1, reverse_complement=True)
    found = rows(out)
    assert [row["name"] for row in found] == list(records)
    for row, embedding in zip(found, expected):
        assert (row["chrom"], row["start"], row["strand"]) == (row["name"], 0, "+")
        assert row["end"] == row["length"] == len(records[row["name"]])
        np.testing.assert_allclose(row["embedding"], embedding, rtol=1e-4, atol=1e-5)
    file = pq.ParquetFile(out)
    assert file.metadata.num_row_groups > 3
    about = json.loads(file.schema_arrow.metadata[b"hyenadna"])
    assert (about["layer"], about["pooling"], about["fasta_name"]) == (1, "mean", "in.fa")
    assert [file.name for file in out.parent.iterdir()] == ["out.parquet"]
    assert "60 sequences embedded" in capsys.readouterr().err


@pytest.mark.parametrize("packed", ["gzip", "bgzip"])
def test_packed_files_are_read_alike(fasta, model_folder, tmp_path, packed):
    other = tmp_path / "packed.fa.gz"
    if packed == "gzip":
        other.write_bytes(gzip.compress(fasta.read_bytes()))
    else:
        pysam.tabix_compress(str(fasta), str(other))
    for source, name in ((fasta, "plain"), (other, "packed")):
        main(["--fasta", str(source), "--model", model_folder, "--out", str(tmp_path / f"{name}.parquet")])
    assert rows(tmp_path / "plain.parquet") == rows(tmp_path / "packed.parquet")


def test_intervals_with_name_and_strand(fasta, records, model_folder, loaded, tmp_path):
    name, sequence = next((name, sequence) for name, sequence in records.items() if len(sequence) > 100)
    bed = tmp_path / "regions.bed"
    bed.write_text(f"track x\n{name}\t10\t50\tgene\t0\t-\n{name}\t10\t50\n{name} 0 9 . 0 +\n")
    out = tmp_path / "out.npy"
    main(["--fasta", str(fasta), "--bed", str(bed), "--model", model_folder, "--pooling", "last", "--out", str(out)])
    expected = embed(*loaded, [reverse_complement(sequence[10:50]), sequence[10:50], sequence[:9]], "last")
    np.testing.assert_allclose(np.load(out), np.stack(list(expected)), rtol=1e-4, atol=1e-5)
    lines = (tmp_path / "out.tsv").read_text().splitlines()
    assert lines == [
        "name\tchrom\tstart\tend\tstrand\tlength",
        f"gene\t{name}\t10\t50\t-\t40",
        f"{name}:11-50\t{name}\t10\t50\t.\t40",
        f"{name}:1-9\t{name}\t0\t9\t+\t9",
    ]


def test_every_base(fasta, records, model_folder, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_fasta, "PART_NUMBERS", 8 * 700)
    out = tmp_path / "out.parquet"
    main(["--fasta", str(fasta), "--model", model_folder, "--pooling", "none", "--out", str(out)])
    assert pq.ParquetFile(out).metadata.num_row_groups > 3
    for row, embedding in zip(rows(out), embed(*loaded, records.values(), "none"), strict=True):
        np.testing.assert_allclose(row["embedding"], embedding, rtol=1e-4, atol=1e-5)


def test_anndata(fasta, records, model_folder, tmp_path):
    anndata = pytest.importorskip("anndata")
    bed = tmp_path / "regions.bed"
    bed.write_text("s0\t0\t1\ttwice\ns1\t0\t1\ttwice\n")
    for intervals in ([], ["--bed", str(bed)]):
        for suffix in ("npy", "h5ad"):
            out = tmp_path / f"{len(intervals)}.{suffix}"
            main(["--fasta", str(fasta), *intervals, "--model", model_folder, "--out", str(out)])
        data = anndata.read_h5ad(out)
        assert data.X.dtype == np.float32
        np.testing.assert_allclose(data.X, np.load(out.with_suffix(".npy")), rtol=1e-5, atol=1e-6)
        names = ["twice", "twice"] if intervals else list(records)
        assert list(data.obs["name"]) == names and data.obs_names.is_unique
        assert json.loads(data.uns["hyenadna"])["pooling"] == "mean"
    assert {file.suffix for file in tmp_path.iterdir()} == {".fa", ".fai", ".bed", ".npy", ".tsv", ".h5ad"}


def test_real_sequence_in_tiles(shared, tmp_path):
    out = tmp_path / "yeast.npy"
    bed = tmp_path / "regions.bed"
    bed.write_text("chrI\t1000\t4000\nI\t100000\t100900\n")
    genome = str(shared / "data/genomes/yeast_chrI.fa.gz")
    options = ["--bed", str(bed), "--window", "1000", "--out", str(out)]
    main(["--fasta", genome, "--model", "hyenadna-tiny-1k-remag", *options])
    with gzip.open(genome, "rt") as file:
        chromosome = "".join(line.strip() for line in file if not line.startswith(">"))
    checkpoint = BUNDLED_CHECKPOINTS["hyenadna-tiny-1k-remag"]
    model, tokenizer = AutoModel.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    pieces = [chromosome[1000:4000], chromosome[100_000:100_900]]
    np.testing.assert_allclose(np.load(out), list(embed(model, tokenizer, pieces, window=1000)), rtol=1e-4, atol=1e-4)


KILLED = """
import os, signal, sys
from hyenadna_hf.inference import embed_fasta
embed_fasta.PART_BASES = 500
written = []
def save(file, values):
    written.append(file)
    if len(written) == 4:  # in the middle of a part
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    numpy_save(file, values)
numpy_save, embed_fasta.np.save = embed_fasta.np.save, save
embed_fasta.main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_where_it_was(fasta, records, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed_fasta, "PART_BASES", 500)
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    main(["--fasta", str(fasta), "--model", model_folder, "--out", str(whole)])
    arguments = ["--fasta", str(fasta), "--model", model_folder, "--out", str(out)]
    killed = run_script(KILLED, *arguments)
    assert killed.returncode == -9, killed.stderr
    partial = tmp_path / "out.parquet.partial"
    assert not out.exists()
    parts = sorted(partial.glob("[0-9]*"))
    assert [file.name for file in parts] == ["000000", "000001", "000002"] and (partial / "job.json").is_file()
    kept = sum(len(np.load(file)) for file in parts)

    with pytest.raises(
        InputError, match="out.parquet.partial: .*that differs in pooling, layer; finish that run, delete"
    ):
        main([*arguments, "--pooling", "last", "--layer", "0"])
    fasta.write_text(fasta.read_text() + ">new\nACGT\n")
    with pytest.raises(InputError, match="differs in fasta; finish"):
        main(arguments)
    fasta.write_text(fasta.read_text().removesuffix(">new\nACGT\n"))

    embedded = []

    def counting(model, tokenizer, sequences, **options):
        for embedding in embed(model, tokenizer, sequences, **options):
            embedded.append(embedding)
            yield embedding

    monkeypatch.setattr(embed_fasta, "embed", counting)
    main(arguments)
    assert "3 of " in capsys.readouterr().err
    assert len(embedded) == len(records) - kept
    assert rows(out) == rows(whole)
    assert not partial.exists()


# The sequences are longer than 255 bases, which is up to where tokenizers remembers the last 10,000 texts.
MEMORY = """
import random, resource, sys
from hyenadna_hf.inference import embed_fasta
embed_fasta.PART_NUMBERS = 1 << 16
folder, model = sys.argv[1:]
for count in (500, 5000):
    with open(f"{folder}/{count}.fa", "w") as file:
        for i in range(count):
            print(f">s{i}", "".join(random.choices("ACGT", k=300)), sep="\\n", file=file)
    out = f"{folder}/{count}.parquet"
    options = ["--pooling", "none", "--layer", "0"]  # no block is run
    embed_fasta.main(["--fasta", f"{folder}/{count}.fa", "--model", model, "--out", out, *options])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_sequences(model_folder, tmp_path):
    result = run_script(MEMORY, tmp_path, model_folder)
    assert result.returncode == 0, result.stderr
    few, many = map(int, result.stdout.split())  # KiB
    numbers = pq.read_table(tmp_path / "5000.parquet")["embedding"].nbytes
    assert numbers > 49_000_000
    assert (many - few) * 1024 < 0.4 * numbers, (few, many)


def test_several_processes(fasta, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_fasta, "PART_BASES", 500)
    main(["--fasta", str(fasta), "--model", model_folder, "--out", str(tmp_path / "one.parquet")])
    arguments = ["--fasta", str(fasta), "--model", model_folder, "--out", str(tmp_path / "two.parquet"), "--use_cpu"]
    result = run_in_two_processes("inference.embed_fasta", arguments, {"inference.embed_fasta.PART_BASES": 500})
    assert result.stderr.count("60 sequences embedded") == 1
    assert rows(tmp_path / "one.parquet") == rows(tmp_path / "two.parquet")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "x.csv"], r"the suffix sets the format; it must be one of .parquet, .npy, .h5ad"),
        (["--pooling", "none", "--out", "x.npy"], "pooling none.*write to .parquet"),
        (["--out", "there.npy"], "there.tsv already exists"),
        (["--pooling", "max"], "pooling='max'"),
        (["--layer", "3"], "layer=3"),
        (["--window", "301"], "window=301"),
        (["--dtype", "int8"], "--dtype int8: choose one of float32, bfloat16"),
        (["--model", "no/such/model"], "--model no/such/model: cannot be loaded.*package: .*hyenadna-tiny-1k-remag"),
        (["--model", "size"], "--model size: it has no weights; train it first"),
        (["--bed", "long.bed"], r"long.bed, line 1: .*ends at 2, but a has 1 bases"),
        (["--bed", "minus.bed"], r"minus.bed, line 2: .*begins at -1"),
        (["--bed", "strand.bed"], r"strand.bed: the strand of x is 'minus'"),
        (["--bed", "none.bed"], r"none.bed: the file contains no interval"),
        (["--bed", "absent.bed"], r"absent.bed: there is no such file"),
        (["--fly"], "unknown argument --fly"),
        (["--out", "occupied.npy"], "occupied.npy.partial: .*other files"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(model_folder, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("in.fa").write_text(">a\nA\n")
    Path("long.bed").write_text("a\t0\t2\n")
    Path("minus.bed").write_text("a\t0\t1\na\t-1\t1\n")
    Path("strand.bed").write_text("a\t0\t1\tx\t0\tminus\n")
    Path("none.bed").write_text("# nothing\n")
    Path("there.tsv").touch()
    Path("occupied.npy.partial").mkdir()
    Path("occupied.npy.partial", "mine").touch()
    write_size_folder("hyenadna-tiny-1k-seqlen", Path("size"))
    Path("in.fa.fai").write_text("a\t1\t3\t1\t2\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words):
        main(["--fasta", "in.fa", "--model", model_folder, "--out", "out.parquet", *arguments])
    assert sorted(tmp_path.rglob("*")) == before


def test_too_long_sequences_are_counted(model_folder, tmp_path):
    path = tmp_path / "in.fa"
    path.write_text(f">short\nACGT\n>long\n{'A' * 301}\n>longer\n{'A' * 500}\n")
    arguments = ["--fasta", str(path), "--model", model_folder, "--out", str(tmp_path / "out.npy")]
    with pytest.raises(InputError, match=r"in.fa: long has 301 bases \(2 of 3 .* max_seq_len is 300; .*--window"):
        main(arguments)
    main([*arguments, "--window", "300"])
    assert np.load(tmp_path / "out.npy").shape == (3, 8)


def test_missing_weights_are_not_invented(model_folder, loaded, tmp_path):
    state = {name: tensor for name, tensor in loaded[0].state_dict().items() if "norm1" not in name}
    loaded[0].save_pretrained(tmp_path / "model", state_dict=state)
    loaded[1].save_pretrained(tmp_path / "model")
    path = tmp_path / "in.fa"
    path.write_text(">a\nA\n")
    with pytest.raises(InputError, match="backbone.layers.0.norm1.bias and 3 other weights"):
        main(["--fasta", str(path), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out.npy")])


def test_other_models_are_refused(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=12, **sizes)).save_pretrained(tmp_path)
    HyenaDNATokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="this is a bert model"):
        main(["--fasta", str(tmp_path / "in.fa"), "--model", str(tmp_path), "--out", str(tmp_path / "out.npy")])


def test_a_failing_writer_leaves_nothing_under_the_name(fasta, model_folder, tmp_path, monkeypatch):
    def fail(path, parts, about):
        path.write_bytes(b"half")
        raise OSError("no space left")

    out = tmp_path / "out.parquet"
    arguments = ["--fasta", str(fasta), "--model", model_folder, "--out", str(out)]
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setitem(embedding_files.WRITERS, ".parquet", fail)
        main(arguments)
    assert not out.exists()
    main(arguments)
    assert len(rows(out)) == 60
    with pytest.raises(InputError, match="already exists"):
        main(arguments)


@pytest.mark.parametrize("suffix", ["parquet", "npy", "h5ad"])
@pytest.mark.parametrize("damage", ["cut", "a row less", "another order"])
def test_a_file_that_does_not_read_back_is_not_installed(fasta, model_folder, tmp_path, monkeypatch, suffix, damage):
    """As a full disk may leave it without an error."""
    if suffix == "h5ad":
        pytest.importorskip("anndata")
    writer = embedding_files.WRITERS[f".{suffix}"]

    def damaged(path, parts, about):
        (regions, file), *others = parts
        if damage == "a row less":
            np.save(path.with_name("part.npy"), np.load(file)[1:])
            regions, file = regions[1:], path.with_name("part.npy")
        elif damage == "another order":
            regions = regions[::-1]
        writer(path, [(regions, file), *others], about)
        if damage == "cut":
            os.truncate(path, path.stat().st_size // 2)

    monkeypatch.setitem(embedding_files.WRITERS, f".{suffix}", damaged)
    out = tmp_path / f"out.{suffix}"
    with pytest.raises(WorkError, match="read back"):
        main(["--fasta", str(fasta), "--model", model_folder, "--out", str(out)])
    assert not out.exists() and not out.with_suffix(".tsv").exists()


def test_sequences_and_intervals_from_standard_input(fasta, model_folder, tmp_path):
    bed = tmp_path / "regions.bed"
    bed.write_text("s0\t0\t1\ns1\t0\t1\n")
    script = "import sys\nfrom hyenadna_hf.inference.embed_fasta import main\nmain(sys.argv[1:])\n"
    for name, words, file in (("a", ["-"], fasta), ("b", ["--fasta", str(fasta), "--bed", "-"], bed)):
        arguments = ["--model", model_folder, "--out", str(tmp_path / f"{name}.parquet")]
        result = run_script(script, *words, *arguments, stdin=file)
        assert result.returncode == 0, result.stderr
    assert len(rows(tmp_path / "a.parquet")) == 60 and len(rows(tmp_path / "b.parquet")) == 2


def test_half_precision_weights(fasta, records, model_folder, tmp_path):
    out = tmp_path / "out.npy"
    main(["--fasta", str(fasta), "--model", model_folder, "--dtype", "bfloat16", "--out", str(out)])
    model = AutoModel.from_pretrained(model_folder, dtype=torch.bfloat16)
    expected = embed(model, AutoTokenizer.from_pretrained(model_folder), records.values())
    np.testing.assert_allclose(np.load(out), list(expected), atol=1e-5)
    assert np.load(out).dtype == np.float32


def test_a_run_that_was_killed_after_its_files_were_there_ends(fasta, model_folder, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    unlink = Path.unlink

    def killed(path, **options):
        if path.name.isdigit():  # a part, when all else is done
            raise KilledError
        unlink(path, **options)

    arguments = ["--fasta", str(fasta), "--model", model_folder, "--out", str(tmp_path / "out.npy")]
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Path, "unlink", killed)
        main(arguments)
    expected = np.load(tmp_path / "out.npy")
    assert (tmp_path / "out.npy.partial").is_dir()
    main(arguments)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert not (tmp_path / "out.npy.partial").exists()
