"""Options: their spellings, former and present, and one meaning for each name over all commands."""

import dataclasses
import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transformers import TrainingArguments

from hyenadna_cli import COMMANDS, main
from hyenadna_hf.arguments import CommandParser
from hyenadna_hf.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "command_line.md"
OF_TRANSFORMERS = {field.name for field in dataclasses.fields(TrainingArguments)}


@dataclass(kw_only=True)
class Arguments:
    fasta: str = field(metadata={"positional": True, "help": "Sequences."})
    region: str | None = field(default=None, metadata={"positional": True, "help": "Part of them."})
    window: int = field(default=8, metadata={"formerly": ["max_length", "size"], "help": "Bases."})
    names: list[str] = field(default_factory=list, metadata={"formerly": ["all_names"], "help": "Names."})
    both_strands: bool = field(default=False, metadata={"formerly": ["two_strands"], "help": "Both."})
    progress: bool = field(default=True, metadata={"help": "A bar."})


def parser():
    return CommandParser("try", Arguments, "A command.", "[ARGUMENT ...]", [""])


@pytest.mark.parametrize(
    ("words", "expected", "notes"),
    [
        ("--fasta a --window 3", {"window": 3}, []),
        ("--fasta a --max_length 3", {"window": 3}, ["--max_length is now --window"]),
        ("--fasta a --max-length=3", {"window": 3}, ["--max-length is now --window"]),
        ("--fasta a --size 3 --size 4", {"window": 4}, ["--size is now --window"]),
        ("--all_names x y=--size --fasta a", {"names": ["x", "y=--size"]}, ["--all_names is now --names"]),
        ("--fasta=a --names=x", {"names": ["x"]}, []),
        ("a", {}, ["a is now --fasta a"]),
        ("--window 3 a", {"window": 3}, ["a is now --fasta a"]),
        ("-", {"fasta": "-"}, ["- is now --fasta -"]),  # standard input
        ("a b --window 3", {"window": 3, "region": "b"}, ["a is now --fasta a", "b is now --region b"]),
        ("b --fasta a", {"region": "b"}, ["b is now --region b"]),
        ("--both_strands a", {"both_strands": True}, ["a is now --fasta a"]),
        ("--both-strands --fasta a", {"both_strands": True}, []),
        ("--both_strands no --fasta a", {"both_strands": False}, []),
        ("--two_strands --fasta a", {"both_strands": True}, ["--two_strands is now --both_strands"]),
        ("--no_progress --fasta a", {"progress": False}, []),
        ("--progress false a", {"progress": False}, ["a is now --fasta a"]),
    ],
)
def test_former_spellings(words, expected, notes, capsys):
    args, _ = parser().parse(words.split())
    assert vars(args) == vars(Arguments(fasta="a")) | expected
    text = "".join(f"hyenadna try: {note}; the next release will not accept the old spelling.\n" for note in notes)
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: --fasta; hyenadna try --help lists the arguments"),
        ("a b c", "unknown argument c"),
        ("--fly a", "unknown argument --fly"),
        ("a --fly", "unknown argument --fly"),
        ("a --size x", "argument --window: invalid int value: 'x'"),
        ("a --window", "argument --window: expected one argument"),
        ("a --both_strands=perhaps", "Truthy value expected: got perhaps"),
    ],
)
def test_bad_arguments(words, message):
    with pytest.raises(InputError, match=message):
        parser().parse(words.split())


def test_former_spellings_are_not_in_the_help():
    text = parser().format_help()
    assert "--window" in text and "max_length" not in text and "--size" not in text and "positional" not in text


def options():
    """The options of each command, by name: command, and the argparse action."""
    found = {}
    for command, (module, _) in COMMANDS.items():
        parser = importlib.import_module(module).parser()
        for action in parser._actions:
            if action.option_strings and action.dest != "help":
                found.setdefault(action.option_strings[0], {})[command] = action
        # A former name that is a present one again would hide it.
        assert not set(getattr(parser, "_current", ())) & set(parser._option_string_actions), command
    return found


