"""Attention over texts that lie end to end in one tensor, without padding between them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SPREAD = 1.15  # longest to shortest text of a group: padding costs less than more, smaller products
CELLS = 1_500_000  # scores computed at once: they stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Group:
    """Texts of like length that stand side by side, treated in one product."""

    start: int  # of their tokens in the flat tensor
    end: int
    count: int
    longest: int
    shortest: int
    places: "Tensor | None"  # of each token in the padded rows; None when all are of one length
    absent: "Tensor | None"  # (count, 1, 1, longest - shortest), true where a text has ended


def group_texts(lengths: Sequence[int], heads: int, device: Any) -> list[Group]:  # torch.device
    """Groups for texts of these lengths, longest first as they stand in the flat tensor."""
    groups, first, start = [], 0, 0
    while first < len(lengths):
        longest = lengths[first]
        most = (
            max(1, CELLS // (heads * longest * longest)) if device.type == "cpu" else len(lengths)
        )
        last = first
        while last < len(lengths) and last - first < most and lengths[last] * SPREAD + 2 >= longest:
            last += 1
        groups.append(_group(lengths[first:last], start, device))
        start, first = groups[-1].end, last
    return groups


def _group(lengths: Sequence[int], start: int, device: Any) -> Group:
    import torch

    longest, shortest, count = lengths[0], lengths[-1], len(lengths)
    end = start + sum(lengths)
    if longest == shortest:
        return Group(start, end, count, longest, shortest, None, None)
    lasting = torch.tensor(lengths)[:, None] > torch.arange(longest)
    return Group(
        start, end, count, longest, shortest,
        places=lasting.flatten().nonzero().flatten().to(device),
        absent=~lasting[:, None, None, shortest:].to(device),
    )  # fmt: skip


def attend(
    qkv: "Tensor", groups: Sequence[Group], *, heads: int, bias: "Tensor | None", dropout: float
) -> "Tensor":
    """Every token's mixture of the values of its own text, (tokens, width) in the type of ``qkv``.

    Args:
        qkv: (tokens, 3 × width), queries scaled already.
        bias: (heads, n, n) added to the scores, n the longest text.
        dropout: Share of the attention probabilities set to zero.
    """
    return _function().apply(qkv, bias, groups, heads, dropout)


def keep_mask(like: "Tensor", dropout: float) -> "Tensor":
    """0 with probability ``dropout``, else 1 / (1 - dropout), in the shape and type of ``like``.

    Drawn from torch's generator, 16 bits a number: several times as fast as torch's own
    Bernoulli numbers on a CPU, and exact to 1/65,536.
    """
    import torch

    cut = round(dropout * 65_536)
    scale = 65_536 / (65_536 - cut)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    return (bits >= cut - 32_768).to(like.dtype).mul_(scale)


def _by_head(flat: "Tensor", group: Group, parts: int, heads: int) -> "Tensor":
    """(tokens, parts × width) of the group's tokens to (parts, count × heads, longest, width of a
    head), zeros after the end of a text."""
    rows = flat[group.start : group.end]
    if group.places is not None:
        padded = rows.new_zeros(group.count * group.longest, rows.shape[1])
        rows = padded.index_copy_(0, group.places, rows)
    rows = rows.view(group.count, group.longest, parts, heads, -1).permute(2, 0, 3, 1, 4)
    return rows.reshape(parts, group.count * heads, group.longest, -1)


def _write_back(flat: "Tensor", group: Group, values: "Tensor", heads: int) -> None:
    """The inverse of `_by_head`."""
    parts, _, longest, width = values.shape
    rows = values.view(parts, group.count, heads, longest, width).permute(1, 3, 0, 2, 4)
    into = flat[group.start : group.end]
    if group.places is None:
        into.view(group.count, longest, parts, heads, width).copy_(rows)
    else:
        rows = rows.reshape(group.count * longest, -1)
        into.copy_(rows.index_select(0, group.places))


@functools.cache
def _function() -> Any:  # a class of torch, which is imported late
    import torch

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, qkv, bias, groups, heads, dropout):
            out = qkv.new_empty(len(qkv), qkv.shape[1] // 3)
            needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
            saved = []
            for group in groups:
                query, key, value = inner = _by_head(qkv, group, 3, heads)
                scores = torch.bmm(query, key.transpose(1, 2))
                by_text = scores.view(group.count, heads, group.longest, group.longest)
                if bias is not None:
                    by_text += bias[:, : group.longest, : group.longest]
                if group.absent is not None:
                    by_text[..., group.shortest :].masked_fill_(group.absent, -torch.inf)
                probabilities = scores.softmax(-1)
                mask = keep_mask(probabilities, dropout) if dropout else None
                used = probabilities if mask is None else probabilities * mask
                _write_back(out, group, torch.bmm(used, value)[None], heads)
                if needed:
                    saved += [inner, probabilities, *(() if mask is None else (mask,))]
            ctx.save_for_backward(*saved)
            ctx.groups, ctx.heads, ctx.masked = groups, heads, bool(dropout)
            ctx.bias = None if bias is None else (bias.shape, bias.dtype)
            return out

        @staticmethod
        def backward(ctx, gradient):
            saved, heads = iter(ctx.saved_tensors), ctx.heads
            flat = gradient.new_empty(len(gradient), 3 * gradient.shape[1])
            bias = None
            if ctx.needs_input_grad[1]:
                bias = torch.zeros(ctx.bias[0], dtype=torch.float32, device=gradient.device)
            for group in ctx.groups:
                inner, probabilities = next(saved), next(saved)
                query, key, value = inner
                mask = next(saved) if ctx.masked else None
                [above] = _by_head(gradient, group, 1, heads)
                used = probabilities if mask is None else probabilities * mask
                result = torch.empty_like(inner)
                torch.bmm(used.transpose(1, 2), above, out=result[2])
                scores = torch.bmm(above, value.transpose(1, 2))
                if mask is not None:
                    scores *= mask
                scores = torch._softmax_backward_data(
                    scores, probabilities, -1, probabilities.dtype
                )
                torch.bmm(scores, key, out=result[0])
                torch.bmm(scores.transpose(1, 2), query, out=result[1])
                _write_back(flat, group, result, heads)
                if bias is not None:
                    by_text = scores.view(group.count, heads, group.longest, group.longest)
                    bias[:, : group.longest, : group.longest] += by_text.sum(0)
            return flat, None if bias is None else bias.to(ctx.bias[1]), None, None, None

    return Attention
