import numpy as np
import pandas as pd
import pytest
import torch
from genomes import write_composition
from hypothesis import given
from hypothesis import strategies as st
from peft import AutoPeftModelForCausalLM
from reference import randomise
from scipy.stats import binomtest

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.data.sequence import reverse_complement_ids
from hyenadna_hf.errors import InputError
from hyenadna_hf.training import few_shot, soft_prompt
from hyenadna_hf.training.prompt_baselines import draw_in_turn, mean_hidden_states
from hyenadna_hf.training.prompt_grid import draw, interval, summarise, write_tables
from hyenadna_hf.training.prompting import LettersLoss, Prompts, ShowSteps, accuracy_of_letters, load_task
from hyenadna_hf.training.soft_prompt import add_prompt, initialise

pytest.importorskip("matplotlib")

A, C, G, T, N = range(7, 12)


@pytest.fixture
def dataset(tmp_path):
    """AT-rich or GC-rich sequences of 8 to 12 bases."""
    sizes, weights = {"train": 96, "dev": 24, "test": 40}, ((1, 9, 9, 1), (9, 1, 1, 9))
    return write_composition(tmp_path / "data", sizes, weights=weights, lengths=(8, 12))


@pytest.fixture
def language_model(tmp_path):
    folder = tmp_path / "lm"
    config = HyenaDNAConfig(d_model=16, filter_order=16, max_seq_len=100, embed_dropout=0.0)
    randomise(HyenaDNAForCausalLM(config)).save_pretrained(folder)
    HyenaDNATokenizer(model_max_length=100).save_pretrained(folder)
    return folder


def arguments(cls, dataset, language_model, folder, **options):
    return cls(dataset=str(dataset), model=str(language_model), output_dir=str(folder), use_cpu=True, **options)


pools = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), min_size=9, max_size=30).filter(
    lambda rows: all(sum(label == one for _, label in rows) > 2 for one in range(3))
)


@given(pools, st.integers(0, 2), st.integers(0, 9), st.booleans())
def test_a_prompt_is_demonstrations_of_every_class_then_the_query(rows, shots, seed, from_train):
    """Each sequence is told apart by its first token, which no other row has."""
    pool = [(torch.tensor([100 + i, *[A] * length]), label) for i, (length, label) in enumerate(rows)]
    queries = pool if from_train else [(torch.tensor([50, C]), 1)]
    prompts = Prompts(queries, pool, [A, G, N], shots, seed)
    for row in range(len(prompts)):
        prompt, pieces, start = prompts[row], [], 0
        for end in (prompt["labels"] != -100).nonzero().flatten().tolist():
            pieces.append((prompt["input_ids"][start:end].tolist(), int(prompt["input_ids"][end])))
            assert prompt["labels"][end] == prompt["input_ids"][end]
            start = end + 1
        assert start == len(prompt["input_ids"])
        *shown, query = pieces
        assert query == (queries[row][0].tolist(), [A, G, N][queries[row][1]])
        assert query[0] not in [ids for ids, _ in shown] and len({ids[0] for ids, _ in shown}) == len(shown)
        assert sorted(letter for _, letter in shown) == sorted([A, G, N] * shots)
        assert all(
            letter == [A, G, N][pool[ids[0] - 100][1]] and ids == pool[ids[0] - 100][0].tolist()
            for ids, letter in shown
        )
        assert torch.equal(prompt["input_ids"], prompts[row]["input_ids"])


def test_rows_have_demonstrations_of_their_own_and_strands_are_flipped_one_by_one():
    pool = [(torch.tensor([A, C, C, int(base)]), i % 2) for i, base in enumerate([A, C, G, T] * 5)]
    prompts = Prompts(pool, pool, [A, N], 2, seed=0)
    assert len({tuple(prompts[i]["input_ids"][:-5].tolist()) for i in range(20)}) > 10
    flipped = Prompts(pool, pool, [A, N], 2, seed=0, reverse_complement=1.0)
    for i in range(20):
        plain, other = (p[i]["input_ids"].view(-1, 5) for p in (prompts, flipped))
        assert torch.equal(plain[:, 4], other[:, 4])
        assert all(torch.equal(reverse_complement_ids(a), b) for a, b in zip(plain[:, :4], other[:, :4]))


