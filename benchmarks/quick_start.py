"""
The table and the duration that `hyenadna finetune` prints, as the README shows them.

    python benchmarks/quick_start.py [--out quick_start_avx2]

runs the command as a user would, in a temporary folder, and writes benchmarks/results/quick_start.md, or another file
there. Run it on an idle machine: the output has times.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from report import commit, machine

RESULTS = Path(__file__).parent / "results"
WIDTH = 90
TITLE = "Held-out test split"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="quick_start")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hyenadna_hf", "finetune"]
        environment = {**os.environ, "COLUMNS": str(WIDTH), "PYTHONPATH": str(Path(__file__).parents[1])}
        output = subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ).stdout
    lines = output.rstrip().splitlines()
    title, end = (next(number for number, line in enumerate(lines) if word in line) for word in (TITLE, "└"))
    shown = "\n".join(line.rstrip() for line in lines[title : end + 1] + [line for line in lines if "Took" in line])
    (RESULTS / f"{args.out}.md").write_text(f"```\n{shown}\n```\n\n{machine()}{commit()}\n", encoding="utf-8")
    print(shown)


if __name__ == "__main__":
    main()
