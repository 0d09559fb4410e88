"""A plain Llama Transformer for training on the processor, and the optimizer Muon.

It guarantees: parameter names, shapes and the rotary convention are those of Hugging
Face's `LlamaForCausalLM` (without the prefix `model.`), with tied embeddings.

It does not know: caches, padding to the left, texts longer than its context.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    mlp: int = 640
    context: int = 512
    theta: float = 10000.0
    eps: float = 1e-5


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout of whole channels of a row: one mask for all positions costs next to nothing."""
    if not training or share == 0:
        return x  # [b, t, d]
    keep = torch.rand(x.shape[0], 1, x.shape[2]) >= share  # [b, 1, d]
    return x * (keep / (1 - share)).to(x.dtype)  # [b, t, d]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in the half-rotation convention: channel i turns with channel i + hd/2."""
    first, second = x.chunk(2, dim=-1)  # [b, h, t, hd/2] each
    return x * cos + torch.cat((-second, first), dim=-1) * sin  # [b, h, t, hd]


class Attention(nn.Module):
    """Causal attention whose keys and values are shared by groups of heads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor) -> Tensor:
        b, t, _ = x.shape
        s = self.shape
        q = self.q_proj(x).view(b, t, s.heads, s.head_dim).transpose(1, 2)  # [b, h, t, hd]
        k = self.k_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)  # [b, kv, t, hd]
        v = self.v_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)  # [b, kv, t, hd]
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)  # [b, h, t, hd]
        # Written out: in bfloat16 on the processor this took less than half the time of the fused kernel.
        scores = (q * s.head_dim**-0.5) @ k.transpose(-1, -2) + hidden  # [b, h, t, t]
        mixed = scores.softmax(dim=-1, dtype=v.dtype) @ v  # [b, h, t, hd]
        return self.o_proj(mixed.transpose(1, 2).reshape(b, t, -1))  # [b, t, d]


class Gated(nn.Module):
    """The SwiGLU feed-forward network."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.silu(self.gate_proj(x)) * self.up_proj(x)  # [b, t, mlp]
        return self.down_proj(wide)  # [b, t, d]


class Block(nn.Module):
    """A decoder layer."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.mlp = Gated(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, hidden: Tensor) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), cos, sin, hidden)  # [b, t, d]
        x = x + drop(mixed, self.dropout, self.training)  # [b, t, d]
        wide = self.mlp(self.post_attention_layernorm(x))  # [b, t, d]
        return x + drop(wide, self.dropout, self.training)  # [b, t, d]


class Llama(nn.Module):
    """The decoder: token ids to the logits of the next token."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        steps = torch.arange(0, shape.head_dim, 2) / shape.head_dim  # [hd/2]
        angles = torch.outer(torch.arange(shape.context), shape.theta**-steps)  # [context, hd/2]
        angles = torch.cat((angles, angles), dim=-1)  # [context, hd]
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                depth = math.sqrt(2 * shape.layers) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                nn.init.normal_(weight, std=0.02 / depth)

    def forward(self, ids: Tensor) -> Tensor:
        t = ids.shape[1]
        x = drop(self.embed_tokens(ids), self.dropout, self.training)  # [b, t, d]
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
        hidden = torch.full((t, t), -math.inf, dtype=dtype).triu(1)  # [t, t]
        for layer in self.layers:
            x = layer(x, self.cos[:t], self.sin[:t], hidden)  # [b, t, d]
        return functional.linear(self.norm(x), self.embed_tokens.weight)  # [b, t, vocab]


def orthogonal(update: Tensor) -> Tensor:
    """Nearly the closest semi-orthogonal matrix, by five Newton-Schulz steps."""
    x = update.bfloat16()  # [n, m]
    x = x.T if (tall := x.shape[0] > x.shape[1]) else x  # [small, large]
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T  # [small, small]
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x  # [small, large]
    return (x.T if tall else x).float()  # [n, m]


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made orthogonal, scaled to the size of Adam's."""

    def __init__(self, weights: list[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                speed = self.state[weight].setdefault("speed", torch.zeros_like(weight))  # [n, m]
                speed.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(speed, group["momentum"]))  # [n, m]
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * math.sqrt(max(weight.shape)) * group["lr"])


def optimizers(model: Llama, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the embedding and the norms."""
    matrices = [w for name, w in model.named_parameters() if w.ndim == 2 and "embed" not in name]
    norms = [w for w in model.parameters() if w.ndim == 1]
    adam = [{"params": [model.embed_tokens.weight]}, {"params": norms, "weight_decay": 0.0}]
    return [
        Muon(matrices, lr, weight_decay),
        torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay),
    ]
