import numpy as np
import pandas as pd
import pytest
from forked import run_until_killed
from genomes import REGION_CONTIG as CONTIG
from matplotlib.figure import Figure

from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.annotation import Feature
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.inference import dependency_map as command
from hyenadna_hf.inference.dependencies import dependency_map
from hyenadna_hf.inference.dependency_map import draw, main, read_map

WINDOW = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("dependencies")
    save_model(folder / "model")
    (folder / "reference.fa").write_text(f">chr20\n{CONTIG}\n")
    (folder / "motifs.bed").write_text("20\t40\t48\ttata\t0\t-\n")
    (folder / "genes.gtf").write_text('20\tx\texon\t11\t60\t.\t+\t.\tgene_id "G1"; gene_name "ABC";\n')
    return folder


def arguments(folder, region, out):
    files = ["--fasta", folder / "reference.fa", "--model", folder / "model", "--out", out, "--window", WINDOW]
    return ["--region", region, *map(str, files), "--use_cpu"]


def expected_map(folder, start, end):
    model = HyenaDNAForCausalLM.from_pretrained(folder / "model")
    left = max(0, min((start + end) // 2 - WINDOW // 2, len(CONTIG) - WINDOW))
    sequence = CONTIG[left : left + WINDOW]
    return dependency_map(model, HyenaDNATokenizer(), sequence, start - left, end - left)


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
@pytest.mark.parametrize("region, start, end", [("20:1-12", 0, 12), ("chr20:31-60", 30, 60), ("chr20:96-107", 95, 107)])
def test_the_map_of_a_region(folder, tmp_path, region, start, end, ending):
    """At the start of a contig, in the middle, and beside N."""
    out = tmp_path / f"map{ending}"
    result = main(arguments(folder, region, out))
    assert result == {"out": out, "region": f"chr20:{start + 1}-{end}", "bases": end - start, "plot": None}
    expected = expected_map(folder, start, end)
    np.testing.assert_allclose(read_map(out, end - start, start), expected, rtol=1e-4, atol=1e-4)
    if ending == ".npz":
        with np.load(out) as arrays:
            assert (arrays["sequence"], arrays["chrom"], arrays["start"]) == (
                CONTIG[start:end].upper(),
                "chr20",
                start,
            )
    else:
        table = pd.read_parquet(out)
        assert list(table.columns) == ["chrom", "changed", "predicted", "base", "dependency"]
        assert len(table) == np.isfinite(expected).sum() and set(table["chrom"]) == {"chr20"}
        row = table[(table["changed"] == start + 2) & (table["predicted"] == start + 5)].iloc[0]
        assert row["base"] == CONTIG[start + 1].upper()
        assert row["dependency"] == pytest.approx(expected[1, 4], rel=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_plot_with_tracks(folder, tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: (drawn.append(figure), save(figure, *args, **kwargs))
    )
    tracks = [str(folder / name) for name in ("genes.gtf", "motifs.bed")]
    out, plot = tmp_path / "map.npz", tmp_path / "map.png"
    assert main([*arguments(folder, "chr20:31-60", out), "--plot", str(plot), "--tracks", *tracks])["plot"] == plot
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    heat, genes, motifs, _ = drawn[0].axes
    image = heat.images[0]
    np.testing.assert_array_equal(np.ma.filled(image.get_array(), np.nan), read_map(out, 30, 30))
    assert image.get_extent() == [30.5, 60.5, 60.5, 30.5]
    assert [label.get_text() for label in heat.get_yticklabels()] == list(CONTIG[30:60].upper())
    for lane, kind, name, left, width in ((genes, "exon", "ABC", 10.5, 50), (motifs, "motifs", "tata", 40.5, 8)):
        assert lane.get_yticklabels()[0].get_text() == kind and lane.texts[0].get_text() == name
        assert (lane.patches[0].get_x(), lane.patches[0].get_width()) == (left, width)
        assert lane.get_xlim() == (30.5, 60.5)


def test_a_plot_without_values_or_letters(tmp_path):
    draw(tmp_path / "none.svg", np.full((3, 3), np.nan, np.float32), "NNN", "x", 5)
    draw(
        tmp_path / "long.png", np.ones((200, 200), np.float32), "A" * 200, "x", 5, [[Feature("gene", 0, 300, ".", "")]]
    )
    assert {path.name for path in tmp_path.iterdir()} == {"none.svg", "long.png"}


def test_after_a_kill_the_result_is_that_of_a_whole_run(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PART_TOKENS", 300)
    words = arguments(folder, "chr20:31-60", tmp_path / "map.npz")
    small_parts = {"inference.dependency_map.PART_TOKENS": 300}
    run_until_killed("inference.dependency_map", words, "inference.dependency_map.save_array", 6, small_parts)
    partial = tmp_path / "map.npz.partial"
    assert len(list(partial.glob("0*"))) == 5 and not (tmp_path / "map.npz").exists()
    with pytest.raises(InputError, match="an unfinished run that differs in region;"):
        main(arguments(folder, "chr20:31-59", tmp_path / "map.npz"))
    saved = []
    monkeypatch.setattr(command, "save_array", lambda *args, save=command.save_array: (saved.append(args), save(*args)))
    main(words)
    parts = 2 * len(list(command._divide(30)))
    assert len(saved) == parts - 5 and [path.name for path in tmp_path.iterdir()] == ["map.npz"]
    np.testing.assert_allclose(
        read_map(tmp_path / "map.npz", 30, 30), expected_map(folder, 30, 60), rtol=1e-3, atol=1e-3
    )


def test_parts_that_are_damaged_are_not_installed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "save_array", lambda path, array, save=command.save_array: save(path, array[1:]))
    with pytest.raises(WorkError, match="the parts do not match the region; delete this folder"):
        main(arguments(folder, "chr20:31-60", tmp_path / "map.npz"))
    assert not (tmp_path / "map.npz").exists()


@pytest.mark.parametrize("length", [1, 2, 29, 200, 5000])
def test_parts_cover_a_region_once(length, monkeypatch):
    monkeypatch.setattr(command, "PART_TOKENS", 30_000)
    parts = list(command._divide(length))
    assert [first for first, _ in parts] + [length] == [0] + [last for _, last in parts]
    assert all(last - first == 1 or 3 * (last - first) * (length - first) <= 30_000 for first, last in parts)


@pytest.mark.parametrize(
    "region, options, message",
    [
        ("chr20:0-5", [], "'chr20:0-5' is outside chr20"),
        ("chr1:1-5", [], "there is no sequence 'chr1'"),
        ("chr20:1-31", [], "--window 30: the region has 31 bases; give a larger window or a smaller region."),
        ("chr20:1-5", ["--window", "41"], "it has 41 bases, but the model reads 40 at once"),
        ("chr20:1-5", ["--out", "map.csv"], "--out map.csv: the suffix sets the format"),
        ("chr20:1-5", ["--plot", "map.bmp"], "--plot map.bmp: the suffix sets the format"),
        ("chr20:1-5", ["--tracks", "x.bed"], "--tracks x.bed: tracks are drawn below a heat map; give --plot too."),
        ("chr20:1-5", ["--plot", "map.png", "--tracks", "x.bed"], "x.bed: there is no such file"),
        ("chr20:1-5", ["--model", "hyenadna-tiny-1k-remag"], "--model hyenadna-tiny-1k-remag: lm_head.weight and"),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, region, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main([*arguments(folder, region, "out.npz"), *options])
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())
