# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S2D (arXiv 2312.05447): an image ViT with landmark prompts and temporal adapters, and its head.

Shapes use the letters of :mod:`s4d_mm.models`; M is B * T frames, and h is the hidden width of a
prompter.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.models.recognizers import Recognizer3D
from mmengine.dist import all_gather, get_world_size
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, xavier_uniform_, zeros_

from .joint import SampleList
from .mix import ViewsI3DHead
from .state_dict import check_part, check_shapes, take_authors_names

INIT_STD = 0.02
LEAST_WEIGHT = 1e-6  # of an anchor when negative cosines are clipped


class SpatialFovea(nn.Module):
    """Weight each position of (M, N, h) by a softmax over N, whose scale is learned from 10 on."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(Tensor([10.0]))

    def forward(self, x: Tensor) -> Tensor:
        """(M, N, h) -> (M, N, h)."""
        return x * (self.smooth * x).softmax(dim=1)


class LandmarkPrompter(nn.Module):
    """Mix the tokens of a frame with those of its landmarks (MCP)."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.image_proj = nn.Linear(embed_dims, hidden_dims)
        self.landmark_proj = nn.Linear(embed_dims, hidden_dims)
        self.fovea = SpatialFovea()
        self.out_proj = nn.Linear(hidden_dims, embed_dims)

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """Prompt (M, N, C) of normalised patch tokens and landmark tokens or the last prompt."""
        return self.out_proj(self.fovea(self.image_proj(image)) + self.landmark_proj(landmarks))


class Adapter(nn.Module):
    """Bottleneck without a skip, with self-attention over N inside if ``num_heads`` is given."""

    def __init__(self, embed_dims: int, hidden_dims: int, num_heads: int = 0) -> None:
        super().__init__()
        self.down = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.attn = nn.Identity()
        if num_heads:
            self.attn = MultiheadAttention(hidden_dims, num_heads, qkv_bias=False)
        self.up = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.up(self.attn(self.act(self.down(x))))


class TemporalAdapter(nn.Module):
    """Relate the frames of a clip at each position, then adapt each token (TMA)."""

    def __init__(self, embed_dims: int, hidden_dims: int, num_heads: int) -> None:
        super().__init__()
        self.t_adapter = Adapter(embed_dims, hidden_dims, num_heads)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)
        self.s_adapter = Adapter(embed_dims, hidden_dims)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """Adaptation (M, N, C) of normalised patch tokens, the frames of a clip in a row."""
        tokens = x.shape[1]
        # B*T N C -> B*N T C
        x = x.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(0, 1)
        x = self.t_adapter(x)
        x = x.unflatten(0, (-1, tokens)).transpose(1, 2).flatten(0, 1)
        return self.s_adapter(self.norm(x))


