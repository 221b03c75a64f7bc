"""
Peak memory and seconds of `hyenadna score-variants` and `hyenadna embed` against the number of inputs.

    python benchmarks/many_inputs.py --numbers 10000 100000 1000000 --out benchmarks/results/many_inputs

The inputs are short (windows of 8 bases, sequences of 20) and the model is tiny, so that what is kept for each input
shows. Each row is a whole command in a process of its own; its result has a row for every input, which is checked.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from report import write_table

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer

RUN = """
import resource, sys
from hyenadna_cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    rows = []
    for number in args.numbers:
        for command in (score_variants, embed):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(number, Path(folder), command))
                print(rows[-1], flush=True)
    write_table(rows, args.out)


def measured(number, folder, command):
    torch.manual_seed(0)
    model = HyenaDNAForCausalLM(HyenaDNAConfig(d_model=8, n_layer=1, d_inner=16, max_seq_len=66, filter_order=16))
    model.save_pretrained(folder / "model")
    HyenaDNATokenizer().save_pretrained(folder / "model")
    words, out = command(number, folder)
    words += ["--model", str(folder / "model"), "--out", str(out)]
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    seconds = time.perf_counter() - started
    if rows_of(out) != number:
        raise SystemExit(f"{words[0]}: {rows_of(out):,} rows for {number:,} inputs")
    peak = int(run.stderr.split()[-1]) / 1e6  # kB
    return {"command": words[0], "inputs": number, "peak, GB": peak, "seconds": seconds}


def score_variants(number, folder):
    """Three alternates at each position."""
    contig = "".join(random.Random(0).choices("ACGT", k=number // 3 + 1))
    (folder / "genome.fa").write_text(f">chr1\n{contig}\n")
    with (folder / "in.vcf").open("w") as file:
        file.write("##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for row in range(number):
            base = contig[row // 3]
            file.write(f"chr1\t{row // 3 + 1}\t.\t{base}\t{'ACGT'.replace(base, '')[row % 3]}\t.\t.\t.\n")
    inputs = ["--vcf", str(folder / "in.vcf"), "--fasta", str(folder / "genome.fa"), "--window", "8"]
    return ["score-variants", *inputs], folder / "out.tsv"


def embed(number, folder):
    rng = random.Random(0)
    with (folder / "in.fa").open("w") as file:
        file.writelines(f">s{row}\n{''.join(rng.choices('ACGT', k=20))}\n" for row in range(number))
    return ["embed", "--fasta", str(folder / "in.fa")], folder / "out.parquet"


def rows_of(path):
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(path).metadata.num_rows
    with path.open() as file:
        return sum(1 for _ in file) - 1


if __name__ == "__main__":
    main()
