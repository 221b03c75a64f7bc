import json
import random

import numpy as np
import pandas as pd
import pytest
from forked import run_in_two_processes, run_until_killed

from hyenadna_cli import main as cli
from hyenadna_hf import HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.errors import InputError, WorkError
from hyenadna_hf.inference import context as command
from hyenadna_hf.inference.context import main
from hyenadna_hf.inference.context_use import (
    bits_by_context,
    bits_of_repeats,
    context_bins,
    random_segments,
    ratio_interval,
    real_segments,
    shuffled_segments,
    window_starts,
)
from hyenadna_hf.inference.likelihood import BaseLikelihood

FILES = ["loss_by_position.csv", "loss_by_position.png", "needle.csv", "needle.png", "table.md"]
NEEDLE_COLUMNS = ["distance", "gain", "gain_low", "gain_high", "gain_over_shuffled", "gain_over_shuffled_low"]
NEEDLE_COLUMNS += ["gain_over_shuffled_high", "bits_control", "bits_with_copy", "bits_with_shuffled", "segments"]
CONTIG = "".join(random.Random(0).choices("ACGTacgt", k=500))
REGION = CONTIG[50:450]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model):
    folder = tmp_path_factory.mktemp("context")
    save_model(folder / "model", max_seq_len=66)
    (folder / "reference.fa").write_text(f">chr20\n{CONTIG}\n>none\n{'N' * 200}\n")
    return folder


def arguments(folder, out, region="20:51-450"):
    files = ["--fasta", folder / "reference.fa", "--model", folder / "model", "--out", out, "--region", region]
    return [*map(str, files), "--windows", "12", "--needle_length", "8", "--bootstrap", "100", "--use_cpu"]


@pytest.fixture(scope="module")
def whole(folder):
    return main([*arguments(folder, folder / "whole"), "--distances", "30", "8"]), folder / "whole"


@pytest.mark.parametrize("needles, bos", [("random", False), ("real", True)])
def test_rows_are_those_of_the_functions(folder, tmp_path, needles, bos):
    options = ["--distances", "30", "8", "--needles", needles, "--window", "50", "--seed", "3"]
    result = main([*arguments(folder, tmp_path / "out"), *options, *(["--bos"] if bos else [])])
    assert result["region"] == "chr20:51-450" and result["window"] == 50
    assert result["windows"] == {"loss_by_position": 8, "needle": 12}
    likelihood = BaseLikelihood(HyenaDNAForCausalLM.from_pretrained(folder / "model"), HyenaDNATokenizer(), bos)
    starts = window_starts(REGION, 50, 12, overlap=True)
    segments = random_segments(12, 8, 3) if needles == "random" else real_segments(REGION, starts, 50, 8, 3)
    windows = [REGION[start : start + 50] for start in starts]
    control, *others = bits_of_repeats(likelihood, windows, segments, shuffled_segments(segments, 3), [8, 30]).T
    for row, distance, bits, shuffled in zip(result["needle"], (8, 30), others[:2], others[2:], strict=True):
        assert list(row) == NEEDLE_COLUMNS
        assert (row["distance"], row["segments"]) == (distance, 12)
        assert row["gain"] == pytest.approx((control - bits).mean(), abs=1e-5)
        assert row["bits_control"] - row["bits_with_copy"] == pytest.approx(row["gain"], abs=1e-9)
        interval = ratio_interval(control - bits, np.ones(12), 100, 3)
        assert (row["gain_low"], row["gain_high"]) == pytest.approx(interval, abs=1e-5)
        assert row["gain_over_shuffled"] == pytest.approx((shuffled - bits).mean(), abs=1e-5)
        interval = ratio_interval(shuffled - bits, np.ones(12), 100, 3)
        assert (row["gain_over_shuffled_low"], row["gain_over_shuffled_high"]) == pytest.approx(interval, abs=1e-5)
        assert row["bits_with_shuffled"] == pytest.approx(shuffled.mean(), abs=1e-5)
    bins = context_bins(50, bos)
    windows = [REGION[start : start + 50] for start in range(0, 400, 50)]
    sums = bits_by_context(likelihood, windows, bins).sum(0)
    for number, row in enumerate(result["loss_by_position"]):
        assert (row["context_from"], row["context_to"]) == (bins[number], bins[number + 1] - 1)
        assert row["bits"] == pytest.approx(sums[0, number] / sums[1, number], abs=1e-5)
        assert row["bases"] == sums[1, number] and row["bits_low"] <= row["bits"] <= row["bits_high"]
    assert sum(row["bases"] for row in result["loss_by_position"]) == 8 * (50 if bos else 49)


