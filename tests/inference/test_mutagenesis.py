import numpy as np
import pytest
from genomes import REGION_CONTIG as CONTIG

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.fasta import Fasta
from hyenadna_hf.errors import InputError
from hyenadna_hf.inference.mutagenesis import main, ratio_matrix
from hyenadna_hf.inference.variants import Variant, score_variants


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("mutagenesis")
    save_model(folder / "model")
    (folder / "reference.fa").write_text(f">chr20\n{CONTIG}\n")
    return folder


def arguments(folder, region, out):
    files = ["--fasta", folder / "reference.fa", "--model", folder / "model", "--out", out, "--window", 30]
    return ["--region", region, *map(str, files)]


@pytest.mark.parametrize("region, start, end", [("20:1-12", 0, 12), ("chr20:96-107", 95, 107)])
def test_every_change_of_a_region(folder, tmp_path, region, start, end, capsys):
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "table.tsv", tmp_path / "heat.png"
    main([*arguments(folder, region, out), "--plot", str(plot)])
    model = HyenaDNAForCausalLM.from_pretrained(folder / "model")
    found = ratio_matrix(out, start, end)
    with Fasta(folder / "reference.fa") as fasta:
        for offset, reference in enumerate(CONTIG[start:end].upper()):
            alternates = [base for base in "ACGT" if base != reference]
            variants = [Variant("chr20", start + offset, reference, base) for base in alternates]
            expected = {
                score.variant.alternate: score.llr
                for score in score_variants(model, HyenaDNATokenizer(), variants, fasta, window=30)
            }
            for row, base in enumerate("ACGT"):
                ratio = expected.get(base)
                assert (
                    np.isnan(found[row, offset])
                    if ratio is None
                    else found[row, offset] == pytest.approx(ratio, abs=1e-3)
                )
    known = sum(base != "N" for base in CONTIG[start:end])
    assert np.isfinite(found).sum() == 3 * known
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert f"{3 * known} of " in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heat.png", "table.tsv"]


def test_rna(folder, tmp_path):
    """All changes of a reference that is written with U, with the scores of the one with T."""
    (tmp_path / "rna.fa").write_text(f">chr20\n{CONTIG.replace('T', 'U').replace('t', 'u')}\n")
    for name, fasta in (("dna", folder / "reference.fa"), ("rna", tmp_path / "rna.fa")):
        main([*arguments(folder, "20:1-50", tmp_path / f"{name}.tsv"), "--fasta", str(fasta)])
    assert (tmp_path / "rna.tsv").read_text() == (tmp_path / "dna.tsv").read_text()
    assert "NA\tNA\tNA" not in (tmp_path / "rna.tsv").read_text()


@pytest.mark.parametrize(
    "region, options, message",
    [
        ("chr20:0-5", [], "'chr20:0-5' is outside chr20"),
        ("chr20:5-500", [], "'chr20:5-500' is outside chr20"),
        ("chr1:1-5", [], "there is no sequence 'chr1'"),
        ("chr20:1-5", ["--plot", "heat.bmp"], "--plot heat.bmp: the suffix sets the format"),
        ("chr20:1-5", ["--window", "41"], "window=41: give 2 to 40"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, region, options, message):
    with pytest.raises(InputError) as error:
        main([*arguments(folder, region, tmp_path / "out.tsv"), *options])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
