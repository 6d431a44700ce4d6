# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prompts of S2D: landmark-aware prompter and temporal adapter, side by side before a ViT layer.

From the paper "From Static to Dynamic" (arXiv 2312.05447). Shapes use the letters of
:mod:`s4d_mm.models`; M is B * T frames, and h is the hidden width of a prompter.
"""

from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, xavier_uniform_, zeros_

INIT_STD = 0.02


class SpatialFovea(nn.Module):
    """Attend to the positions of a frame that stand out, for each hidden channel.

    The scale of the softmax is learned. It begins at 10.
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(Tensor([10.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Weight each position.

        Args:
            x (Tensor): (M, N, h).

        Returns:
            Tensor: (M, N, h).
        """
        return x * (self.smooth * x).softmax(dim=1)


class LandmarkPrompter(nn.Module):
    """Mix the tokens of a frame with those of its landmarks (MCP).

    Args:
        embed_dims (int): C.
        hidden_dims (int): Width of the hidden layer.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.image_proj = nn.Linear(embed_dims, hidden_dims)
        self.landmark_proj = nn.Linear(embed_dims, hidden_dims)
        self.fovea = SpatialFovea()
        self.out_proj = nn.Linear(hidden_dims, embed_dims)

    def init_weights(self) -> None:
        """Initialise as the authors' code does: xavier-uniform weights, torch's own biases."""
        for layer in (self.image_proj, self.landmark_proj, self.out_proj):
            layer.reset_parameters()
            xavier_uniform_(layer.weight)

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """Make a prompt.

        Args:
            image (Tensor): Normalised patch tokens (M, N, C).
            landmarks (Tensor): Normalised landmark tokens, or the last prompt, (M, N, C).

        Returns:
            Tensor: (M, N, C).
        """
        return self.out_proj(self.fovea(self.image_proj(image)) + self.landmark_proj(landmarks))


class Adapter(nn.Module):
    """Bottleneck without a skip, with self-attention inside if ``num_heads`` is given.

    Args:
        embed_dims (int): C.
        hidden_dims (int): Width of the bottleneck.
        num_heads (int): Heads of the attention; 0 for none. Defaults to 0.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, num_heads: int = 0) -> None:
        super().__init__()
        self.down = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.attn = (
            MultiheadAttention(hidden_dims, num_heads, qkv_bias=False)
            if num_heads
            else nn.Identity()
        )
        self.up = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to tokens (B, N, C), among whose N the attention is."""
        return self.up(self.attn(self.act(self.down(x))))


class TemporalAdapter(nn.Module):
    """Relate the frames of a clip at each position, then adapt each token (TMA).

    Args:
        embed_dims (int): C.
        hidden_dims (int): Width of both bottlenecks.
        num_heads (int): Heads of the attention over frames.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, num_heads: int) -> None:
        super().__init__()
        self.t_adapter = Adapter(embed_dims, hidden_dims, num_heads)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)
        self.s_adapter = Adapter(embed_dims, hidden_dims)

    def init_weights(self) -> None:
        """Initialise as the authors' code does: all linear layers .02, zero biases."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                trunc_normal_(layer.weight, std=INIT_STD)
                if layer.bias is not None:
                    zeros_(layer.bias)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Adapt the tokens.

        Args:
            x (Tensor): Normalised patch tokens (M, N, C), the frames of a clip one after the other.
            num_frames (int): T.

        Returns:
            Tensor: (M, N, C), to be added.
        """
        tokens = x.shape[1]
        # B*T N C -> B*N T C
        x = x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)
        x = self.t_adapter(x)
        x = x.unflatten(0, (-1, tokens)).transpose(1, 2).flatten(0, 1)
        return self.s_adapter(self.norm(x))


class PromptBlock(nn.Module):
    """What stands before one ViT layer: prompter and temporal adapter on the same tokens.

    Args:
        embed_dims (int): C.
        prompt_dims (int): Hidden width of the prompter.
        adapter_dims (int): Hidden width of the temporal adapter.
        adapter_heads (int): Heads of its attention.
    """

    def __init__(
        self, embed_dims: int, prompt_dims: int, adapter_dims: int, adapter_heads: int
    ) -> None:
        super().__init__()
        self.prompter = LandmarkPrompter(embed_dims, prompt_dims)
        self.temporal = TemporalAdapter(embed_dims, adapter_dims, adapter_heads)

    def init_weights(self) -> None:
        """Initialise both parts."""
        self.prompter.init_weights()
        self.temporal.init_weights()

    def forward(self, image: Tensor, landmarks: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Compute what is added to the tokens.

        Args:
            image (Tensor): Normalised patch tokens (M, N, C).
            landmarks (Tensor): Normalised landmark tokens, or the last prompt, (M, N, C).
            num_frames (int): T; 0 for images, which are not adapted.

        Returns:
            tuple[Tensor]: The sum of prompt and adaptation, and the prompt, each (M, N, C).
        """
        prompt = self.prompter(image, landmarks)
        return (prompt + self.temporal(image, num_frames) if num_frames else prompt), prompt
