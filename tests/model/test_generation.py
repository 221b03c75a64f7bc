"""`generate`: whatever the strategy, each step is a full forward over the sequence so far."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import set_seed
from transformers.generation.streamers import BaseStreamer

from hyenadna_hf import HyenaDNAConfig, HyenaDNAForCausalLM, HyenaDNATokenizer
from hyenadna_hf.model.generation_hyenadna import SPECIAL_TOKENS

A, N, SEP, PAD, BOS = 7, 11, 1, 4, 2
NOT_GENERATED = (*SPECIAL_TOKENS, 12, 13, 14, 15)  # and the spare rows of the embedding


def small_config(**kwargs):
    return HyenaDNAConfig(d_model=12, max_seq_len=200, filter_order=16, embed_dropout=0.0, **kwargs)


@pytest.fixture
def model(make_model):
    return make_model(HyenaDNAForCausalLM, small_config())


@pytest.fixture
def prompt():
    """Three rows of real lengths 50, 37 and 1, padded on the left."""
    ids = torch.randint(A, N, (3, 50))
    ids[1, :13] = PAD
    ids[2, :49] = PAD
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def greedy(model, input_ids, attention_mask, steps):
    """The definition of greedy generation, with a full forward for each token."""
    allowed = torch.tensor([token for token in range(model.config.vocab_size) if token not in NOT_GENERATED])
    for _ in range(steps):
        with torch.no_grad():
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, -1]
        following = allowed[logits[:, allowed].argmax(-1, keepdim=True)]
        input_ids = torch.cat([input_ids, following], dim=1)
        attention_mask = torch.cat([attention_mask, torch.ones_like(following)], dim=1)
    return input_ids


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("order", [2, 3])
def test_greedy(make_model, prompt, order, use_cache):
    model = make_model(HyenaDNAForCausalLM, small_config(hyena_order=order))
    generated = model.generate(**prompt, max_new_tokens=100, do_sample=False, eos_token_id=None, use_cache=use_cache)
    assert torch.equal(generated, greedy(model, **prompt, steps=100))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.15)])
def test_the_logits_of_each_step_are_those_of_the_whole_sequence(make_model, prompt, dtype, tolerance):
    """In bfloat16 logits of up to 4 are rounded to 2^-7, and so is what they are sums of."""
    model = make_model(HyenaDNAForCausalLM, small_config(), dtype)
    options = {"output_logits": True, "return_dict_in_generate": True, "eos_token_id": None}
    out = model.generate(**prompt, max_new_tokens=120, do_sample=True, **options)
    mask = torch.cat([prompt["attention_mask"], torch.ones(3, 120, dtype=torch.long)], dim=1)
    with torch.no_grad():
        whole = model(out.sequences, mask).logits
    torch.testing.assert_close(torch.stack(out.logits, 1), whole[:, 49:-1].float(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("arguments", [
    {"do_sample": True, "temperature": 0.7, "top_k": 4},
    {"do_sample": True, "num_return_sequences": 3},
    {"do_sample": False, "num_beams": 4},
    {"do_sample": False, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0},
    {"do_sample": True, "num_beams": 2},
    {"do_sample": False, "repetition_penalty": 1.3},
    {"do_sample": False, "min_new_tokens": 45},
])  # fmt: skip
def test_every_strategy_gives_the_same_with_and_without_cache(model, prompt, arguments):
    results = []
    for use_cache in (True, False):
        set_seed(1)
        results.append(model.generate(**prompt, max_new_tokens=45, use_cache=use_cache, **arguments))
    assert torch.equal(*results)


def test_a_prompt_of_embeddings(model, prompt):
    expected = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    embeds = model.get_input_embeddings()(prompt["input_ids"])
    arguments = {"attention_mask": prompt["attention_mask"], "max_new_tokens": 40, "do_sample": False}
    assert torch.equal(model.generate(inputs_embeds=embeds, **arguments), expected[:, 50:])
    assert torch.equal(model.generate(prompt["input_ids"], inputs_embeds=embeds, **arguments), expected)


def test_a_soft_prompt_of_its_own_stands_for_the_input_ids(model):
    embeds = torch.randn(2, 20, 12)
    arguments = {"max_new_tokens": 33, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    out = model.generate(inputs_embeds=embeds, eos_token_id=None, **arguments)
    whole = torch.cat([embeds, model.get_input_embeddings()(out.sequences)], dim=1)
    with torch.no_grad():
        logits = model(inputs_embeds=whole).logits
    torch.testing.assert_close(torch.stack(out.logits, 1), logits[:, 19:-1], rtol=0, atol=1e-4)


def test_without_a_prompt_it_starts_from_bos(model):
    generated = model.generate(max_new_tokens=30, do_sample=False, eos_token_id=None)
    assert torch.equal(generated, greedy(model, torch.tensor([[BOS]]), torch.ones(1, 1, dtype=torch.long), 30))


def test_stops_at_sep_and_pads_the_rows_that_are_done(model, prompt):
    with torch.no_grad():
        model.lm_head.weight[SEP] *= 2  # so that some row gets there
    plain = greedy(model, **prompt, steps=60)
    ends = [(row[50:] == SEP).nonzero()[:1].flatten().tolist() for row in plain]
    assert any(ends)
    generated = model.generate(**prompt, max_new_tokens=60, do_sample=False)
    for row, expected, end in zip(generated, plain, ends):
        length = 50 + (end[0] + 1 if end else generated.shape[1] - 50)
        assert torch.equal(row[:length], expected[:length])
        assert (row[length:] == PAD).all()


def test_streams_token_by_token(model, prompt):
    class Keeper(BaseStreamer):
        def __init__(self):
            self.got, self.ended = [], False

        def put(self, value):
            self.got.append(value.flatten())

        def end(self):
            self.ended = True

    streamer = Keeper()
    ids = prompt["input_ids"][:1]
    generated = model.generate(ids, max_new_tokens=25, do_sample=False, streamer=streamer)
    assert streamer.ended and len(streamer.got) == 1 + generated.shape[1] - 50
    assert torch.equal(torch.cat(streamer.got), generated[0])


@pytest.mark.parametrize("masked", [False, True])
def test_goes_on_from_a_returned_cache(model, prompt, masked):
    ids, mask = prompt.values() if masked else (prompt["input_ids"][:1], None)
    options = {"do_sample": False, "eos_token_id": None, "return_dict_in_generate": True}
    first = model.generate(ids, attention_mask=mask, max_new_tokens=30, **options)
    # The last token made has not been read yet; the user adds some of their own.
    longer = torch.cat([first.sequences, torch.randint(A, N, (len(ids), 40))], dim=1)
    mask = torch.ones_like(longer) if mask is None else torch.cat([mask, torch.ones(3, 70, dtype=torch.long)], dim=1)
    cache = first.past_key_values
    assert cache.get_seq_length() == 79
    second = model.generate(longer, attention_mask=mask, past_key_values=cache, max_new_tokens=20, **options)
    assert torch.equal(second.sequences, greedy(model, longer, mask, 20))
    assert cache.get_seq_length() == 139


def test_chunked_prefill(model, prompt):
    expected = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert torch.equal(model.generate(**prompt, max_new_tokens=20, do_sample=False, prefill_chunk_size=16), expected)


def test_lora(make_model, prompt):
    targets = ["in_proj", "out_proj", "fc1", "fc2", "implicit_filter.0"]
    base = make_model(HyenaDNAForCausalLM, small_config())
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=targets)).eval()
    before = model.generate(**prompt, max_new_tokens=60, do_sample=False, eos_token_id=None)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    generated = model.generate(**prompt, max_new_tokens=60, do_sample=False, eos_token_id=None)
    assert not torch.equal(generated, before)
    assert torch.equal(generated, greedy(model, **prompt, steps=60))


@pytest.mark.parametrize("use_cache", [True, False])
def test_prompt_tuning(make_model, prompt, use_cache):
    base = make_model(HyenaDNAForCausalLM, small_config())
    model = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)).eval()
    generated = model.generate(**prompt, max_new_tokens=60, do_sample=False, eos_token_id=None, use_cache=use_cache)
    assert not torch.equal(generated, greedy(base, **prompt, steps=60))

    class Prompted:
        config = base.config

        def __call__(self, **inputs):
            out = model(**inputs)
            return type(out)(logits=out.logits[:, 6:])

    assert torch.equal(generated, greedy(Prompted(), **prompt, steps=60))


def test_never_makes_what_is_no_nucleotide_unless_asked_to(model, prompt):
    with torch.no_grad():
        model.lm_head.weight[list(NOT_GENERATED)] *= 30  # what would else be chosen often
    options = {"max_new_tokens": 60, "do_sample": True, "eos_token_id": None}
    made = model.generate(**prompt, **options)[:, 50:].unique().tolist()
    assert set(made) <= {SEP, *range(A, N + 1)} and len(made) > 3
    made = model.generate(**prompt, suppress_tokens=[], **options)[:, 50:].unique().tolist()
    assert set(made) & set(NOT_GENERATED)
    made = model.generate(**prompt, suppress_tokens=[SEP, *range(N + 1)], **options)[:, 50:].unique().tolist()
    assert set(made) <= set(range(12, 16))


def made_by(model, prompt, **options):
    """The tokens that come up where all are likely."""
    set_seed(2)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.01)
    made = model.generate(**prompt, max_new_tokens=100, do_sample=True, eos_token_id=None, top_k=0, **options)
    return set(made[:, 50:].flatten().tolist())


NUCLEOTIDES = {SEP, *range(A, N + 1)}


class TestAddedTokens:
    """They are generated, and spare rows of the embedding are not; `config.num_tokens` tells them apart."""

    @pytest.mark.parametrize("added", [1, 2, 4, 9])
    def test_after_resizing(self, model, prompt, tmp_path, added):
        tokenizer = HyenaDNATokenizer()
        tokenizer.add_tokens([f"<{i}>" for i in range(added)])
        model.resize_token_embeddings(len(tokenizer))
        expected = NUCLEOTIDES | set(range(12, 12 + added))
        assert made_by(model, prompt) == expected
        model.save_pretrained(tmp_path)
        loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path)
        assert loaded.config.num_tokens == len(tokenizer) and made_by(loaded, prompt) == expected

    def test_where_their_logits_are_high(self, model, prompt):
        tokenizer = HyenaDNATokenizer()
        tokenizer.add_tokens(["<gene>", "<exon>"])
        model.resize_token_embeddings(len(tokenizer))
        with torch.no_grad():
            model.lm_head.weight[12:] *= 100
        made = model.generate(**prompt, max_new_tokens=20, do_sample=False)[:, 50:]
        assert set(made.flatten().tolist()) & {12, 13}
        assert "<" in tokenizer.decode(made.flatten())

    @pytest.mark.parametrize("vocab_size, tokens", [(12, 12), (16, 12), (20, 20), (24, 24), (13, 13)])
    def test_of_a_configuration(self, make_model, prompt, tmp_path, vocab_size, tokens):
        """Published files say 12, and older ones of this package 16."""
        model = make_model(HyenaDNAForCausalLM, small_config(vocab_size=vocab_size))
        expected = NUCLEOTIDES | set(range(12, tokens))
        assert made_by(model, prompt) == expected
        model.save_pretrained(tmp_path)
        loaded = HyenaDNAForCausalLM.from_pretrained(tmp_path)
        assert loaded.config.num_tokens == tokens and made_by(loaded, prompt) == expected

    def test_suppressing_others_is_for_the_caller(self, model, prompt):
        assert made_by(model, prompt, suppress_tokens=[*range(A), 15]) == {*range(A, 15)}


class TestStopStrings:
    """A row stops where one of them is completed, and is padded from there on."""

    TOKENIZER = HyenaDNATokenizer()
    OPTIONS = {"max_new_tokens": 60, "do_sample": True, "suppress_tokens": [*range(A), *range(N, 16)]}

    def generate(self, model, prompt, **options):
        set_seed(3)
        return model.generate(**prompt, **{**self.OPTIONS, "tokenizer": self.TOKENIZER, **options})

    @pytest.fixture
    def model(self, make_model):
        model = make_model(HyenaDNAForCausalLM, small_config())
        with torch.no_grad():
            model.lm_head.weight.mul_(0.01)  # all nucleotides are likely
        return model

    @pytest.mark.parametrize("strings, read_as", [
        (["ACG"], ["ACG"]), ("GT", ["GT"]), (["A"], ["A"]), (["acg", "tta"], ["ACG", "TTA"]), (["guu"], ["GTT"]),
        (["TTTT", "C", "GGAC"], ["TTTT", "C", "GGAC"]),
    ], ids=str)  # fmt: skip
    @pytest.mark.parametrize("use_cache", [True, False])
    def test_each_row_stops_at_the_first(self, model, prompt, strings, read_as, use_cache):
        """(The random numbers of a step are those of all rows, so that rows that go on are as they were.)"""
        plain = self.generate(model, prompt, tokenizer=None, use_cache=use_cache)
        stopped = self.generate(model, prompt, stop_strings=strings, use_cache=use_cache)
        ends = []
        for row, expected in zip(stopped, plain):
            text = self.TOKENIZER.decode(expected, skip_special_tokens=True)
            start = len(text) - 60
            reached = [end for end in range(start + 1, len(text) + 1) if text[:end].endswith(tuple(read_as))]
            end = 50 + (reached[0] - start if reached else 60)
            ends.append(end)
            assert torch.equal(row[:end], expected[:end]) and (row[end:] == PAD).all()
        assert stopped.shape[1] == max(ends) and min(ends) < 110

    def test_across_the_end_of_the_prompt(self, model):
        prompt = self.TOKENIZER("TTAC", return_tensors="pt")
        out = self.generate(model, prompt, stop_strings="ACG", suppress_tokens=[t for t in range(16) if t != 9])
        assert self.TOKENIZER.decode(out[0]) == "TTACG"

    def test_streams(self, model):
        class Keeper(BaseStreamer):
            got = ()

            def put(self, value):
                self.got = (*self.got, *value.flatten().tolist())

            def end(self):
                pass

        streamer = Keeper()
        prompt = self.TOKENIZER("ACGT", return_tensors="pt")
        out = self.generate(model, prompt, stop_strings=["GG"], streamer=streamer)
        assert list(streamer.got) == out[0].tolist()
        assert self.TOKENIZER.decode(out[0]).endswith("GG") and out.shape[1] < 64

    @pytest.mark.parametrize("strings, stops", [("GAT", True), ("AGATT", True), ("TTACA", True), ("CC", False)])
    def test_an_added_token_of_several_letters(self, model, strings, stops):
        """It completes whatever it holds, or holds the end of."""
        tokenizer = HyenaDNATokenizer()
        tokenizer.add_tokens(["GATTACA"])
        model.resize_token_embeddings(len(tokenizer))
        prompt = tokenizer("CA", return_tensors="pt")
        only = {"suppress_tokens": list(range(12)), "max_new_tokens": 3, "do_sample": False}
        out = model.generate(**prompt, stop_strings=strings, tokenizer=tokenizer, **only)
        assert tokenizer.decode(out[0]) == "CA" + (1 if stops else 3) * "GATTACA"

    def test_with_beams(self, model, prompt):
        beams = {"do_sample": False, "num_beams": 2, "num_return_sequences": 2}
        for row in self.generate(model, prompt, stop_strings=["AC", "GT"], **beams)[:, 50:]:
            text = self.TOKENIZER.decode(row, skip_special_tokens=True)
            assert not any(stop in text[:-1] for stop in ("AC", "GT"))

    @pytest.mark.parametrize("strings", ["", [], [""], ["ACG", ""]])
    def test_empty_ones(self, model, prompt, strings):
        with pytest.raises(ValueError, match="stop_strings=.*none of them empty"):
            self.generate(model, prompt, stop_strings=strings)

    def test_without_a_tokenizer(self, model, prompt):
        with pytest.raises(ValueError, match="tokenizer"):
            self.generate(model, prompt, stop_strings=["A"], tokenizer=None)


def test_sequences_that_share_a_row_are_no_prompt(model, prompt):
    ids = prompt["input_ids"][:1]
    with pytest.raises(ValueError, match="share a row"):
        model.generate(ids, position_ids=torch.arange(50)[None] % 25, max_new_tokens=5)
    expected = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    positions = (prompt["attention_mask"].cumsum(1) - 1).clamp(min=0)
    out = model.generate(**prompt, position_ids=positions, max_new_tokens=5, do_sample=False)
    assert torch.equal(out, expected)
    with pytest.raises(ValueError, match="foo"):
        model.generate(ids, foo=1, max_new_tokens=5)


class TestErrors:
    """Before any work starts."""

    @pytest.fixture(autouse=True)
    def idle(self, model, monkeypatch):
        def busy(*args, **kwargs):
            raise AssertionError("the model was called")

        monkeypatch.setattr(model.hyena.backbone, "forward", busy)

    def test_too_long(self, model, prompt):
        with pytest.raises(ValueError, match="a sequence of 202 tokens, but with max_seq_len=200"):
            model.generate(**prompt, max_new_tokens=152)
        with pytest.raises(ValueError, match="max_seq_len=200"):
            model.generate(**prompt, max_length=300)
        with pytest.raises(ValueError, match="max_seq_len=200"):
            model.generate(inputs_embeds=torch.zeros(1, 150, 12), max_new_tokens=60)

    def test_other_caches(self, model, prompt):
        with pytest.raises(ValueError, match="cache_implementation='static'"):
            model.generate(**prompt, max_new_tokens=5, cache_implementation="static")

    def test_assisted_generation(self, model, prompt):
        with pytest.raises(ValueError, match="stateful"):
            model.generate(prompt["input_ids"][:1], max_new_tokens=5, assistant_model=model)


def test_the_longest_row_counts_without_its_padding(model, prompt):
    rows = {name: value[1:] for name, value in prompt.items()}
    generated = model.generate(**rows, max_new_tokens=200 - 37 + 1, do_sample=False, eos_token_id=None)
    assert generated.shape[1] == 50 + 164
    assert torch.equal(generated[:, :200], greedy(model, **rows, steps=150))
    with pytest.raises(ValueError, match="max_seq_len=200"):
        model.generate(**rows, max_new_tokens=165)
