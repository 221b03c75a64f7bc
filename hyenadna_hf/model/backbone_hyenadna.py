"""Embeddings, blocks and final norm of HyenaDNA, shared by all heads."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .cache_hyenadna import NO_PAST, Past, PreparedPast
from .configuration_hyenadna import HyenaDNAConfig
from .filter_hyenadna import HyenaDNAFilter, HyenaDNAFilterLinear, HyenaDNAPositions, HyenaDNASine
from .in_place_hyenadna import InPlace
from .operator_hyenadna import HyenaDNAOperator
from .padding_hyenadna import UNPACKED, Rows
from .pieces_hyenadna import Pieces
from .plan_hyenadna import TRANSPARENT, Plan

# Data types for which oneDNN multiplies matrices on this CPU.
ONEDNN = {torch.float32} if torch.backends.mkldnn.is_available() else set()
if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN.add(torch.bfloat16)


class HyenaDNAMLP(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)
        self.fc2.closes_residual_branch = True

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))

    def infer(self, x: Tensor) -> Tensor:
        """Compute the same as `forward`, without gradient; on a CPU, oneDNN fuses GELU into the matrix product."""
        if x.device.type != "cpu" or x.dtype not in ONEDNN:
            return self(x)
        h = torch.ops.mkldnn._linear_pointwise(x, self.fc1.weight, self.fc1.bias, "gelu", [], "tanh")
        return torch.ops.mkldnn._linear_pointwise(h, self.fc2.weight, self.fc2.bias, "none", [], "")


class HyenaDNABlock(GradientCheckpointingLayer):
    """Pre-norm mixer and MLP. The residual stream stays in float32, whatever the dtype of the weights."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.mixer = HyenaDNAOperator(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = HyenaDNAMLP(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(
        self, hidden_states: Tensor, plan: Plan = TRANSPARENT, past: Past = NO_PAST, rows: Rows = UNPACKED
    ) -> Tensor:
        hidden_states = hidden_states + self.mixer_branch(hidden_states, plan, past, rows)
        if plan.path == "pieces":
            return self._add_mlp_in_pieces(hidden_states, plan.tuning.positions)
        return hidden_states + self.mlp_branch(hidden_states)

    def mixer_branch(self, hidden_states: Tensor, plan: Plan, past: Past, rows: Rows) -> Tensor:
        normed = self.norm1(hidden_states.to(self.norm1.weight.dtype))
        return self.dropout(self.mixer(normed, plan=plan, past=past, rows=rows))

    def mlp_branch(self, hidden_states: Tensor, infer: bool = False) -> Tensor:
        mlp = self.mlp.infer if infer else self.mlp
        return self.dropout(mlp(self.norm2(hidden_states.to(self.norm2.weight.dtype))))

    def _add_mlp_in_pieces(self, hidden_states: Tensor, size: int) -> Tensor:
        pieces = Pieces(
            lambda _, piece: piece + self.mlp_branch(piece),
            hidden_states.shape,
            hidden_states.dtype,
            dim=1,
            size=size,
            split_dim=1,
            random=self.dropout.training and self.dropout.p > 0,
        )
        return pieces(hidden_states, parameters=(*self.norm2.parameters(), *self.mlp.parameters()))


class HyenaDNAEmbeddings(nn.Module):
    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.d_model)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.word_embeddings(input_ids)


class HyenaDNABackbone(nn.Module):
    """Embeddings, blocks and the final norm."""

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = HyenaDNAEmbeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(HyenaDNABlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(
        self,
        inputs_embeds: Tensor,
        plan: Plan = TRANSPARENT,
        past: list[Past] | None = None,
        rows: Rows = UNPACKED,
        output_hidden_states: bool = False,
        overwrite: bool = False,
        blocks: int | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """
        Run the blocks and the final norm.

        Args:
            inputs_embeds: Embeddings of shape `(batch, length, d_model)`.
            plan: How to compute.
            past: Context of each block.
            rows: Rows to compute.
            output_hidden_states: Whether to return the hidden states of all blocks.
            overwrite: Whether `inputs_embeds` may be overwritten.
            blocks: Number of blocks to run, without the final norm. Defaults to all, with the norm.

        Returns:
            The last hidden states, and those of all blocks or `None`.
        """
        hidden_states = self.dropout(inputs_embeds)
        hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        parts: Iterable[tuple[Tensor, Rows]] = [(hidden_states, rows)]
        if plan.path == "rows":
            past = [PreparedPast(layer.mixer, hidden_states, plan) for layer in self.layers[:blocks]]
            count = max(1, plan.tuning.row_positions // hidden_states.shape[1])
            parts = zip(hidden_states.split(count), rows.split(count))
        elif plan.path == "in_place" and not overwrite and hidden_states.data_ptr() == inputs_embeds.data_ptr():
            parts = [(hidden_states.clone(), rows)]
        past = past or [NO_PAST] * len(self.layers)
        results = [self._run(part, plan, past, part_rows, output_hidden_states, blocks) for part, part_rows in parts]
        last, *states = results[0] if len(results) == 1 else map(torch.cat, zip(*results))
        return last, (*states, last) if output_hidden_states else None

    def _run(
        self,
        hidden_states: Tensor,
        plan: Plan,
        past: list[Past],
        rows: Rows,
        output_hidden_states: bool,
        blocks: int | None,
    ) -> tuple[Tensor, ...]:
        """Return the last hidden states, followed by the input of each block if `output_hidden_states`."""
        in_place = None
        if plan.path == "in_place":
            in_place = InPlace(hidden_states, plan, rows.valid, past[0], causal=not self.config.bidirectional)
        states = []
        for layer, context in zip(self.layers[:blocks], past):
            if output_hidden_states:
                states.append(hidden_states if in_place is None else hidden_states.clone())
            if in_place is None:
                hidden_states = layer(hidden_states, plan=plan, past=context, rows=rows)
            else:
                in_place.run(layer, context)
        del in_place  # to free its work space
        if blocks is None:
            hidden_states = self.ln_f(hidden_states.to(self.ln_f.weight.dtype))
        return hidden_states, *states


# Types of the modules of an unmodified model.
MODULES = frozenset(
    {
        HyenaDNABackbone,
        HyenaDNABlock,
        HyenaDNAEmbeddings,
        HyenaDNAFilter,
        HyenaDNAFilterLinear,
        HyenaDNAMLP,
        HyenaDNAOperator,
        HyenaDNAPositions,
        HyenaDNASine,
    }
)
