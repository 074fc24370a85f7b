"""State space duality (SSD): one operation in three forms, and an optional kernel, that give the same numbers.

Per head k with group g = k // (h / G), a_t = A_k * dt_t and X~_t = dt_t * X_t:

    y_t = sum_{s<=t} exp(a_{s+1} + ... + a_t) * (C_t . B_s) * X~_s + D_k * X~_t

The skip term multiplies the scaled X~, unlike Mamba-2's own kernels, which take X. Decays are always float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import logging

from .kernels_mmm4rec import chunk_scan

logger = logging.get_logger(__name__)

FORMS = ("quadratic", "chunked", "recurrent", "mamba_ssm")
# These can keep several histories in one row apart.
PACKING_FORMS = ("quadratic", "mamba_ssm")

# Up to this length the quadratic form's [L, L] weights cost less than the chunked form's bookkeeping.
_QUADRATIC_MAX_LENGTH = 128


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    implementation: str = "auto",
    chunk_size: int = 64,
    sequence: Tensor | None = None,
) -> Tensor:
    """
    The state space operation.

    Args:
        x (`torch.Tensor` of shape `(b, l, h, p)`): Inputs X.
        dt (`torch.Tensor` of shape `(b, l, h)`): Positive step sizes delta, float32.
        A (`torch.Tensor` of shape `(h,)`): Negative decay rates, float32.
        B (`torch.Tensor` of shape `(b, l, g, n)`): Input maps, one a group of heads.
        C (`torch.Tensor` of shape `(b, l, g, n)`): Output maps.
        D (`torch.Tensor` of shape `(h,)`): Weights of the skip connection, float32.
        implementation (`str`, *optional*, defaults to `"auto"`): See [`ssd_form`].
        chunk_size (`int`, *optional*, defaults to 64): Positions of a chunk.
        sequence (`torch.LongTensor` of shape `(b, l)`, *optional*):
            For rows that hold several sequences, each without a gap: a number from 0 on that positions of one sequence
            share. Only forms of `PACKING_FORMS` can keep them apart.

    Returns:
        `torch.Tensor` of shape `(b, l, h, p)`: y, in x's dtype.
    """
    form = ssd_form(implementation, x.shape[1], x.device)
    if form == "quadratic":
        return _quadratic(x, dt, A, B, C, D, sequence)
    scaled = x * dt.unsqueeze(-1).to(x.dtype)
    if form == "mamba_ssm":
        y = _kernel(x, dt, A, B, C, chunk_size, sequence)
    elif sequence is not None:
        raise ValueError(f"rows of several sequences need ssd_implementation='quadratic', got {implementation!r}")
    else:
        y = _chunked(scaled, dt * A, B, C, chunk_size) if form == "chunked" else _recurrent(scaled, dt * A, B, C)
    return (y + D.unsqueeze(-1) * scaled).to(x.dtype)


def ssd_form(implementation: str, length: int, device: torch.device) -> str:
    """
    Which form computes sequences of `length` positions on `device`.

    Args:
        implementation (`str`):
            `"quadratic"` (memory O(l^2)), `"chunked"` (O(l * chunk_size)), `"recurrent"` (a loop over l, the
            definition), `"mamba_ssm"` (the kernel of that package, on CUDA), or `"auto"`: the kernel where there is
            one, otherwise quadratic for short sequences and chunked for long ones.
        length (`int`): Positions.
        device (`torch.device`): Where the tensors are.

    Returns:
        `str`: One of `FORMS`. Without the kernel `"mamba_ssm"` is what `"auto"` is.

    Raises:
        ValueError: For another implementation.
    """
    if implementation in ("auto", "mamba_ssm"):
        if chunk_scan(device) is not None:
            return "mamba_ssm"
        if implementation == "mamba_ssm" and device.type != "cuda" and not torch.compiler.is_compiling():
            logger.warning_once(
                f"ssd_implementation='mamba_ssm' needs CUDA, not {device.type}; torch computes the same"
            )
        return "quadratic" if length <= _QUADRATIC_MAX_LENGTH else "chunked"
    if implementation not in FORMS:
        raise ValueError(f"ssd_implementation must be 'auto' or one of {', '.join(FORMS)}, got {implementation!r}")
    return implementation


def _segment_sum(log_decay: Tensor) -> Tensor:
    """[..., l] -> [..., l, l]: sum of a_{s+1..t} at [t, s], 0 above the diagonal."""
    length = log_decay.shape[-1]
    until = torch.ones(length, length, dtype=log_decay.dtype, device=log_decay.device).tril()
    # Summed from s + 1 on: the difference of two running sums would lose the digits that they share.
    with torch.autocast(log_decay.device.type, enabled=False):
        return (log_decay.unsqueeze(-2) * until) @ until.tril(-1)


def _decay(log_decay: Tensor) -> Tensor:
    """[..., l] -> [..., l, l]: exp(a_{s+1} + ... + a_t) at [t, s], 0 above the diagonal."""
    return _segment_sum(log_decay).exp().tril()


def _quadratic(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, sequence: Tensor | None) -> Tensor:
    heads_per_group = x.shape[2] // B.shape[2]
    dt = dt.transpose(1, 2)  # [b, h, l]
    weights = _decay(dt * A.unsqueeze(-1))
    if sequence is not None:
        weights = weights * (sequence.unsqueeze(2) == sequence.unsqueeze(1)).unsqueeze(1)
    weights = weights * dt.unsqueeze(-2)
    scores = torch.einsum("blgn,bsgn->bgls", C, B)  # [b, g, l, l]
    weights = weights * scores.repeat_interleave(heads_per_group, dim=1)
    # Steps and skip connection are applied to these weights, which are smaller than x.
    weights = weights + torch.diag_embed(D.unsqueeze(-1) * dt)
    return torch.einsum("bhls,bshp->blhp", weights.to(x.dtype), x)


def _kernel(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, sequence: Tensor | None
) -> Tensor:
    scan = chunk_scan(x.device)
    assert scan is not None  # ssd_form has looked
    # Its own skip connection would take X, not the scaled X~. Chunks are powers of 2 of at least 16 positions.
    return scan(
        x,
        dt,
        A,
        B.to(x.dtype),
        C.to(x.dtype),
        max(16, 1 << (chunk_size - 1).bit_length()),
        D=None,
        seq_idx=None if sequence is None else sequence.to(torch.int32),
    )


def _chunked(scaled: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk_size: int) -> Tensor:
    b, length, h, p = scaled.shape
    g, n = B.shape[2:]
    chunk_size = min(chunk_size, length)
    # Positions added at the end hold zeros: no input and no decay.
    pad = -length % chunk_size
    scaled, B, C = (F.pad(t, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, chunk_size)) for t in (scaled, B, C))
    log_decay = F.pad(log_decay, (0, 0, 0, pad)).unflatten(1, (-1, chunk_size)).permute(0, 3, 1, 2)  # [b, h, c, q]
    B, C = (t.repeat_interleave(h // g, dim=3) for t in (B, C))  # [b, c, q, h, n]
    dtype = scaled.dtype

    # Inside the chunks: the quadratic form.
    decay = _decay(log_decay)  # [b, h, c, q, q]
    weights = torch.einsum("bcqhn,bcshn->bhcqs", C, B) * decay
    y_inside = torch.einsum("bhcqs,bcshp->bcqhp", weights.to(dtype), scaled)

    # Between them: what each chunk leaves behind, carried on to the chunks after it.
    cumulative = log_decay.cumsum(-1)  # [b, h, c, q]
    to_end = (cumulative[..., -1:] - cumulative).exp().permute(0, 2, 3, 1).unsqueeze(-1)  # [b, c, q, h, 1]
    states = torch.einsum("bcqhn,bcqhp->bchpn", (B * to_end).float(), scaled.float())
    # carried[c, z] decays what chunk z left until chunk c begins; a chunk gives itself nothing.
    carried = _decay(F.pad(cumulative[..., -1], (1, 0)))[..., :-1, 1:]  # [b, h, c, c]
    states = torch.einsum("bhcz,bzhpn->bchpn", carried, states)
    from_start = cumulative.exp().permute(0, 2, 3, 1).unsqueeze(-1)  # [b, c, q, h, 1]
    y_between = torch.einsum("bcqhn,bchpn->bcqhp", C.float() * from_start, states)
    return (y_inside + y_between).flatten(1, 2)[:, :length]


def _recurrent(scaled: Tensor, log_decay: Tensor, B: Tensor, C: Tensor) -> Tensor:
    h, g = scaled.shape[2], B.shape[2]
    B, C = (t.repeat_interleave(h // g, dim=2).float() for t in (B, C))  # [b, l, h, n]
    decay = log_decay.exp()
    state = scaled.new_zeros(scaled.shape[0], h, scaled.shape[3], B.shape[3], dtype=torch.float32)
    outputs = []
    for t in range(scaled.shape[1]):
        state = decay[:, t, :, None, None] * state + scaled[:, t, :, :, None].float() * B[:, t, :, None, :]
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t]))
    return torch.stack(outputs, dim=1)


__all__ = ["PACKING_FORMS", "ssd", "ssd_form"]
