"""
The `hyenadna` command: one subcommand a job.

It is not a part of `hyenadna_hf` because importing that imports torch: `hyenadna --help` should not wait for it, and
`hyenadna doctor` should work without it.
"""

import importlib
import json
import math
import os
import sys
import traceback
from contextlib import nullcontext, redirect_stdout
from importlib.metadata import version

# Name, module whose main(argv) does it and returns its result as a dict, and what it does. The module's parser() gives
# its arguments. Modules are imported when asked for.
COMMANDS = {
    "completion": ("hyenadna_cli.completion", "print a script that completes these commands in a shell"),
    "convert": ("hyenadna_hf.hub.convert", "make a Hub folder of a checkpoint in any published layout"),
    "data": ("hyenadna_hf.data.info", "tell what is in a labelled data set, and which published ones there are"),
    "doctor": ("hyenadna_cli.doctor", "tell what is installed, which devices there are, and what is missing"),
    "embed": ("hyenadna_hf.inference.embed_fasta", "embed the sequences of a FASTA file, or intervals of it"),
    "export-onnx": ("hyenadna_hf.hub.export_onnx", "write a model as an ONNX graph, compared with the model"),
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

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

HELP = """\
usage: hyenadna COMMAND [ARGUMENTS]

{commands}

examples:
  hyenadna finetune                                    the bundled example, in about a minute
  hyenadna finetune --dataset my_data/ --output_dir my_model
  hyenadna data info splice_sites_chr20 --json

hyenadna COMMAND --help tells the arguments of each, with their defaults.
--json with any command prints its result as one JSON object on stdout; all else goes to stderr.
exit status: 0 success, 1 the work failed, 2 bad input or a missing package, 130 interrupted.\
"""


def main(argv=None):
    """
    Run `hyenadna ARGS`.

    With `--json` among the arguments, stdout receives the result of the command as one JSON object, from the first of
    several processes only, and all else that the command prints goes to stderr.

    Args:
        argv (`list[str]`, *optional*): The arguments; those of the process by default.

    Returns:
        `int`: the exit status: 0 for success; 1 for a failure in the work, with its traceback; 2 for bad input or a
        missing package, which costs one line on stderr; 130 if interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(HELP.format(commands="\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items())))
        return OK
    if argv[0] == "--version":
        print(version("hyenadna_hf"))
        return OK
    command, *rest = argv
    if command not in COMMANDS:
        return _refuse("hyenadna", f"no command {command!r}; there are {', '.join(COMMANDS)}.")
    as_json = "--json" in rest
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            module = importlib.import_module(COMMANDS[command][0])
            result = module.main([word for word in rest if word != "--json"])
    except KeyboardInterrupt:
        print(f"hyenadna {command}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        missing = f"the package {error.name} is missing; pip install 'hyenadna_hf[all]'."
        return _refuse(f"hyenadna {command}", missing)
    except Exception as error:
        if type(error).__name__ != "InputError":  # by name: its module may be what cannot be imported
            traceback.print_exc()
            return FAILED
        return _refuse(f"hyenadna {command}", error)
    if as_json and os.environ.get("RANK", "0") == "0":
        print(json.dumps(_plain(result)))
    return OK


def _refuse(who, reason):
    print(f"{who}: error: {reason}", file=sys.stderr)
    return BAD_INPUT


def _plain(value):
    """A result in the types of JSON, which has no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
