"""How many bases a second GenomeDataset makes into token tensors, in one process, without a model."""

import argparse
import random
import tempfile
import time
from pathlib import Path

import pysam

from hyenadna_hf.data.genome import GenomeDataset

LENGTHS = (1024, 32_768, 131_072, 1_000_000)


def measure(fasta, max_length, seconds):
    """Bases a second, over at least `seconds`, with every augmentation on."""
    dataset = GenomeDataset(fasta, max_length=max_length, reverse_complement=True, shift=min(100, max_length))
    bases, epoch, started = 0, 0, time.perf_counter()
    while True:
        dataset.set_epoch(epoch)
        for example in dataset:
            bases += len(example["input_ids"])
            elapsed = time.perf_counter() - started
            if elapsed > seconds:
                return bases / elapsed
        epoch += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fasta", help="genome to read (default: one of random bases)")
    parser.add_argument("--bases", type=int, default=50_000_000, help="size of the random genome")
    parser.add_argument("--seconds", type=float, default=3.0, help="time to measure for, each length")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {"as given": args.fasta} if args.fasta else random_genome(Path(folder), args.bases)
        print(f"{'file':<10} {'bases a window':>15} {'million bases a second':>24}")
        for kind, path in files.items():
            for max_length in LENGTHS:
                print(f"{kind:<10} {max_length:>15,} {measure(path, max_length, args.seconds) / 1e6:>24,.0f}")


def random_genome(folder, bases):
    """A FASTA file of random bases, plain and as bgzip."""
    plain, packed = folder / "genome.fa", folder / "genome.fa.bgz"
    sequence = "".join(random.Random(0).choices("ACGTacgtN", k=bases))
    lines = (sequence[start : start + 60] for start in range(0, bases, 60))
    plain.write_text(">random\n" + "\n".join(lines) + "\n")
    pysam.tabix_compress(str(plain), str(packed))
    return {"plain": plain, "bgzip": packed}


if __name__ == "__main__":
    main()
