"""Attention masks and joined sequences: packing into the rows that a model computes, and pooling."""

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch.nn import functional as F

from .configuration_hyenadna import HyenaDNAConfig
from .plan_hyenadna import is_building_graph


class Rows:
    """
    Rows of a batch, computed where they are.

    Args:
        valid: Boolean mask of shape `(rows, length)`. Defaults to all valid.
    """

    def __init__(self, valid: Tensor | None = None) -> None:
        self.valid = valid

    def pack(self, values: Tensor, fill: Any = 0) -> Tensor:
        """Move `(batch, length, ...)` to the rows to compute."""
        return values

    def unpack(self, packed: Tensor, fill: Any = 0) -> Tensor:
        """Move computed rows back to their places in the batch."""
        return packed

    def clear(self, values: Tensor, fill: Any = 0) -> Tensor:
        """Write `fill` to the masked positions of `(batch, length, ...)`."""
        return values

    def split(self, count: int) -> Iterable["Rows"]:
        """Split into groups of `count` rows."""
        return repeat(self) if self.valid is None else map(Rows, self.valid.split(count))


UNPACKED = Rows()


class PackedRows(Rows):
    """
    Rows that each hold the valid positions of one sequence, in order and from the front.

    A causal model never looks ahead, so that positions after the valid ones cannot change them: each sequence is
    computed as if it were alone and its masked positions had been deleted.

    Args:
        place: Destination of each position, an index into the flattened rows, of shape `(batch, length)`. That of a
            masked position may be any.
        order: Source of each position, an index into the flattened batch, of shape `(rows, longest)`.
        valid: Boolean mask of the rows, of shape `(rows, longest)`.
        mask: Boolean mask of the batch, of shape `(batch, length)`.
    """

    def __init__(self, place: Tensor, order: Tensor, valid: Tensor, mask: Tensor) -> None:
        super().__init__(valid)
        self.place, self.order, self.mask = place, order, mask

    def pack(self, values: Tensor, fill: Any = 0) -> Tensor:
        """Map `(batch, length, ...)` to `(rows, longest, ...)`, with `fill` after the valid positions."""
        return self._take(values, self.order, self.valid, fill)

    def unpack(self, packed: Tensor, fill: Any = 0) -> Tensor:
        """Map `(rows, longest, ...)` to `(batch, length, ...)`, with `fill` at the masked positions."""
        return self._take(packed, self.place, self.mask, fill)

    def clear(self, values: Tensor, fill: Any = 0) -> Tensor:
        return fill_masked(values, self.mask, fill)

    @staticmethod
    def _take(values: Tensor, index: Tensor, valid: Tensor | None, fill: Any) -> Tensor:
        taken = values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)
        return fill_masked(taken, valid, fill)


def fill_masked(values: Tensor, valid: Tensor, fill: Any) -> Tensor:
    """Write `fill` where the mask `valid` of shape `(batch, length)` is false in `values`, `(batch, length, ...)`."""
    return values.masked_fill(~valid.reshape(*valid.shape, *[1] * (values.dim() - 2)), fill)


def find_rows(config: HyenaDNAConfig, attention_mask: Tensor | None = None, starts: Tensor | None = None) -> Rows:
    """
    Determine the rows to compute.

    Args:
        config: Configuration; with `compat_padding`, masks are ignored.
        attention_mask: Mask of shape `(batch, length)`, nonzero at valid positions.
        starts: Boolean tensor of shape `(batch, length)` with the starts of sequences that share a row.

    Returns:
        [`PackedRows`], or [`Rows`] if nothing needs to move.
    """
    mask = None if attention_mask is None or config.compat_padding else attention_mask != 0
    if starts is not None:
        return _pack_sequences(torch.ones_like(starts) if mask is None else mask, starts)
    if mask is None or (not _is_data_dependence_forbidden() and bool(mask.all())):
        return UNPACKED
    return _pack_masked(mask)


def _is_data_dependence_forbidden() -> bool:
    """Whether branches and lengths must not depend on data, as in a graph and under `torch.vmap`."""
    if is_building_graph():
        return True
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == TransformType.Vmap for level in stack)


def _pack_masked(mask: Tensor) -> PackedRows:
    batch, length = mask.shape
    # A stable sort by its definition, since exporters may lack one.
    count, position = mask.cumsum(1), torch.arange(length, device=mask.device)
    place = torch.where(mask, count - 1, count[:, -1:] + position - count)
    order = torch.empty_like(place).scatter(1, place, position.expand_as(place))
    longest = length if _is_data_dependence_forbidden() else max(int(count[:, -1].max()), 1)
    order = order[:, :longest]
    valid = mask.gather(1, order)
    first = torch.arange(batch, device=mask.device)[:, None]
    return PackedRows(place.clamp(max=longest - 1) + first * longest, order + first * length, valid, mask)


def _pack_sequences(mask: Tensor, starts: Tensor) -> PackedRows:
    """Move each sequence that begins at one of `starts` to its own row, which is empty if all of it is masked."""
    starts = starts.clone()
    starts[:, 0] = True
    sequence = starts.flatten().cumsum(0) - 1  # of each position
    is_valid = mask.flatten()
    counts = torch.zeros(int(sequence[-1]) + 1, dtype=torch.long, device=mask.device).index_add(
        0, sequence, is_valid.long()
    )
    longest = max(int(counts.max()), 1)
    column = is_valid.cumsum(0) - 1 - (counts.cumsum(0) - counts)[sequence]
    place = (sequence * longest + column.clamp(min=0)).view_as(mask)
    order = torch.zeros(len(counts) * longest, dtype=torch.long, device=mask.device)
    order[place[mask]] = is_valid.nonzero()[:, 0]
    valid = torch.arange(longest, device=mask.device) < counts[:, None]
    return PackedRows(place, order.view_as(valid), valid, mask)