@given(st.lists(st.lists(st.integers(), unique=True, max_size=8), min_size=1, max_size=4), st.integers(0, 40))
def test_tuning_samples_come_from_each_class_in_turn(rows_of, count):
    rows_of = [[(number, row) for row in rows] for number, rows in enumerate(rows_of)]
    drawn = draw_in_turn(rows_of, count, seed=1)
    assert len(drawn) == len(set(drawn)) == min(count, sum(map(len, rows_of)))
    assert drawn == draw_in_turn(rows_of, 99, seed=1)[:count]
    counts = [sum(row[0] == number for row in drawn) for number in range(len(rows_of))]
    assert all(counts[i] >= min(len(rows_of[i]), max(counts) - 1) for i in range(len(rows_of)))


def test_only_the_prompt_is_dropped_and_only_in_training(make_model, config):
    base = make_model(HyenaDNAForCausalLM, config)
    seen = []
    model = add_prompt(base, 64, dropout=0.5)
    base.get_submodule("hyena").register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    inputs = {"input_ids": torch.tensor([[A, C, G]]), "attention_mask": torch.ones(1, 3)}
    model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
    model.eval()(**inputs)
    prompt = model.get_prompt(1)
    zeros = (seen[0][:, :64] == 0).float().mean()
    assert 0.3 < zeros < 0.7 and not (seen[1][:, :64] == 0).any()
    kept = seen[0][:, :64] != 0
    torch.testing.assert_close(seen[0][:, :64][kept], 2 * prompt[kept])
    torch.testing.assert_close(seen[0][:, 64:], base.get_input_embeddings()(inputs["input_ids"]))
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "prompt_encoder.default.embedding.weight"
    ]
    torch.testing.assert_close(model.train().get_prompt_embedding_to_save("default"), prompt[0])  # nothing is dropped


