import os
import random

import numpy as np
import pytest
from forked import run_in_two_processes
from hypothesis import given, settings
from hypothesis import strategies as st

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.inference import tracks
from hyenadna_hf.inference.likelihood import sequence_log_likelihood
from hyenadna_hf.inference.tracks import likelihood_track, main

TOKENIZER = HyenaDNATokenizer()
RNG = random.Random(0)
CONTIGS = {
    "chr2": "".join([*RNG.choices("ACGTacgt", k=150), "NNNRN", *RNG.choices("ACGT", k=40)]),
    "chr10": "".join(RNG.choices("ACGT", k=33)),
    "tiny": "A",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("tracks")
    save_model(folder / "model")
    (folder / "reference.fa").write_text("".join(f">{name}\n{contig}\n" for name, contig in CONTIGS.items()))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return HyenaDNAForCausalLM.from_pretrained(folder / "model")


@pytest.fixture(scope="module")
def fasta(folder):
    return Fasta(folder / "reference.fa")


def arguments(folder, out):
    files = ["--fasta", folder / "reference.fa", "--model", folder / "model", "--out", out]
    return [*map(str, files), "--window", "24", "--stride", "10"]


@settings(max_examples=30)
@given(st.data(), st.integers(3, 40), st.sampled_from(["both", "forward"]), st.booleans())
def test_each_base_once_with_half_an_overlap_around(model, fasta, data, window, strands, bos):
    window -= bos
    stride = data.draw(st.integers(1 + window // 8, window if bos else window - 2))
    contig = data.draw(st.sampled_from(list(CONTIGS)))
    length = len(CONTIGS[contig])
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    pieces = list(likelihood_track(model, TOKENIZER, fasta, [(contig, start, end)], window, stride, strands, bos))
    position = start
    for name, at, values in pieces:
        assert (name, at) == (contig, position)
        position += len(values)
    assert position == end
    flank = (window - stride) // 2
    first, last = max(0, start - flank), min(length, end + flank)
    (expected,) = sequence_log_likelihood(
        model, TOKENIZER, [CONTIGS[contig][first:last]], strands, bos, per_base=True, window=window, stride=stride
    )
    found = np.concatenate([values for *_, values in pieces])
    np.testing.assert_allclose(found, expected.per_base[start - first : end - first], atol=1e-4)


def read_bedgraph(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert all(int(end) == int(start) + 1 for _, start, end, _ in rows)
    return {(contig, int(start)): float(value) for contig, start, _, value in rows}


def test_a_whole_genome_as_bedgraph_and_bigwig(folder, model, fasta, tmp_path, capsys):
    pyBigWig = pytest.importorskip("pyBigWig")  # noqa: N806
    main(arguments(folder, tmp_path / "out.bedgraph"))
    main(arguments(folder, tmp_path / "out.bw"))
    assert "229 bases in 3 regions" in capsys.readouterr().out
    expected = {}
    for name, contig in CONTIGS.items():
        (found,) = sequence_log_likelihood(model, TOKENIZER, [contig], "both", per_base=True, window=24, stride=10)
        expected |= {(name, at): value for at, value in enumerate(found.per_base) if np.isfinite(value)}
    assert len(expected) == sum(map(len, CONTIGS.values())) - 5 - 1
    bedgraph = read_bedgraph(tmp_path / "out.bedgraph")
    assert list(bedgraph) == list(expected)
    assert bedgraph == pytest.approx(expected, abs=2e-4)
    with pyBigWig.open(str(tmp_path / "out.bw")) as track:
        assert track.chroms() == {name: len(contig) for name, contig in CONTIGS.items()}
        for name, contig in CONTIGS.items():
            values = track.values(name, 0, len(contig))
            at = {(name, at): value for at, value in enumerate(values) if np.isfinite(value)}
            assert at == pytest.approx({key: value for key, value in expected.items() if key[0] == name}, abs=2e-4)


@pytest.mark.parametrize("suffix", ["bg", "bw"])
def test_parts_and_processes_change_nothing(folder, tmp_path, suffix):
    main(arguments(folder, tmp_path / f"whole.{suffix}"))
    result = run_in_two_processes(
        "inference.tracks", arguments(folder, tmp_path / f"two.{suffix}"), {"inference.tracks.PART_BASES": 30}
    )
    assert result.stdout.count("229 bases in 3 regions") == 1
    assert {path.name for path in tmp_path.iterdir()} == {f"whole.{suffix}", f"two.{suffix}"}
    if suffix == "bg":
        whole, two = (read_bedgraph(tmp_path / f"{name}.bg") for name in ("whole", "two"))
        assert whole == pytest.approx(two, abs=2e-4) and list(whole) == list(two)


@pytest.mark.parametrize("cut", [1, 200, 500, 900])
def test_a_bigwig_that_does_not_read_back_is_not_installed(folder, tmp_path, monkeypatch, cut):
    """Its library does not tell of a full disk."""
    read_back = tracks._read_back

    def cut_first(path, lengths):
        os.truncate(path, max(0, os.path.getsize(path) - cut))
        return read_back(path, lengths)

    monkeypatch.setattr(tracks, "_read_back", cut_first)
    (tmp_path / "out.bw").write_text("old")
    with pytest.raises(WorkError, match="out.bw: the file that was read back differs from what was written"):
        main(arguments(folder, tmp_path / "out.bw"))
    assert (tmp_path / "out.bw").read_text() == "old"


def test_regions_of_a_bed_file_are_put_in_order_and_merged(folder, tmp_path):
    bed, out = tmp_path / "regions.bed", tmp_path / "out.bg"
    bed.write_text("chr10\t3\t8\n2\t60\t70\tsecond\nchr2\t65\t80\nchr2\t5\t6\nchr2\t80\t81\n")
    main([*arguments(folder, out), "--bed", str(bed)])
    assert list(read_bedgraph(out)) == [
        *(("chr2", at) for at in (5, *range(60, 81))),
        *(("chr10", at) for at in range(3, 8)),
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--out", "out.wig"],
            "--out out.wig: the suffix sets the format; it must be one of .bedgraph, .bg, .bw",
        ),
        (["--region", "chr2:1-5", "--bed", "x.bed"], "give only one of them"),
        (["--region", "chr2:90-1000"], "is outside chr2"),
        (["--bed", "absent.bed"], "absent.bed: there is no such file"),
        (["--window", "41"], "window=41: give 3 to 40"),
        (["--stride", "23"], "stride=23: give 1 to 22"),
        (["--strands", "reverse"], "strands='reverse'"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main([*arguments(folder, "out.bg"), *options])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