def find_sequence_starts(
    inputs: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    seq_idx: Tensor | None = None,
) -> Tensor | None:
    """
    Find the starts of sequences that share a row, as `DataCollatorWithFlattening` joins them.

    Args:
        inputs: Token ids or embeddings of shape `(batch, length, ...)`.
        attention_mask: Mask of shape `(batch, length)`; numbers of masked positions are ignored.
        position_ids: Positions of shape `(batch, length)` that start at 0 in each sequence.
        cu_seq_lens_q: Starts of all sequences and the end of the last one, of shape `(sequences + 1,)`.
        seq_idx: Number of the sequence of each position, of shape `(batch, length)`.

    Returns:
        A boolean tensor of shape `(batch, length)`, or `None` if each row is one sequence.

    Raises:
        ValueError: If shapes do not match, or positions neither increase by one nor restart at 0.
    """
    shape = inputs.shape[:2]
    if position_ids is None and cu_seq_lens_q is None and seq_idx is None:
        return None
    if is_building_graph():
        raise ValueError(
            "position_ids, cu_seq_lens_q and seq_idx: the number of joined sequences depends on their values, which a "
            "compiled, exported or traced graph cannot follow; leave them out and pad the sequences."
        )
    starts = torch.zeros(shape, dtype=torch.bool, device=inputs.device)
    if cu_seq_lens_q is not None:
        edges = cu_seq_lens_q.long()
        covers_row = edges.dim() == 1 and len(edges) > 1 and edges[0] == 0 and edges[-1] == shape[1]
        if shape[0] != 1 or not covers_row or bool((edges.diff() < 0).any()):
            raise ValueError(
                f"cu_seq_lens_q={cu_seq_lens_q.tolist()}: it must increase from 0 to the length of the only row; "
                f"the shape of the input is {tuple(shape)}."
            )
        starts[0, edges[:-1][edges.diff() > 0]] = True
    for name, values in {"position_ids": position_ids, "seq_idx": seq_idx}.items():
        if values is None:
            continue
        values = values.expand(shape) if values.shape == (1, shape[1]) else values
        if values.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}, but (batch, length) of the input is {tuple(shape)}."
            )
        mask = torch.ones_like(starts) if attention_mask is None else attention_mask != 0
        for row, (numbers, is_valid) in enumerate(zip(values, mask)):
            columns = is_valid.nonzero()[:, 0]
            steps = numbers[columns].diff()
            is_start = steps != 0 if name == "seq_idx" else numbers[columns[1:]] == 0
            if name == "position_ids" and bool((~is_start & (steps != 1)).any()):
                raise ValueError(
                    f"position_ids of row {row} neither increase by one nor restart at 0. HyenaDNA has no position "
                    "embeddings and uses them only to find sequences that share a row; otherwise leave them out."
                )
            starts[row, columns[1:][is_start]] = True
    return starts if bool(starts[:, 1:].any()) else None


def shift_labels(labels: Tensor, rows: Rows) -> Tensor:
    """Return the label of the next valid position for each position of `rows`, -100 where there is none."""
    shifted = F.pad(rows.pack(labels, -100)[:, 1:], (0, 1), value=-100)
    return rows.clear(rows.unpack(shifted, -100), -100)


def mask_prompt(valid: Tensor, prompt_tokens: int) -> Tensor:
    """Mask the first `prompt_tokens` valid positions of each row, for `valid` of shape `(batch, length)`."""
    return valid & (valid.cumsum(1) > prompt_tokens) if prompt_tokens else valid


def pool_positions(hidden_states: Tensor, valid: Tensor, pooling: str) -> Tensor:
    """
    Pool hidden states over the valid positions of each row.

    Args:
        hidden_states: Tensor of shape `(batch, length, d_model)`.
        valid: Boolean mask of shape `(batch, length)`. A row without valid positions gives zeros.
        pooling: `"mean"`, `"max"`, `"first"` or `"last"`.

    Returns:
        A tensor of shape `(batch, d_model)`.
    """
    hidden_states = hidden_states.masked_fill(~valid[..., None], 0)
    if pooling == "mean":
        total = hidden_states.sum(1, dtype=torch.promote_types(hidden_states.dtype, torch.float32))
        return (total / valid.sum(1, keepdim=True).clamp(min=1)).to(hidden_states.dtype)
    if pooling == "max":
        lowest = torch.finfo(hidden_states.dtype).min
        highest = hidden_states.masked_fill(~valid[..., None], lowest).amax(1)
        return highest.masked_fill(~valid.any(1, keepdim=True), 0)
    position = torch.arange(valid.shape[1], device=valid.device)
    chosen = (position * valid).argmax(1) if pooling == "last" else valid.to(torch.uint8).argmax(1)
    return hidden_states[torch.arange(len(hidden_states), device=hidden_states.device), chosen]


def check_traced_length(inputs: Tensor) -> Tensor:
    """
    Add a check to a graph being traced, which is valid for inputs of this length only.

    Returns `inputs`, passed through the check: a graph drops any check whose result is unused.
    """
    length = int(inputs.shape[1])
    message = f"This HyenaDNA model was traced with {length} positions and is wrong for any other length."
    is_traced_length = torch._shape_as_tensor(inputs)[1] == length
    is_traced_length = torch.ops.aten._functional_assert_async.msg(is_traced_length, message, is_traced_length)
    return torch.where(is_traced_length.to(inputs.device), inputs, inputs)