@pytest.mark.slow
def test_soft_prompts_from_the_command_line_and_back(dataset, language_model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = (language_model / "model.safetensors").read_bytes()
    options = "--prompt_tokens 0 16 512 --shots 0 1 --prompt_position after before --num_train_epochs 5 --use_cpu"
    options += " --baselines linear_probe lora full --baseline_samples 8 0"
    soft_prompt.main(
        ["--dataset", str(dataset), "--model", str(language_model), "--output_dir", "out", *options.split()]
    )
    printed = capsys.readouterr().out
    table = pd.read_csv("out/table.csv", keep_default_na=False, na_values="")
    prompts, baselines = table[table["method"].isna()], table[table["method"].notna()]
    keys = ["prompt_position", "prompt_tokens", "shots"]
    places = [(place, n) for place in ("after", "before") for n in (16, 512)]
    assert prompts[keys].values.tolist() == [[p, n, k] for p, n in [*places, ("none", 0)] for k in (0, 1)]
    assert prompts["tokens"].tolist() == [29, 55, 525, 551, 29, 55, 525, 551, 13, 39]
    assert prompts["left_out"].notna().tolist() == (prompts["prompt_tokens"] == 512).tolist()
    assert "after, 512 prompt tokens, 0 shots: left out, 525 tokens, but the model reads 100" in printed
    found = prompts.set_index(keys)
    for place in ("after", "before"):
        for shots in (0, 1):
            assert found.loc[place, 16, shots]["validation_loss"] < found.loc["none", 0, shots]["validation_loss"]
            assert found.loc[place, 16, shots]["parameters"] == 16 * 16
    assert found.loc["after", 16, 0]["accuracy"] > 0.8  # a prompt that can ask
    assert ((table["accuracy_low"] < table["accuracy"]) & (table["accuracy"] < table["accuracy_high"])).sum() >= 9
    counts = baselines.groupby("method", sort=False)["training_sequences"].apply(list).to_dict()
    del counts["majority class"]
    assert counts == {name: [8, 96] for name in ("full", "linear_probe", "lora")}
    best = baselines[baselines["training_sequences"] == 96].set_index("method")["accuracy"]
    assert best["full"] > 0.8 and best["linear_probe"] > 0.8
    assert (tmp_path / "out" / "table.md").read_text().count("\n") == 2 + len(table)
    assert (tmp_path / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (language_model / "model.safetensors").read_bytes() == weights
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        f"prompt-16-{place}-shots-{shots}-seed-42" for place in ("after", "before") for shots in (0, 1)
    ]
    test = pd.read_csv(dataset / "test.csv")
    for place in ("after", "before"):
        model = AutoPeftModelForCausalLM.from_pretrained(f"out/prompt-16-{place}-shots-0-seed-42").eval()
        right = 0
        for sequence, label in zip(test["sequence"], test["label"]):
            ids = HyenaDNATokenizer()(sequence, return_tensors="pt")
            with torch.no_grad():
                right += int(model(**ids).logits[0, -1, [A, C]].argmax()) == ["AT", "GC"].index(label)
        assert right / len(test) == found.loc[place, 16, 0]["accuracy"]


def test_the_published_settings_are_a_row(dataset, language_model, tmp_path):
    options = {"prompt_tokens": [4], "shots": [0], "num_train_epochs": 1, "prompt_position": ["published", "before"]}
    args = arguments(soft_prompt.SoftPromptArguments, dataset, language_model, tmp_path / "out", **options)
    rows = {row["prompt_position"]: row for row in soft_prompt.soft_prompt(args)["rows"]}
    options = {"softmax": "vocabulary", "learning_rate": 1e-3, "lr_scheduler_type": "reduce_lr_on_plateau"}
    options |= {"prompt_tokens": [4], "shots": [0], "num_train_epochs": 1, "early_stopping_patience": 2}
    options |= {"reverse_complement": 0.5}
    args = arguments(soft_prompt.SoftPromptArguments, dataset, language_model, tmp_path / "by hand", **options)
    args.prompt_position, args.class_letters = ["before"], "AN"
    (by_hand,) = soft_prompt.soft_prompt(args)["rows"]
    for name in ("accuracy", "validation_loss"):
        assert rows["published"][name] == by_hand[name]
    assert rows["published"]["validation_loss"] > rows["before"]["validation_loss"]  # over all tokens


def test_the_loss_is_that_of_a_softmax_over_the_letters(make_model, config):
    """At the letters of demonstrations too, and whatever comes before them."""
    model = make_model(HyenaDNAForCausalLM, config)
    model.loss_function = LettersLoss([A, C, T])
    ids = torch.tensor([[4, A, G, T, C], [G, G, A, C, A]])
    labels = torch.tensor([[-100, -100, -100, T, C], [-100, -100, A, G, A]])  # G is no letter
    out = model(ids, attention_mask=(ids != 4).long(), labels=labels)
    places = [(0, 2, 2), (0, 3, 1), (1, 1, 0), (1, 3, 0)]
    expected = [-torch.log_softmax(out.logits[i, t, [A, C, T]], 0)[k] for i, t, k in places]
    torch.testing.assert_close(out.loss, torch.stack(expected).mean(), rtol=0, atol=1e-6)
    scaled = model(ids, attention_mask=(ids != 4).long(), labels=labels, num_items_in_batch=8).loss
    torch.testing.assert_close(scaled, out.loss / 2, rtol=0, atol=1e-6)


def test_calibration_takes_away_what_the_model_answers_to_anything(dataset, language_model, tmp_path):
    """A bias in the logits, too strong for any answer, is gone."""
    model = HyenaDNAForCausalLM.from_pretrained(language_model)
    options = {"tuning_samples": [96], "shots": [0], "learning_rate": 1e-2, "calibration": "contextual"}
    args = arguments(few_shot.FewShotArguments, dataset, language_model, tmp_path / "out", **options)
    (row,) = few_shot.few_shot(args)["rows"]
    assert row["accuracy"] > 0.7 and "uncalibrated_accuracy" in row
    task = load_task(args)
    queries = task.draw_content_free(0, 42)
    assert len(queries) == 24 and {int(queries[i]["input_ids"][-1]) for i in range(24)} == {A}
    assert [len(queries[i]["input_ids"]) - 1 for i in range(24)] == [len(ids) for ids, _ in task.splits["validation"]]
    scores, answers = np.log([[0.9, 0.1], [0.99, 0.01]]), np.array([C, A])
    assert accuracy_of_letters(scores, answers, [A, C]) == 0.5
    assert accuracy_of_letters(scores - np.log([0.95, 0.05]), answers, [A, C]) == 1.0
    assert model.config.vocab_size == 16


def test_prompts_begin_as_asked(dataset, language_model, tmp_path):
    task = load_task(arguments(soft_prompt.SoftPromptArguments, dataset, language_model, tmp_path, shots=[0]))
    table = task.model.get_input_embeddings().weight.detach()
    model = add_prompt(task.build_answering_model("letters"), 6, position="after")
    weight = model.prompt_encoder.default.embedding.weight
    untouched = weight.clone()
    initialise(model, task, "random")
    assert torch.equal(weight, untouched) and weight.std() < 2 * model.config.initializer_range
    initialise(model, task, "tokens")
    assert ((weight[:, None] == table[[A, C, G, T]]).all(-1).sum(1) == 1).all()
    initialise(model, task, "class_means")
    ids = torch.cat([ids for ids, label in task.splits["train"] if label == 1])
    torch.testing.assert_close(weight[[1, 3, 5]], table[ids].mean(0).expand(3, -1))
    assert not torch.equal(weight[0], weight[1])


def test_hidden_states_for_the_probe_are_those_of_each_sequence_alone(dataset, language_model, tmp_path):
    args = arguments(soft_prompt.SoftPromptArguments, dataset, language_model, tmp_path, shots=[0], eval_batch_size=5)
    task = load_task(args)
    rows = task.splits["test"][:12]
    with torch.no_grad():
        alone = [task.model.hyena(ids[None]).last_hidden_state[0].mean(0) for ids, _ in rows]
    found = torch.from_numpy(mean_hidden_states(task, args, rows))
    torch.testing.assert_close(found, torch.stack(alone), rtol=0, atol=1e-5)


@given(st.integers(1, 400), st.integers(0, 400))
def test_the_interval_is_wilsons(queries, right):
    right = min(right, queries)
    found = interval(right / queries, queries)
    expected = binomtest(right, queries).proportion_ci(0.95, method="wilson")
    assert found["accuracy_low"] == pytest.approx(expected.low, abs=1e-4)
    assert found["accuracy_high"] == pytest.approx(expected.high, abs=1e-4)
    wider = interval(right / queries, queries, variance=0.01)
    assert wider["accuracy_low"] <= found["accuracy_low"] + 1e-12


def test_seeds_are_averaged(dataset, language_model, tmp_path):
    runs = [
        {"shots": 1, "seed": 1, "accuracy": 0.5, "seconds": 2.0},
        {"shots": 1, "seed": 2, "accuracy": 0.7, "seconds": 2.0},
    ]
    runs.append({"shots": 2, "seed": 1, "left_out": "too long"})
    one, other = summarise(runs, queries=100)
    expected = {"shots": 1, "accuracy": 0.6, **interval(0.6, 100, 0.02 / 2), "seconds": 2.0, "seeds": 2}
    assert one == pytest.approx(expected)
    assert other == {"shots": 2, "left_out": "too long"}
    options = {"tuning_samples": [0, 8], "shots": [1], "seeds": 2, "baselines": ["linear_probe"]}
    args = arguments(few_shot.FewShotArguments, dataset, language_model, tmp_path / "out", **options)
    results = few_shot.few_shot(args)
    expected = [(seed, samples) for samples in (0, 8, None) for seed in (42, 43)]
    assert [(run["seed"], run.get("tuning_samples")) for run in results["runs"]] == expected
    assert [row["accuracy"] for row in results["rows"]] == [
        pytest.approx(sum(run["accuracy"] for run in results["runs"][i : i + 2]) / 2) for i in (0, 2)
    ]
    assert results["baselines"][0]["method"] == "linear_probe" and results["baselines"][0]["training_sequences"] == 8
    args.seeds = 1
    assert few_shot.few_shot(args) == results  # those of other seeds are kept


@pytest.mark.slow
def test_a_killed_run_ends_like_a_whole_one(dataset, language_model, tmp_path, monkeypatch):
    options = {"prompt_tokens": [4, 8], "shots": [0], "num_train_epochs": 4, "limit": 32, "early_stopping_patience": 9}
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    args = {
        name: arguments(soft_prompt.SoftPromptArguments, dataset, language_model, folder, **options)
        for name, folder in folders.items()
    }
    whole = soft_prompt.soft_prompt(args["whole"])

    steps = []

    def killed(self, args, state, control, **kwargs):
        steps.append(state.global_step)
        if len(steps) == 8 + 5:  # in the third epoch of the second prompt
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShowSteps, "on_step_end", killed)
        soft_prompt.soft_prompt(args["killed"])
    assert [path.name for path in folders["killed"].iterdir()] == ["results.json.partial"]
    args["killed"].dropout = 0.2
    with pytest.raises(InputError, match="an unfinished run that differs in dropout; finish that run, delete the "):
        soft_prompt.soft_prompt(args["killed"])
    args["killed"].dropout = args["whole"].dropout
    steps.clear()
    monkeypatch.setattr(ShowSteps, "on_step_end", lambda self, a, state, *rest, **more: steps.append(state.global_step))
    resumed = soft_prompt.soft_prompt(args["killed"])
    assert steps == list(range(5, 9))
    assert not (folders["killed"] / "results.json.partial").exists()
    for one, other in zip(whole["rows"], resumed["rows"], strict=True):
        assert one.items() - {("seconds", one["seconds"])} == other.items() - {("seconds", other["seconds"])}
    steps.clear()
    assert soft_prompt.soft_prompt(args["killed"]) == resumed and not steps
    args["killed"].prompt_tokens = [2]
    assert [row["prompt_tokens"] for row in soft_prompt.soft_prompt(args["killed"])["rows"]] == [2, 4, 8]
    assert (folders["killed"] / "prompt-2-after-shots-0-seed-42" / "adapter_model.safetensors").is_file()
    assert not list(folders["killed"].glob("*/checkpoint-*"))
    args["killed"].learning_rate = 0.01
    with pytest.raises(InputError, match=r"it contains results of other settings \(learning_rate 0.03, now 0.01\)"):
        soft_prompt.soft_prompt(args["killed"])


