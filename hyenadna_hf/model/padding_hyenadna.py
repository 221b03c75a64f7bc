"""Attention masks and joined sequences: packing of the rows that a model computes, and pooling over them."""

from itertools import repeat

import torch
from torch._C._functorch import TransformType

from .plan_hyenadna import makes_a_graph


class Rows:
    """
    The rows of a batch, computed as they stand.

    Args:
        valid (`torch.BoolTensor` of shape `(rows, length)`, *optional*): Which positions exist; by default all.
    """

    def __init__(self, valid=None):
        self.valid = valid

    def pack(self, values, fill=0):
        """Move `(batch, length, ...)` to the rows that are computed."""
        return values

    def unpack(self, packed, fill=0):
        """Move rows that were computed back to where they stood."""
        return packed

    def clear(self, values, fill=0):
        """Put `fill` at the masked positions of `(batch, length, ...)`."""
        return values

    def split(self, count):
        """List some rows at a time."""
        return repeat(self) if self.valid is None else map(Rows, self.valid.split(count))


AS_THEY_STAND = Rows()


class PackedRows(Rows):
    """
    Moves the valid positions of each sequence to the front of a row of its own, in order, and back again.

    A causal model never looks forward, so what stands after the valid positions cannot change them: each sequence is
    computed as if it were alone, and as if its masked positions had been deleted, wherever they stood.

    Args:
        place (`torch.LongTensor` of shape `(batch, length)`):
            Where each position goes, as a number in the flattened rows. Masked positions may have any number.
        order (`torch.LongTensor` of shape `(rows, longest)`): Where each comes from, a number in the flattened batch.
        valid (`torch.BoolTensor` of shape `(rows, longest)`): Which positions of the rows exist.
        mask (`torch.BoolTensor` of shape `(batch, length)`): Which positions of the batch exist.
    """

    def __init__(self, place, order, valid, mask):
        super().__init__(valid)
        self.place, self.order, self.mask = place, order, mask

    def pack(self, values, fill=0):
        """`(batch, length, ...)` to `(rows, longest, ...)`, with `fill` after the valid positions."""
        return self._take(values, self.order, self.valid, fill)

    def unpack(self, packed, fill=0):
        """`(rows, longest, ...)` to `(batch, length, ...)`, with `fill` at the masked positions."""
        return self._take(packed, self.place, self.mask, fill)

    def clear(self, values, fill=0):
        return _filled(values, self.mask, fill)

    @staticmethod
    def _take(values, index, valid, fill):
        taken = values.flatten(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape)
        return _filled(taken, valid, fill)


def _filled(values, valid, fill):
    return values.masked_fill(~valid.reshape(*valid.shape, *[1] * (values.dim() - 2)), fill)


def rows_of(config, attention_mask=None, starts=None):
    """
    Find the rows to compute.

    Args:
        config ([`HyenaDNAConfig`]): With `compat_padding` masks are ignored.
        attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): Nonzero where a position is real.
        starts (`torch.BoolTensor` of shape `(batch, length)`, *optional*): Where sequences begin that share a row.

    Returns:
        [`Rows`]: [`PackedRows`], unless there is nothing to move.
    """
    masked = attention_mask is not None and not config.compat_padding
    if starts is not None:
        return _sequences(attention_mask != 0 if masked else torch.ones_like(starts), starts)
    if not masked:
        return AS_THEY_STAND
    mask = attention_mask != 0
    if not _values_are_unknown() and bool(mask.all()):
        return AS_THEY_STAND
    return _masked_rows(mask)


def _values_are_unknown():
    """Whether neither a branch nor a length may depend on data: in a graph, and under `torch.vmap`."""
    if makes_a_graph():
        return True
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == TransformType.Vmap for level in stack)


def _masked_rows(mask):
    batch, length = mask.shape
    # A stable sort by its definition: an exporter may not have one.
    so_far, position = mask.cumsum(1), torch.arange(length, device=mask.device)
    place = torch.where(mask, so_far - 1, so_far[:, -1:] + position - so_far)
    order = torch.empty_like(place).scatter(1, place, position.expand_as(place))
    longest = length if _values_are_unknown() else max(int(so_far[:, -1].max()), 1)
    order = order[:, :longest]
    valid = mask.gather(1, order)
    first = torch.arange(batch, device=mask.device)[:, None]
    return PackedRows(place.clamp(max=longest - 1) + first * longest, order + first * length, valid, mask)


def _sequences(mask, starts):
    """Give each sequence that begins at one of `starts` a row of its own, and each row without any an empty one."""
    starts = starts.clone()
    starts[:, 0] = True
    sequence = starts.flatten().cumsum(0) - 1  # of each position
    exists = mask.flatten()
    counts = torch.zeros(int(sequence[-1]) + 1, dtype=torch.long, device=mask.device).index_add(
        0, sequence, exists.long()
    )
    longest = max(int(counts.max()), 1)
    so_far = exists.cumsum(0)
    column = so_far - 1 - (counts.cumsum(0) - counts)[sequence]
    place = (sequence * longest + column.clamp(min=0)).view_as(mask)
    order = torch.zeros(len(counts) * longest, dtype=torch.long, device=mask.device)
    order[place[mask]] = exists.nonzero()[:, 0]
    valid = torch.arange(longest, device=mask.device) < counts[:, None]
    return PackedRows(place, order.view_as(valid), valid, mask)