# The meaning of each option that several commands have, as a pattern that the help of each matches.
MEANINGS = {
    "baselines": "^Compare with|columns of scores|^Baselines to train",
    "batch_size": "[Ss]equences|Prompts",
    "bed": "BED",
    "bootstrap": "^Samples of",
    "bos": r"\[BOS\] before",
    "calibration": "^contextual",
    "class_letters": "[Ll]etter",
    "classifier_pooling": "head .*reads|pools",
    "control": "random weights",
    "dataset": "^(Labelled s|S)equences",
    "dtype": "weights: float32",
    "early_stopping_patience": "[Ss]top after so many|without",
    "eval_batch_size": "Prompts",
    "fasta": "FASTA",
    "json": "one JSON object on stdout",
    "kmer": "overlapping words",
    "label_column": "label, class or target",
    "learning_rate": "AdamW",
    "limit": "equences .*split",
    "max_bases": r"\bbases\b",
    "max_length": r"\btokens\b",
    "max_tokens": "^Tokens in a batch",
    "model": "ships with the package|Hub id|published size",
    "num_train_epochs": "^Passes over",
    "out": r"\.\w",
    "output_dir": "goe?s?|Folder",
    "plot": "^Heat map|^Sequence logo",
    "region": "(?i)chr20:|chr:start-end",
    "reverse_complement": "^Probability",
    "seed": "andom",
    "seeds": "[Ss]eeds",
    "sequence_column": "sequence, seq or dna",
    "shots": "^Demonstrations",
    "softmax": "letters",
    "special_tokens_mode": "^Special tokens",
    "strands": "^both: the mean of both strands",
    "stride": r"\b[Bb]ases\b",
    "target": "^Label ",
    "test": "^(Without --bed|For --task token or track): sequences or regions",
    "test_fraction": "^Fraction of train .*no test split",
    "tokenizer": "tokenizer",
    "trust_remote_code": "Run code that comes with --model",
    "validation": "^(Without --bed|For --task token or track): sequences or regions",
    "validation_fraction": "^Fraction of train .*no validation split",
    "window": r"\b[Bb]ases\b",
}


def test_options_have_no_dashes_and_only_shared_ones_are_listed():
    found = options()
    assert not [name for name in found if "-" in name.removeprefix("--")]
    shared = {next(iter(actions.values())).dest for actions in found.values() if len(actions) > 1}
    of_training = {"min_lr_rate", "ema_decay", "muon_learning_rate"}  # of both training commands, one dataclass
    assert shared - OF_TRANSFORMERS - MEANINGS.keys() == of_training
    assert MEANINGS.keys() <= shared


@pytest.mark.parametrize("name", MEANINGS)
def test_an_option_has_one_meaning(name):
    actions = options()[f"--{name}"]
    assert not {
        command: action.help for command, action in actions.items() if not re.search(MEANINGS[name], action.help)
    }


def test_the_documentation_lists_shared_options():
    rows = re.findall(r"^\| `--(\w+)` \|", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(MEANINGS)


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("export-onnx absent x.pb --length 20", "export-onnx --model absent --out x.pb --max_length 20"),
        ("convert absent made --pooling last", "convert absent made --classifier_pooling last"),
        ("convert --compat-padding absent made", "convert absent made --compat_padding"),
        ("convert absent made --special-tokens sep", "convert absent made --special_tokens_mode sep"),
        ("reproduce local --out x --epochs 0", "reproduce local --output_dir x --num_train_epochs 0"),
        ("publish --private absent me/it", "publish absent me/it --private"),
    ],
)
def test_former_command_lines(former, present, capsys):
    """They do the same: here, fail in the same way."""
    assert main(present.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "--help" not in error  # the arguments are read
    assert main(former.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == error
