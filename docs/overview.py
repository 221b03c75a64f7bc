"""
Draw docs/overview.png: the model, and two measurements from benchmarks/results.

    python docs/overview.py

The picture records a digest of the measurements, by which a test finds out that they have changed since.
"""

import csv
import hashlib
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
INK, GREY = "#24323f", "#5f6f7d"
BASES = {"A": "#2a9d6f", "C": "#2f6fb5", "G": "#d9982b", "T": "#c8504a"}
OURS, WHOLE = "#2f6fb5", "#c8504a"
BLOCK = ("short convolution, 3 bases", "long convolution, all bases before", "gates", "MLP")
TASKS = ("next base: generate, score variants", "class of a sequence or of a base", "embeddings")


def main():
    plt.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY})
    plt.rcParams.update({"xtick.color": INK, "ytick.color": INK})
    figure = plt.figure(figsize=(10, 5.6))
    shape = "round,pad=0,rounding_size=0.02"
    card = FancyBboxPatch((0.012, 0.02), 0.976, 0.96, boxstyle=shape, fc="white", ec="#c9d1d8", zorder=-1)
    figure.add_artist(card)  # an opaque background: pages are light or dark
    draw_model(figure.add_axes((0.03, 0.53, 0.94, 0.43)))
    generation(figure.add_axes((0.085, 0.12, 0.385, 0.31)))
    memory(figure.add_axes((0.575, 0.12, 0.375, 0.31)))
    metadata = {"Software": None, "Results": digest()}
    figure.savefig(ROOT / "docs" / "overview.png", dpi=150, transparent=True, metadata=metadata)


def draw_model(axes):
    """Draw how tokens pass through Hyena blocks to the tasks."""
    axes.set(xlim=(0, 10), ylim=(0, 4))
    axes.axis("off")
    sequence = "ACGTTGCATTAGC"
    for i, base in enumerate(sequence):
        box(axes, 0.15 + 0.22 * i, 1.55, 0.19, 0.6, BASES[base], 0.03)
        axes.text(0.245 + 0.22 * i, 1.85, base, ha="center", va="center", color="white", weight="bold", size=11)
    axes.text(1.55, 2.55, "DNA, one base per token", ha="center", weight="bold")
    axes.text(1.55, 1.15, "up to 1,000,000 at once", ha="center", va="center", color=GREY)
    for shift in (0.16, 0.08, 0):
        box(axes, 3.75 + shift, 0.25 + shift, 2.75, 3.0, "#eef3f8", 0.08, edge="#9db3c8")
    for i, part in enumerate(BLOCK):
        box(axes, 3.87, 2.58 - 0.72 * i, 2.51, 0.55, "#2f6fb5" if i == 1 else "#7c98b3", 0.05)
        axes.text(5.125, 2.855 - 0.72 * i, part, ha="center", va="center", color="white", size=9.5)
    axes.text(5.2, 3.62, "Hyena blocks, 2 to 8", ha="center", weight="bold")
    for i, task in enumerate(TASKS):
        box(axes, 7.35, 2.55 - 0.95 * i, 2.6, 0.7, "#eef3f8", 0.06, edge="#9db3c8")
        axes.text(8.65, 2.9 - 0.95 * i, task, ha="center", va="center", size=9.5)
    for start, end in ((3.08, 3.68), (6.72, 7.28)):
        arrow = {"arrowstyle": "-|>", "color": GREY, "lw": 1.6}
        axes.annotate("", (end, 1.85), (start, 1.85), arrowprops=arrow)


def generation(axes):
    """Plot seconds per generated base, with the cache and without."""
    rows = read("generation")
    bases = [int(row["prompt, bases"]) for row in rows]
    axes.loglog(bases, [float(row["recompute, s/base"]) for row in rows], "o-", color=WHOLE, label="recomputing")
    axes.loglog(bases, [float(row["cached, s/base"]) for row in rows], "o-", color=OURS, label="with the exact cache")
    axes.set(title="Generating on 2 CPU cores: seconds per base", xlabel="bases before")
    style(axes, bases)


def memory(axes):
    """Plot the peak memory of a forward pass of one row, above the loaded model."""
    rows = [row for row in read("speed") + read("speed_1m") if row["rows"] == "1" and row["published, GB"]]
    rows = [row for row in rows if int(row["positions"]) >= 1024]
    for name, label, colour in (("published", "published formulation", WHOLE), ("ours", "this package", OURS)):
        known = [(int(row["positions"]), float(row[f"{name}, GB"])) for row in rows]
        axes.loglog(*zip(*known), "o-", color=colour, label=label)
    axes.set(title="Reading on 2 CPU cores: GB of memory", xlabel="bases")
    style(axes, [1024, 8192, 32_768, 160_000, 1_000_000])


def style(axes, ticks):
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.title.set(size=10.5, weight="bold")
    axes.grid(color="#e3e8ec")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def box(axes, x, y, width, height, colour, rounding, edge="none"):
    shape = f"round,pad=0,rounding_size={rounding}"
    patch = FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=colour, ec=edge)
    axes.add_patch(patch)


def digest():
    """Return a digest of the results in the picture."""
    content = b"".join((RESULTS / f"{name}.csv").read_bytes() for name in ("generation", "speed", "speed_1m"))
    return hashlib.sha256(content).hexdigest()


def read(name):
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