def sequence_starts(inputs, attention_mask=None, position_ids=None, cu_seq_lens_q=None, seq_idx=None):
    """
    Find where sequences begin that a collator has joined, as `DataCollatorWithFlattening` does.

    Args:
        inputs (`torch.Tensor` of shape `(batch, length, ...)`): Token ids or embeddings.
        attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): Masked positions have no number.
        position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*): They start at 0 in each sequence.
        cu_seq_lens_q (`torch.Tensor` of shape `(sequences + 1,)`, *optional*): Where sequences begin, and the end.
        seq_idx (`torch.Tensor` of shape `(batch, length)`, *optional*): The number of the sequence of each position.

    Returns:
        `torch.BoolTensor` of shape `(batch, length)`, or `None` if each row is one sequence.

    Raises:
        ValueError: if the shapes do not fit, or positions neither go up by one nor start again at 0.
    """
    shape = inputs.shape[:2]
    if position_ids is None and cu_seq_lens_q is None and seq_idx is None:
        return None
    if makes_a_graph():
        raise ValueError(
            "position_ids, cu_seq_lens_q and seq_idx: how many sequences are joined depends on their values, which a "
            "compiled, exported or traced graph cannot follow; leave them out and pad the sequences."
        )
    starts = torch.zeros(shape, dtype=torch.bool, device=inputs.device)
    if cu_seq_lens_q is not None:
        edges = cu_seq_lens_q.long()
        whole = edges.dim() == 1 and len(edges) > 1 and edges[0] == 0 and edges[-1] == shape[1]
        if shape[0] != 1 or not whole or bool((edges.diff() < 0).any()):
            raise ValueError(
                f"cu_seq_lens_q={cu_seq_lens_q.tolist()}: it must go from 0 to the length of the one row of the input, "
                f"whose shape is {tuple(shape)}."
            )
        starts[0, edges[:-1][edges.diff() > 0]] = True
    for name, values in {"position_ids": position_ids, "seq_idx": seq_idx}.items():
        if values is None:
            continue
        values = values.expand(shape) if values.shape == (1, shape[1]) else values
        if values.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}, but the input is of (batch, length) = {tuple(shape)}."
            )
        mask = torch.ones_like(starts) if attention_mask is None else attention_mask != 0
        for row, (numbers, exists) in enumerate(zip(values, mask)):
            columns = exists.nonzero()[:, 0]
            steps = numbers[columns].diff()
            begins = steps != 0 if name == "seq_idx" else numbers[columns[1:]] == 0
            if name == "position_ids" and bool((~begins & (steps != 1)).any()):
                raise ValueError(
                    f"position_ids of row {row} neither go up by one nor start again at 0. HyenaDNA has no position "
                    "embeddings: they only say where sequences begin that share a row. Leave them out otherwise."
                )
            starts[row, columns[1:][begins]] = True
    return starts if bool(starts[:, 1:].any()) else None


def after_prompt(real, prompt_tokens):
    """
    The real positions of each row but the first `prompt_tokens` of them, wherever padding stands.

    Args:
        real (`torch.BoolTensor` of shape `(batch, length)`): Which positions exist.
        prompt_tokens (`int`): How many to leave out.

    Returns:
        `torch.BoolTensor` of shape `(batch, length)`.
    """
    return real & (real.cumsum(1) > prompt_tokens) if prompt_tokens else real


def pool_positions(hidden, real, how):
    """
    Pool `(batch, length, d_model)` over the positions where `real`, of shape `(batch, length)`, is true.

    Args:
        hidden (`torch.Tensor` of shape `(batch, length, d_model)`): Hidden states.
        real (`torch.BoolTensor` of shape `(batch, length)`): Which positions exist; a row may have none (zeros).
        how (`str`): `"mean"`, `"max"`, `"first"` or `"last"`.

    Returns:
        `torch.Tensor` of shape `(batch, d_model)`.
    """
    hidden = hidden.masked_fill(~real[..., None], 0)
    if how == "mean":
        total = hidden.sum(1, dtype=torch.promote_types(hidden.dtype, torch.float32))
        return (total / real.sum(1, keepdim=True).clamp(min=1)).to(hidden.dtype)
    if how == "max":
        lowest = torch.finfo(hidden.dtype).min
        highest = hidden.masked_fill(~real[..., None], lowest).amax(1)
        return highest.masked_fill(~real.any(1, keepdim=True), 0)
    position = torch.arange(real.shape[1], device=real.device)
    chosen = (position * real).argmax(1) if how == "last" else real.to(torch.uint8).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


def refuse_other_lengths(inputs):
    """
    Put a check into a graph that is being traced: it is right for inputs of this length alone.

    Args:
        inputs (`torch.Tensor` of shape `(batch, length, ...)`): What the graph is made with.

    Returns:
        `torch.Tensor`, the same: what does not go through the check is no reason for a graph to keep it.
    """
    length = int(inputs.shape[1])
    message = f"This HyenaDNA model was traced with {length} positions and is wrong for any other length."
    same = torch._shape_as_tensor(inputs)[1] == length
    same = torch.ops.aten._functional_assert_async.msg(same, message, same)
    return torch.where(same.to(inputs.device), inputs, inputs)