@MODELS.register_module()
class S2DViT(VisionTransformer):
    """Frozen image ViT with trained prompts and temporal adapters (S2D, arXiv 2312.05447).

    Attention is within a frame; the temporal adapters relate the frames. The patch embedding, the
    class token, the positions and the layers are frozen, and so is the landmark network.

    An image, or a clip of one frame, passes without the temporal modules (as in the authors' model
    for images), unless ``num_frames`` is 1.

    Args:
        arch (str | dict): As in mmpretrain's ``VisionTransformer``.
        img_size (int): Height and width of frames in pixels.
        patch_size (int): Side of a patch in pixels.
        num_frames (int): Frames of a clip.
        landmark (dict, optional): Config of the landmark network, with ``checkpoint``, its trained
            weights. Its map must have the grid of the patches. Defaults to None, which means
            ``dict(type='LandmarkMobileFaceNet')``; then a checkpoint of the whole model must
            bring its weights.
        prompt_dims (int): Hidden width of the prompters.
        adapter_ratio (float): Hidden width of the adapters over C, above 0.
        adapter_heads (int): Heads of the attention over frames.
        freeze_prompts (bool): Freeze landmark embedding, prompters and norms too, so that only
            the adapters, the temporal embedding and the last norm are trained (the authors'
            ``--fix_lgp``).
        out_type (str): 'cls_token', (B, C, T, 1, 1), as mmaction2's ``I3DHead`` takes, or
            'raw', the tokens of all frames with their class tokens, (B, T * (1 + h*w), C).
        qkv_bias (bool): Bias of queries, keys and values in the layers.
        norm_eps (float): Epsilon of the LayerNorms.
        init_cfg (dict, optional): mmengine initialisation config.
    """

    OUT_TYPES = {'cls_token', 'raw'}

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int = 224,
        patch_size: int = 16,
        num_frames: int = 16,
        landmark: dict | None = None,
        prompt_dims: int = 8,
        adapter_ratio: float = 0.25,
        adapter_heads: int = 8,
        freeze_prompts: bool = False,
        out_type: str = 'cls_token',
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            arch,
            img_size,
            patch_size,
            qkv_bias=qkv_bias,
            norm_cfg=dict(type='LN', eps=norm_eps),
            out_type=out_type,
            init_cfg=init_cfg,
        )
        adapter_dims = int(self.embed_dims * adapter_ratio)
        self.num_frames = num_frames
        self.freeze_prompts = freeze_prompts
        self.landmark = MODELS.build(landmark or dict(type='LandmarkMobileFaceNet'))
        if tuple(self.patch_resolution) != (self.landmark.grid,) * 2:
            rows, columns = self.patch_resolution
            raise ValueError(
                f'S2DViT has {rows} x {columns} patches (img_size={img_size}, '
                f'patch_size={patch_size}), but the map of its landmark network is '
                f'{self.landmark.grid} x {self.landmark.grid}. Set landmark.input_size='
                f'{8 * rows}, or another img_size or patch_size.'
            )
        self.landmark_embed = nn.Linear(self.landmark.out_channels, self.embed_dims)
        self.prompt_blocks = nn.ModuleList()  # each precedes a layer of the ViT
        for _ in range(self.num_layers):
            prompter = LandmarkPrompter(self.embed_dims, prompt_dims)
            temporal = TemporalAdapter(self.embed_dims, adapter_dims, adapter_heads)
            self.prompt_blocks.append(nn.ModuleDict(dict(prompter=prompter, temporal=temporal)))
        # block 0 and block 1 share the first, so that the last block has none of its own
        self.prompt_norms = nn.ModuleList(
            nn.LayerNorm(self.embed_dims, eps=norm_eps) for _ in range(max(self.num_layers - 1, 1))
        )
        self.temporal_embedding = nn.Parameter(torch.zeros(1, num_frames, self.embed_dims))
        for hook in (take_authors_names, check_shapes, check_part):
            self.register_load_state_dict_pre_hook(hook)
        self._freeze()

    def init_weights(self) -> None:
        """Initialise as the authors' code does, then by ``init_cfg`` if given.

        Prompters have xavier-uniform weights and torch's own biases, adapters a deviation of .02
        and zero biases. The frozen layers are of no use until a checkpoint brings their weights.
        """
        super().init_weights()
        self.landmark.init_weights()
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            return
        for name, layer in self.prompt_blocks.named_modules():
            if isinstance(layer, nn.Linear) and '.prompter.' in name:
                layer.reset_parameters()
                xavier_uniform_(layer.weight)
            elif isinstance(layer, nn.Linear):
                trunc_normal_(layer.weight, std=INIT_STD)
                if layer.bias is not None:
                    zeros_(layer.bias)
        self.landmark_embed.reset_parameters()
        trunc_normal_(self.temporal_embedding, std=INIT_STD)
        trunc_normal_(self.cls_token, std=INIT_STD)

    def train(self, mode: bool = True) -> 'S2DViT':
        """Set the mode; what is frozen stays in evaluation."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        self.cls_token.requires_grad_(False)
        self.pos_embed.requires_grad_(False)
        frozen = [self.patch_embed, self.layers]
        if self.freeze_prompts:
            frozen += [self.landmark_embed, self.prompt_norms]
            for block in self.prompt_blocks:
                frozen += [block.prompter, block.temporal.norm]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) or clips (B, 3, T, H, W), by ``out_type``.

        T is ``num_frames`` or 1.
        """
        if x.ndim == 4:
            x = x[:, :, None]
        frames = x.shape[2]
        if tuple(x.shape[3:]) != self.img_size or frames not in (1, self.num_frames):
            raise ValueError(
                f'S2DViT has img_size={self.img_size[0]} and num_frames={self.num_frames}, but got '
                f'the shape {tuple(x.shape)}. Resize in the pipelines and sample as many frames '
                '(clip_len), or images; or set them in model.backbone.'
            )
        is_clip = frames == self.num_frames
        x = x.transpose(1, 2).flatten(0, 1)  # B 3 T H W -> M 3 H W
        with torch.no_grad():
            tokens = self.patch_embed(x)[0]
            landmarks = self.landmark(x)
        prompt = self.landmark_embed(landmarks.flatten(2).transpose(1, 2))
        cls_token = self.cls_token.expand(len(tokens), -1, -1)
        for i, (block, layer) in enumerate(zip(self.prompt_blocks, self.layers)):
            image = self.prompt_norms[max(i - 1, 0)](tokens)
            # prompts have the first norm in every block
            prompt = block.prompter(image, self.prompt_norms[0](prompt))
            added = prompt + block.temporal(image, frames) if is_clip else prompt
            x = torch.cat((cls_token, tokens + added), dim=1)
            if i == 0:
                x = x + self.pos_embed
                if is_clip:
                    x = x.unflatten(0, (-1, frames)) + self.temporal_embedding[:, :, None]
                    x = x.flatten(0, 1)
            x = layer(x)
            cls_token, tokens = x[:, :1], x[:, 1:]
        if self.out_type == 'raw':
            out = self.ln1(x).unflatten(0, (-1, frames)).flatten(1, 2)  # B T*(1+N) C
        else:
            out = self.ln1(cls_token[:, 0]).unflatten(0, (-1, frames))  # B T C
            out = out.transpose(1, 2)[..., None, None]  # B C T 1 1
        if self.training and not is_clip:
            # zero, so that distributed training finds a gradient for every parameter
            unused = (p for name, p in self.named_parameters() if 'temporal' in name)
            out = out + 0.0 * sum(p.sum() for p in unused if p.requires_grad)
        return out


