import numpy as np
import pyBigWig
import pytest
from forked import run_until_killed
from genomes import REGION_CONTIG as CONTIG

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNAForSequenceClassification, HyenaDNATokenizer
from hyenadna_hf.data.sequence import reverse_complement
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference import attribute as command
from hyenadna_hf.inference.attribute import main
from hyenadna_hf.inference.attribution import attribute

HEADS = {"classifier": HyenaDNAForSequenceClassification, "lm": HyenaDNAForCausalLM}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("attribute")
    labels = {"id2label": {0: "other", 1: "donor"}, "label2id": {"other": 0, "donor": 1}}
    for name, head in HEADS.items():
        save_model(folder / name, head, **labels)
    (folder / "reference.fa").write_text(f">chr20\n{CONTIG}\n>chr21\n{CONTIG[::-1]}\n")
    (folder / "sites.bed").write_text("21\t5\t25\n20\t90\t110\n20\t10\t30\n20\t30\t40\n")
    (folder / "overlap.bed").write_text("20\t10\t30\n20\t29\t40\n")
    return folder


def arguments(folder, out, model="classifier"):
    files = ["--fasta", folder / "reference.fa", "--model", folder / model, "--out", out]
    return [*map(str, files), "--references", "2", "--steps", "3", "--use_cpu"]


def expected(folder, start, end, method, target=None, name="classifier", contig=CONTIG, both=False):
    model, tokenizer = HEADS[name].from_pretrained(folder / name), HyenaDNATokenizer()
    values = attribute(model, tokenizer, contig[start:end], method, target, 2, 3)
    if both:
        other = attribute(model, tokenizer, reverse_complement(contig[start:end]), method, target, 2, 3)
        values = (values + other[::-1]) / 2
    return values


def read_bedgraph(path, start, end, contig="chr20"):
    values = np.full(end - start, np.nan)
    for line in path.read_text().splitlines():
        name, first, last, value = line.split("\t")
        assert int(last) == int(first) + 1
        if name == contig and start <= int(first) < end:
            values[int(first) - start] = float(value)
    return values


@pytest.mark.parametrize("model", HEADS)
@pytest.mark.parametrize("method", ["input_x_gradient", "integrated_gradients", "mutagenesis"])
def test_a_region(folder, tmp_path, model, method):
    out = tmp_path / "out.bedgraph"
    target = ["--target", "donor"] if model == "classifier" else []
    words = [*arguments(folder, out, model), "--region", "20:91-110", "--method", method, *target]
    assert main(words) == {"out": out, "bases": 20, "regions": 1, "plot": None}
    values = expected(folder, 90, 110, method, *target[1:], name=model)
    np.testing.assert_allclose(read_bedgraph(out, 90, 110), values, atol=1e-3)
    assert np.isnan(values).sum() == 2


def test_regions_of_a_bed_file_as_bigwig(folder, tmp_path):
    """In the order of the genome; of both strands."""
    out = tmp_path / "out.bw"
    assert main([*arguments(folder, out), "--bed", str(folder / "sites.bed"), "--strands", "both"])["regions"] == 4
    with pyBigWig.open(str(out)) as file:
        for name, contig, start, end in (
            ("chr20", CONTIG, 10, 30),
            ("chr20", CONTIG, 30, 40),
            ("chr20", CONTIG, 90, 110),
            ("chr21", CONTIG[::-1], 5, 25),
        ):
            values = expected(folder, start, end, "integrated_gradients", contig=contig, both=True)
            np.testing.assert_allclose(file.values(name, start, end), values, rtol=1e-3, atol=1e-4)
        assert np.isnan(file.values("chr20", 40, 90)).all()


def test_logo(folder, tmp_path):
    pytest.importorskip("logomaker")
    plot = tmp_path / "logo.png"
    main([*arguments(folder, tmp_path / "out.bw"), "--region", "20:91-110", "--plot", str(plot)])
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_logo_without_logomaker(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"the package logomaker is missing; pip install 'hyenadna_hf\[attribution\]'"):
        main([*arguments(folder, tmp_path / "out.bw"), "--region", "20:91-110", "--plot", str(tmp_path / "x.png")])
    assert not list(tmp_path.iterdir())


def test_after_a_kill_the_result_is_that_of_a_whole_run(folder, tmp_path, monkeypatch):
    (tmp_path / "new").mkdir()
    out, bed = tmp_path / "new" / "out.bg", ["--bed", str(folder / "sites.bed")]
    words = [*arguments(folder, out), *bed]
    run_until_killed("inference.attribute", words, "inference.attribute.save_array", 3)
    assert not out.exists()
    with pytest.raises(InputError, match="an unfinished run that differs in steps;"):
        main([*words, "--steps", "4"])
    saved = []
    monkeypatch.setattr(command, "save_array", lambda *args, save=command.save_array: (saved.append(args), save(*args)))
    main(words)
    assert len(saved) == 2 and [path.name for path in out.parent.iterdir()] == ["out.bg"]
    main([*arguments(folder, tmp_path / "whole.bg"), *bed])
    assert out.read_text() == (tmp_path / "whole.bg").read_text()


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "--region and --bed: give exactly one of them."),
        (["--region", "20:1-9", "--bed", "x.bed"], "--region and --bed: give exactly one of them."),
        (["--region", "20:1-41"], "20:1-41: chr20:1-41 has 41 bases; this model reads 2 to 40."),
        (
            ["--region", "20:1-9", "--target", "acceptor"],
            "target='acceptor': unknown target; choose one of other, donor",
        ),
        (["--region", "20:1-9", "--method", "lime"], "method='lime': choose one of"),
        (["--region", "20:1-9", "--out", "out.npz"], "--out out.npz: the suffix sets the format"),
        (["--region", "20:1-9", "--strands", "reverse"], "strands='reverse': choose one of forward, both"),
        (["--region", "20:1-9", "--max_tokens", "0"], "--max_tokens 0: give 1 or more."),
        (["--bed", "overlap"], "two intervals overlap at chr20:30, but a track has one value per base; merge them."),
        (["--region", "20:1-9", "--steps", "0"], "references=2, steps=0: give 1 or more of each."),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    options = [str(folder / "overlap.bed") if word == "overlap" else word for word in options]
    with pytest.raises(InputError) as error:
        main([*arguments(folder, "out.bw"), *options])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
