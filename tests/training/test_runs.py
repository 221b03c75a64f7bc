"""Arguments that all training runs share."""

import pytest
import torch

from hyenadna_hf import processes
from hyenadna_hf.training.pretrain import PretrainArguments


@pytest.mark.parametrize(
    ("said", "launcher", "fast", "expected"),
    [
        ({}, None, True, True),
        ({}, None, False, False),
        ({"bf16": False}, None, True, False),
        ({"bf16": True}, None, False, True),
        ({}, "no", True, False),  # accelerate launch --mixed_precision no
        ({"bf16": True}, "no", True, True),
    ],
)
def test_bfloat16_is_the_default_where_it_is_faster(monkeypatch, tmp_path, said, launcher, fast, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", bool, raising=False)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    if launcher is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    assert processes.has_fast_bfloat16(use_cpu=True) == fast
    args = PretrainArguments(output_dir=str(tmp_path), use_cpu=True, **said)
    assert args.bf16 == expected
