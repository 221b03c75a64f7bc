"""
Variants a second of `hyenadna score-variants`, now and at an earlier commit.

    python benchmarks/scoring.py --variants brca1.csv.gz --fasta chr17.fa.gz --against COMMIT --out results/scoring

The table of variants has columns chrom, pos, ref and alt. The two take turns, each whole command in a process of its
own, and the scores must be equal within 1e-4 nats where both give one: a score sums about 500 differences of float32.
The bound is the matrix products of the layers alone, of all positions that have to be read: on each strand of a locus
the window up to the variant once, and the rest of it for the reference and for each alternate.
"""

import argparse
import csv
import gzip
import statistics
import tempfile
from pathlib import Path

from earlier import ROOT, seconds_of, tree_of
from published import Bound
from report import write_table
from speed import timed

from hyenadna_hf import HyenaDNAForCausalLM
from hyenadna_hf.inference.variants import WINDOW
from hyenadna_hf.loading import resolve


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", required=True, help="CSV, .csv.gz")
    parser.add_argument("--fasta", required=True, type=Path)
    parser.add_argument("--model", default="hyenadna-tiny-1k-chr20")
    parser.add_argument("--against", required=True, help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", required=True, help="beginning of the names of the files to write")
    args = parser.parse_args()
    with tree_of(args.against) as earlier, tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        number, loci = write_vcf(args.variants, folder / "variants.vcf")
        trees = {"now": ROOT, args.against: earlier}
        seconds, scores = {name: [] for name in trees}, {}
        for _ in range(args.rounds):
            for name, tree in trees.items():
                took, scores[name] = score(args, tree, folder)
                seconds[name].append(took)
                print(name, f"{took:.1f} s", flush=True)
    difference = largest_difference(*scores.values())
    if not difference <= 1e-4:
        raise SystemExit(f"the scores differ by {difference:.2g} nats")
    rows = [
        {
            "code": name,
            "variants": number,
            "seconds": statistics.median(times),
            "variants / s": number / statistics.median(times),
            "largest difference, nats": f"{difference:.0e}",
        }
        for name, times in seconds.items()
    ]
    took = bound(args.model, WINDOW * (loci + number))
    rows.append({"code": "bound", "variants": number, "seconds": took, "variants / s": number / took})
    rows[-1]["largest difference, nats"] = "-"
    write_table(rows, args.out)


def bound(name, positions):
    """Seconds of the matrix products of the layers of a model."""
    model = HyenaDNAForCausalLM.from_pretrained(resolve(name)).base_model
    return timed(Bound(model, 1, positions), None)


def write_vcf(table, path):
    """Write the variants of a table as VCF, in the order of their positions; return their number and that of loci."""
    with gzip.open(table, "rt", encoding="utf-8") as file:
        rows = [(row["chrom"], int(row["pos"]), row["ref"], row["alt"]) for row in csv.DictReader(file)]
    with path.open("w", encoding="utf-8") as file:
        file.write("##fileformat=VCFv4.2\n")
        file.writelines(f"##contig=<ID={contig}>\n" for contig in dict.fromkeys(row[0] for row in rows))
        print("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", sep="\t", file=file)
        for contig, position, reference, alternate in sorted(rows):
            print(contig, position, ".", reference, alternate, ".", ".", ".", sep="\t", file=file)
    return len(rows), len({row[:3] for row in rows})


def score(args, tree, folder):
    """Seconds of the command, and its rows."""
    out = folder / "scores.tsv"
    inputs = ["--vcf", folder / "variants.vcf", "--fasta", args.fasta.resolve()]
    took = seconds_of(tree, "score-variants", *inputs, "--model", args.model, "--out", out)
    with out.open(encoding="utf-8") as file:
        return took, list(csv.DictReader(file, delimiter="\t"))


def largest_difference(now, earlier):
    pairs = zip(now, earlier, strict=True)
    return max(abs(float(a["llr"]) - float(b["llr"])) for a, b in pairs if "NA" not in (a["llr"], b["llr"]))


if __name__ == "__main__":
    main()
