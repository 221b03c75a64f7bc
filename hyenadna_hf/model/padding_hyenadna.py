"""What an attention mask means: packing of the real positions, and pooling over them."""

import torch


class Packing:
    """
    Moves the real positions of each row to its front, in order, and back again.

    A causal model never looks forward, so what stands behind the real positions cannot change them: each row is
    computed as if its masked positions had been deleted, wherever they stood.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch, length)`): Nonzero where a position is real, in any dtype.
    """

    def __init__(self, attention_mask):
        real = attention_mask != 0
        self.length = real.shape[1]
        # A stable sort by its definition: an exporter may not have one.
        real_so_far, position = real.cumsum(1), torch.arange(self.length, device=real.device)
        place = torch.where(real, real_so_far - 1, real_so_far[:, -1:] + position - real_so_far)
        order = torch.empty_like(place).scatter(1, place, position.expand_as(place))
        # In a compiled graph the length may not depend on data.
        longest = self.length if torch.compiler.is_compiling() else max(int(real.sum(1).max()), 1)
        self.order = order[:, :longest]
        self.real = real.gather(1, self.order)

    def pack(self, values, fill=0):
        """`(batch, length, ...)` to `(batch, longest, ...)`, with `fill` behind the real positions."""
        return values.gather(1, self._index(values)).masked_fill(~self._widen(self.real, values), fill)

    def unpack(self, packed):
        """`(batch, longest, ...)` to `(batch, length, ...)`, with zeros at the masked positions."""
        values = packed.masked_fill(~self._widen(self.real, packed), 0)
        full = values.new_zeros(values.shape[0], self.length, *values.shape[2:])
        return full.scatter(1, self._index(packed), values)

    def _index(self, values):
        return self._widen(self.order, values).expand(-1, -1, *values.shape[2:])

    @staticmethod
    def _widen(indices, values):
        return indices.reshape(*indices.shape, *[1] * (values.dim() - 2))


def packing_for(config, attention_mask):
    """A [`Packing`], or `None` where there is nothing to move: no mask, all ones, or `compat_padding`."""
    if attention_mask is None or config.compat_padding:
        return None
    if not torch.compiler.is_compiling() and bool((attention_mask != 0).all()):
        return None
    return Packing(attention_mask)


def behind_prompt(real, prompt_tokens):
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
