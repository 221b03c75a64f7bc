"""
Test sequences that also occur in train or validation, in published splits.

    python benchmarks/leakage.py splice_sites_chr20 prom_core_all=gue/prom_core_all ... --out benchmarks/results/leakage

A data set is anything that `hyenadna data info` reads: a name, a folder, or the common prefix of files. Writes .csv
and .md.
"""

import argparse

from datasets import DatasetDict, concatenate_datasets
from report import write_table

from hyenadna_hf.data.leakage import KINDS, DistinctSequences
from hyenadna_hf.data.named import load_labelled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="NAME[=PATH]", help="what to read, and what to call it")
    parser.add_argument("--out", required=True, help="file without ending")
    args = parser.parse_args()
    rows = []
    for dataset in args.datasets:
        name, _, path = dataset.partition("=")
        splits = load_labelled(path or name)
        train = concatenate_datasets([splits["train"], splits["validation"]])  # one may be held out of the other
        counts = DistinctSequences(DatasetDict(train=train, test=splits["test"])).leakage()["train", "test"]
        kinds = {KINDS[kind]: count for kind, count in counts.items() if kind != "overlapping"}
        rows.append({"set": name, "test": len(splits["test"]), **kinds})
    write_table(rows, args.out)


if __name__ == "__main__":
    main()
