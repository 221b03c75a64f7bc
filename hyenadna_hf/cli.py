"""The `hyenadna` command: one subcommand a job."""

import importlib
import sys

from . import __version__
from .errors import InputError

# Name, module whose main(argv) does it, and what it does. Modules are imported when asked for.
COMMANDS = {
    "convert": ("hyenadna_hf.hub.convert", "make a Hub folder of a checkpoint in any published layout"),
    "data": ("hyenadna_hf.data.info", "tell what is in a labelled data set, and which published ones there are"),
    "embed": ("hyenadna_hf.inference.embed_fasta", "embed the sequences of a FASTA file, or intervals of it"),
    "few-shot": ("hyenadna_hf.training.few_shot", "let a language model classify behind demonstrations"),
    "finetune": ("hyenadna_hf.training.finetune", "fine-tune a sequence classifier and compare it with baselines"),
    "mutagenesis": ("hyenadna_hf.inference.mutagenesis", "score every single-base change of a region"),
    "pretrain": ("hyenadna_hf.training.pretrain", "train a language model on genomes, nucleotide by nucleotide"),
    "publish": ("hyenadna_hf.hub.publish", "upload a folder to the Hub, with all that a stranger needs"),
    "reproduce": ("hyenadna_hf.reproduce.command", "run a published table, its figures beside ours"),
    "score-variants": ("hyenadna_hf.inference.score_variants", "score the variants of a VCF file"),
    "soft-prompt": ("hyenadna_hf.training.soft_prompt", "train soft prompts before a frozen language model"),
    "track": ("hyenadna_hf.inference.tracks", "write the log-likelihood of every base as bedGraph or bigWig"),
}


def main(argv=None):
    """
    Run `hyenadna ARGS` and return its exit status: 0 for success, 2 for bad input, which costs one line on stderr.

    Args:
        argv (`list[str]`, *optional*): The arguments; those of the process by default.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        print(f"hyenadna: error: no command {command!r}; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        importlib.import_module(COMMANDS[command][0]).main(rest)
    except InputError as error:
        print(f"hyenadna {command}: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(
            f"hyenadna {command}: error: the package {error.name} is missing; pip install 'hyenadna_hf[all]'.",
            file=sys.stderr,
        )
        return 2
    return 0


def _usage():
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {help_}" for name, (_, help_) in COMMANDS.items()]
    return "\n".join(
        ["usage: hyenadna COMMAND [ARGUMENTS]", "", *lines, "", "hyenadna COMMAND --help tells the arguments of each."]
    )
