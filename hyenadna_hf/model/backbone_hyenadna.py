"""Embeddings, blocks and the final norm of HyenaDNA: what all its heads share."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .cache_hyenadna import NOTHING, Prepared
from .filter_hyenadna import HyenaDNAFilter, HyenaDNAFilterLinear, HyenaDNAPositions, HyenaDNASine
from .in_place_hyenadna import InPlace
from .operator_hyenadna import HyenaDNAOperator
from .padding_hyenadna import AS_THEY_STAND
from .pieces_hyenadna import Pieces
from .plan_hyenadna import TRANSPARENT

# Dtypes of matrix products by oneDNN on this CPU.
ONEDNN = {torch.float32} if torch.backends.mkldnn.is_available() else set()
if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN.add(torch.bfloat16)


class HyenaDNAMLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)
        self.fc2.closes_residual_branch = True

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))

    def infer(self, x):
        """Compute what `forward` does, without gradient: on a CPU by oneDNN, which has GELU in the matrix product."""
        if x.device.type != "cpu" or x.dtype not in ONEDNN:
            return self(x)
        h = torch.ops.mkldnn._linear_pointwise(x, self.fc1.weight, self.fc1.bias, "gelu", [], "tanh")
        return torch.ops.mkldnn._linear_pointwise(h, self.fc2.weight, self.fc2.bias, "none", [], "")


class HyenaDNABlock(GradientCheckpointingLayer):
    """Pre-norm mixer and MLP; the residual stream stays in float32 whatever the dtype of the weights."""

    def __init__(self, config):
        super().__init__()
        self.mixer = HyenaDNAOperator(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = HyenaDNAMLP(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, hidden_states, plan=TRANSPARENT, past=NOTHING, rows=AS_THEY_STAND):
        hidden_states = hidden_states + self.mixer_branch(hidden_states, plan, past, rows)
        if plan.path == "pieces":
            return self._add_mlp_in_pieces(hidden_states, plan.tuning.positions)
        return hidden_states + self.mlp_branch(hidden_states)

    def mixer_branch(self, hidden_states, plan, past, rows):
        normed = self.norm1(hidden_states.to(self.norm1.weight.dtype))
        return self.dropout(self.mixer(normed, plan=plan, past=past, rows=rows))

    def mlp_branch(self, hidden_states, infer=False):
        mlp = self.mlp.infer if infer else self.mlp
        return self.dropout(mlp(self.norm2(hidden_states.to(self.norm2.weight.dtype))))

    def _add_mlp_in_pieces(self, hidden_states, size):
        pieces = Pieces(
            lambda _, piece: piece + self.mlp_branch(piece),
            hidden_states.shape,
            hidden_states.dtype,
            dim=1,
            size=size,
            cut_dim=1,
            random=self.dropout.training and self.dropout.p > 0,
        )
        return pieces(hidden_states, parameters=(*self.norm2.parameters(), *self.mlp.parameters()))


class HyenaDNAEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.d_model)

    def forward(self, input_ids):
        return self.word_embeddings(input_ids)


class HyenaDNABackbone(nn.Module):
    """Embeddings, blocks and the final norm."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embeddings = HyenaDNAEmbeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(HyenaDNABlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(
        self,
        inputs_embeds,
        plan=TRANSPARENT,
        past=None,
        rows=AS_THEY_STAND,
        output_hidden_states=False,
        overwrite=False,
        blocks=None,
    ):
        """
        Args:
            inputs_embeds (`torch.Tensor` of shape `(batch, length, d_model)`): Embeddings.
            plan ([`Plan`]): How to compute.
            past (`list`, *optional*): For each block what came before, a [`Past`].
            rows ([`Rows`]): Which positions are the rows to compute.
            output_hidden_states (`bool`): Whether to return the hidden states of all blocks.
            overwrite (`bool`): Whether `inputs_embeds` may be overwritten.
            blocks (`int`, *optional*): How many blocks to run, without the final norm; by default all, and the norm.

        Returns:
            `tuple`: the last hidden states, and those of all blocks or `None`.
        """
        hidden_states = self.dropout(inputs_embeds)
        hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        parts = [(hidden_states, rows)]
        if plan.path == "rows":
            past = [Prepared(layer.mixer, hidden_states, plan) for layer in self.layers[:blocks]]
            count = max(1, plan.tuning.row_positions // hidden_states.shape[1])
            parts = zip(hidden_states.split(count), rows.split(count))
        elif plan.path == "in_place" and not overwrite and hidden_states.data_ptr() == inputs_embeds.data_ptr():
            parts = [(hidden_states.clone(), rows)]
        past = past or [NOTHING] * len(self.layers)
        found = [self._run(part, plan, past, of_part, output_hidden_states, blocks) for part, of_part in parts]
        last, *states = found[0] if len(found) == 1 else map(torch.cat, zip(*found))
        return last, (*states, last) if output_hidden_states else None

    def _run(self, hidden_states, plan, past, rows, output_hidden_states, blocks):
        """Compute the last hidden states, and if asked for, what each block reads."""
        in_place = None
        if plan.path == "in_place":
            in_place = InPlace(hidden_states, plan, rows.valid, past[0], causal=not self.config.bidirectional)
        states = []
        for layer, before in zip(self.layers[:blocks], past):
            if output_hidden_states:
                states.append(hidden_states if in_place is None else hidden_states.clone())
            if in_place is None:
                hidden_states = layer(hidden_states, plan=plan, past=before, rows=rows)
            else:
                in_place.run(layer, before)
        del in_place  # and its work space
        if blocks is None:
            hidden_states = self.ln_f(hidden_states.to(self.ln_f.weight.dtype))
        return hidden_states, *states


# Types of modules that a model has if nothing has rewritten it.
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