class EmotionAnchors(nn.Module):
    """For each class, ``size`` anchors: the features and probabilities of its last samples.

    They are buffers, so that a checkpoint keeps them. They begin uniform in 0..1. A soft target
    uses the ``top_k`` most similar anchors of every class; with ``clip_negative``, anchors of a
    negative cosine count for next to nothing.
    """

    def __init__(
        self, num_classes: int, dims: int, size: int, top_k: int, clip_negative: bool
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.clip_negative = clip_negative
        self.register_buffer('features', torch.rand(num_classes, size, dims))
        self.register_buffer('probs', torch.rand(num_classes, size, num_classes))

    @torch.no_grad()
    def soft_targets(self, x: Tensor) -> Tensor:
        """Mean probabilities (B, classes) of the anchors that are similar to features (B, dims)."""
        cosine = torch.einsum(
            'bd,csd->bcs', F.normalize(x.float(), dim=-1), F.normalize(self.features, dim=-1)
        )
        weights, index = cosine.topk(self.top_k, dim=2)
        if self.clip_negative:
            weights = weights.clamp(min=LEAST_WEIGHT)
        classes = torch.arange(len(self.probs), device=x.device)[None, :, None]
        total = torch.einsum('bck,bckp->bp', weights, self.probs[classes, index])
        return total / weights.sum(dim=(1, 2))[:, None]

    @torch.no_grad()
    def update(self, x: Tensor, probs: Tensor, labels: Tensor) -> None:
        """Put samples into the banks of their classes, in order; the oldest anchors leave.

        Features (B, dims), probabilities (B, classes), class ids (B, ), -1 for a sample that is
        left out.
        """
        labels = labels.tolist()
        for label in {*labels} - {-1}:
            found = [i for i, other in enumerate(labels) if other == label]
            for bank, new in ((self.features, x), (self.probs, probs)):
                bank[label] = torch.cat((bank[label], new[found].to(bank)))[-bank.shape[1] :]


@MODELS.register_module()
class EmotionAnchorHead(ViewsI3DHead):
    """``I3DHead`` with a second loss, whose soft targets come from emotion anchors (S2D).

    For each class two banks hold the features and the probabilities of its last samples. A sample's
    soft target is the average of the probabilities of the ``top_k`` most similar anchors of every
    class, weighted by cosine. The loss is the binary cross entropy of the scores with it
    (arXiv 2312.05447, section on emotion-anchors-based self-distillation).

    The authors' code deviates from the paper, and this head from the code:

    - The code stores and compares features after dropout (``after_dropout=True``).
    - The code counts anchors of a negative cosine (``clip_negative=False``), so that the weights of
      a target may sum to about 0, or below it.
    - The code has banks for each process (``sync=False``); here all store the samples of all.
    - The code stores samples after the optimizer's step, by a second run of the model, and blended
      ones under their own label; here they are stored before it, and blended ones are not.
    - As published, FERV39k's recipe stores nothing (``update_interval=100`` of 100 epochs), so that
      its targets are those of random anchors.

    Epochs are those of ``EpochBasedTrainLoop``, from 0.

    Args:
        num_classes (int): Classes.
        in_channels (int): C.
        anchors_per_class (int): Samples in the bank of a class.
        top_k (int): Anchors of a class that a target uses.
        loss_weights (Sequence[tuple[int, float]]): Epoch from which on the second loss has a
            weight, and the weight, in order; before the first one it is 0. Defaults to the
            authors'.
        start_epoch (int): First epoch whose samples are stored.
        update_interval (int): Samples are stored in epochs that are a multiple of it.
        clip_negative (bool): See above.
        after_dropout (bool): See above.
        sync (bool): See above. Processes must have batches of one size.
        **kwargs: As ``I3DHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors_per_class: int = 16,
        top_k: int = 2,
        loss_weights: Sequence[tuple[int, float]] = ((30, 0.01), (50, 0.1), (60, 0.5), (80, 1.0)),
        start_epoch: int = 21,
        update_interval: int = 1,
        clip_negative: bool = True,
        after_dropout: bool = False,
        sync: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.loss_weights = tuple(loss_weights)
        self.start_epoch = start_epoch
        self.update_interval = update_interval
        self.after_dropout = after_dropout
        self.sync = sync
        self.anchors = EmotionAnchors(
            num_classes, in_channels, anchors_per_class, top_k, clip_negative
        )

    def loss(self, feats: Tensor, data_samples: SampleList, **kwargs) -> dict[str, Tensor]:
        """Losses of feature maps (B, C, T, H, W): that of ``I3DHead``, and ``loss_anchors``."""
        pooled = feats.mean(dim=(2, 3, 4)) if self.avg_pool is not None else feats.flatten(1)
        dropped = pooled if self.dropout is None else self.dropout(pooled)
        scores = self.fc_cls(dropped)
        losses = self.loss_by_feat(scores, data_samples)
        epoch = MessageHub.get_current_instance().get_info('epoch', 0)
        features = (dropped if self.after_dropout else pooled).detach()
        weight = self.weight_of(epoch)
        if weight > 0:
            targets = self.anchors.soft_targets(features)
            loss = F.binary_cross_entropy_with_logits(scores.float(), targets)
            losses['loss_anchors'] = weight * loss
        if self.training and epoch >= self.start_epoch and epoch % self.update_interval == 0:
            self._store(features, scores.detach(), data_samples)
        return losses

    def weight_of(self, epoch: int) -> float:
        """Weight of the second loss in an epoch."""
        return next((w for start, w in reversed(self.loss_weights) if epoch >= start), 0.0)

    def _store(self, features: Tensor, scores: Tensor, data_samples: SampleList) -> None:
        labels = torch.stack([sample.gt_label for sample in data_samples])
        if labels.shape[1] > 1:  # soft ones; -1 for one of several classes
            share, ids = labels.max(dim=1, keepdim=True)
            labels = torch.where(share == 1, ids, -1)
        probs = scores.float().softmax(dim=1)
        rows = torch.cat((features.float(), probs, labels.to(features)), dim=1)
        if self.sync and get_world_size() > 1:
            # process r has every r-th sample of the batch of all
            rows = torch.stack(all_gather(rows), dim=1).flatten(0, 1)
        features, probs, labels = rows.split((self.in_channels, self.num_classes, 1), dim=1)
        self.anchors.update(features, probs, labels.squeeze(1).long())


@MODELS.register_module()
class S2DRecognizer(Recognizer3D):
    """``Recognizer3D`` with :class:`S2DViT`. Files of the authors' code load as they are."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(take_authors_names)