def test_files(whole):
    result, out = whole
    assert sorted(path.name for path in out.iterdir()) == FILES
    for name in ("needle", "loss_by_position"):
        rows = pd.read_csv(out / f"{name}.csv").to_dict("records")
        assert rows == [{key: pytest.approx(value) for key, value in row.items()} for row in result[name]]
        assert (out / f"{name}.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = (out / "table.md").read_text()
    row = result["needle"][0]
    assert f"| 8 | {row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}] |" in text
    assert "hyenadna context --fasta" in text and "12 random segments of 8 bases" in text
    assert "6 windows without overlap" in text  # of 66 bases, the most that the model reads, in 400


def test_one_window_has_no_interval_and_the_largest_distance_is_a_default(folder, tmp_path):
    result = main([*arguments(folder, tmp_path / "out", "chr20:101-140"), "--windows", "1"])
    assert result["window"] == 40 and [row["distance"] for row in result["needle"]] == [32]
    assert np.isnan(result["needle"][0]["gain_low"]) and "[" not in (tmp_path / "out" / "table.md").read_text()


def test_json(folder, tmp_path, capfd):
    assert cli(["context", *arguments(folder, tmp_path / "out"), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found.keys() == {"region", "window", "windows", "loss_by_position", "needle"}


SMALL_PARTS = {"inference.context.PART_TOKENS": 400}  # 6 windows, or 1 with its five readings


def test_after_a_kill_the_result_is_that_of_a_whole_run(folder, whole, tmp_path, monkeypatch):
    words = [*arguments(folder, tmp_path / "out"), "--distances", "8", "30"]
    run_until_killed("inference.context", words, "inference.context.save_array", 5, SMALL_PARTS)
    partial = tmp_path / "out" / "needle.csv.partial"
    assert len(list(partial.glob("0*"))) == 4 and not (tmp_path / "out" / "needle.csv").exists()
    monkeypatch.setattr(command, "PART_TOKENS", 400)
    with pytest.raises(InputError, match="an unfinished run that differs in segments;"):
        main([*words, "--needles", "real"])
    saved = []
    monkeypatch.setattr(command, "save_array", lambda *args, save=command.save_array: (saved.append(args), save(*args)))
    found = main(words)
    assert len(saved) == 1 + 12 - 4
    for name in ("needle", "loss_by_position"):
        pd.testing.assert_frame_equal(pd.DataFrame(found[name]), pd.DataFrame(whole[0][name]), atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_two_processes(folder, whole, tmp_path):
    words = [*arguments(folder, tmp_path / "out"), "--distances", "8", "30"]
    result = run_in_two_processes("inference.context", words, SMALL_PARTS)
    assert result.stdout.count("windows of 66 bases of chr20:51-450") == 1
    found, expected = (pd.read_csv(path / "needle.csv") for path in (tmp_path / "out", whole[1]))
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)


def test_parts_that_are_damaged_are_not_installed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "save_array", lambda path, array, save=command.save_array: save(path, array[1:]))
    with pytest.raises(WorkError, match="its parts are of other windows; delete the folder to start anew"):
        main(arguments(folder, tmp_path / "out"))
    assert not (tmp_path / "out" / "needle.csv").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--region", "chr20:0-5"], "'chr20:0-5' is outside chr20"),
        (["--region", "none"], "--region none: a tenth or more of every window of 66 bases is not A, C, G or T;"),
        (["--window", "67"], "--window 67: give 16 (two copies of a segment) to 66 bases, the most that the model"),
        (["--window", "15"], "--window 15: give 16"),
        (["--needle_length", "34"], "--needle_length 34: two copies do not fit into 66 bases"),
        (["--needle_length", "0"], "--needle_length 0: give at least 1."),
        (["--windows", "0"], "--windows 0: give at least 1."),
        (["--bootstrap", "-1"], "--bootstrap -1: give at least 0."),
        (["--needles", "haystack"], "--needles haystack: choose one of random, real."),
        (["--needles", "real", "--region", "20:1-66"], "--needles real: no 8 bases outside a window of 66 are all"),
        (["--distances", "7"], "--distances 7: give 8 to 58, so that both copies are in a window of 66 bases"),
        (["--distances", "20", "59"], "--distances 59: give 8 to 58"),
        (["--model", "hyenadna-tiny-1k-remag"], "--model hyenadna-tiny-1k-remag: lm_head.weight and"),
        (["--fasta", "absent.fa"], "absent.fa: there is no such file"),
        (["--max_tokens", "0"], "max_tokens=0: give at least 1."),
    ],
)
def test_bad_input_leaves_nothing(folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        main([*arguments(folder, tmp_path / "out"), *options])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