def test_tuning_on_prompts_teaches_what_the_letters_mean(dataset, language_model, tmp_path):
    options = {"tuning_samples": [0, 96], "shots": [0, 1], "learning_rate": 1e-2}
    args = arguments(few_shot.FewShotArguments, dataset, language_model, tmp_path / "out", **options)
    results = few_shot.few_shot(args)
    found = {(row["tuning_samples"], row["shots"]): row["accuracy"] for row in results["rows"]}
    assert found[96, 0] > 0.7 > found[0, 0] and found[96, 1] >= 0.5
    assert results["majority_class"] == 0.5 and results["letters"] == {"AT": "A", "GC": "C"}
    assert few_shot.few_shot(args) == results  # and nothing is done again
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "accuracy.png",
        "results.json",
        "table.csv",
        "table.md",
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"shots": [-1]}, "--shots -1: give 0 or more"),
        ({"shots": [0, 64]}, "--shots 64: class AT has 48 training sequences; give fewer"),
        ({"shots": [0, 9], "limit": 12}, "--shots 9: class .* or a larger --limit"),
        ({"shots": [40]}, "--shots 40: an input would have 1,053 tokens, but .* reads 100; set --max_"),
        ({"prompt_tokens": [-2]}, "--prompt_tokens -2: give 0 or more"),
        (
            {"prompt_position": ["after", "middle"]},
            "--prompt_position middle: give before or after or both or spread or",
        ),
        ({"prompt_init": "text"}, "--prompt_init text: give random or tokens or class_means"),
        ({"lr_scheduler_type": "step"}, "--lr_scheduler_type step: give linear or"),
        ({"baselines": ["svm"]}, "--baselines svm: give linear_probe or lora or full"),
        ({"baseline_samples": [-1]}, "--baseline_samples -1: give 0 or more"),
        ({"baseline_samples": [1]}, "--baseline_samples 1: give 0 for all, or at least 2, one per class"),
        ({"class_letters": "AAC"}, "--class_letters AAC: give 2 different letters of ACGTN, one for each of AT, GC"),
        ({"class_letters": "AA"}, "--class_letters AA: give 2 different letters"),
        ({"class_letters": "AX"}, "--class_letters AX: give 2 different letters"),
        ({"softmax": "all"}, "--softmax all: give letters or vocabulary"),
        ({"calibration": "contextual", "softmax": "vocabulary"}, "contextual: this requires --softmax letters"),
        ({"seeds": 0}, "--seeds 0: give 1 or more"),
        ({"dropout": 1.0}, "--dropout 1.0: give a probability"),
        ({"learning_rate": -1.0}, "--learning_rate -1.0: give 0 or more"),
        ({"early_stopping_patience": 0}, "--early_stopping_patience 0: give 1 or more"),
        ({"limit": 0}, "--limit 0: give 1 or more"),
        ({"dataset": "absent.csv"}, "no such file"),
        ({"model": "./absent"}, "--model ./absent: cannot be loaded"),
        ({"output_dir": "data"}, "--output_dir data: the folder contains other files"),
        ({"output_dir": "data/train.csv"}, "this is a file"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    dataset, language_model, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    args = arguments(soft_prompt.SoftPromptArguments, dataset, language_model, "out", prompt_tokens=[0], shots=[0])
    for name, value in options.items():
        setattr(args, name, value)
    with pytest.raises(InputError, match=message):
        soft_prompt.soft_prompt(args)
    assert sorted(tmp_path.rglob("*")) == before


def test_sequences_are_cut_to_max_bases_which_had_another_name(dataset, language_model, tmp_path, capsys):
    args, _ = few_shot.parser().parse(["--max_length", "5"])
    assert args.max_bases == 5 and "--max_bases" in capsys.readouterr().err
    task = load_task(arguments(few_shot.FewShotArguments, dataset, language_model, tmp_path, shots=[0], max_bases=5))
    assert task.longest == 5 and len(task.splits["test"][0][0]) == 5


def test_too_many_classes_are_refused(dataset, language_model, tmp_path):
    table = pd.DataFrame({"sequence": ["ACGT"] * 300, "label": list("abcdef") * 50})
    table.to_csv(tmp_path / "six.csv", index=False)
    args = arguments(few_shot.FewShotArguments, tmp_path / "six.csv", language_model, tmp_path / "out")
    with pytest.raises(InputError, match="it has 6 classes, but there are letters for at most 5"):
        few_shot.few_shot(args)


def test_tables_and_plot_with_runs_left_out(tmp_path):
    rows = [{"shots": 0, "a": 2, "accuracy": 0.5}, {"shots": 1000, "a": 2, "left_out": "too long"}]
    write_tables(tmp_path, rows)
    assert (tmp_path / "table.csv").read_text() == "shots,a,accuracy,left_out\n0,2,0.5,\n1000,2,,too long\n"
    assert (tmp_path / "table.md").read_text().splitlines()[2:] == [
        "| 0 | 2 | 0.5000 |  |",
        "| 1,000 | 2 |  | too long |",
    ]
    rows = [
        {"prompt_position": place, "prompt_tokens": n, "shots": 0, "accuracy": 0.5, **interval(0.5, 40)}
        for place in ("after", "before")
        for n in (2, 32)
    ]
    rows.append({"prompt_position": "both", "prompt_tokens": 2, "shots": 1000, "left_out": "too long"})
    baselines = [{"method": "lora", "training_sequences": n, "accuracy": 0.7} for n in (2, 40)]
    draw(tmp_path / "plot.png", rows, baselines, 0.25)
    assert (tmp_path / "plot.png").stat().st_size > 5_000
