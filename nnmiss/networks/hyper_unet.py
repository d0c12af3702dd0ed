"""The plan's U-Net whose last layers are generated for each case from what is available and what it looks like."""
from __future__ import annotations

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import Tensor, nn

from nnmiss.errors import NnmissError, nearest_names
from nnmiss.networks.architecture import build_unet
from nnmiss.networks.early_fusion_unet import EarlyFusionUNet
from nnmiss.networks.prompts import PROMPTS

EMBEDDING = 256  # width of the modality embedding and of the MLP, as in CLIP-driven universal models
VARIATION = 0.1  # how much of the generated weights depends on the case at the start


class HyperUNet(EarlyFusionUNet):
    """All-stage's segmentation network: early fusion, and a hyper-network for the prediction (section 3.3, Eq. 6).

    Absent channels are zeros; `fuse` puts the modality code (B, M) beside the images, and the last layers follow it.
    The paper's group normalisation is the plan's normalisation here.

    Args:
        unet: the plan's U-Net with M input channels and K outputs.
        num_modalities: M.
        prompt: what tells the hyper-network the available modalities: "clip", a frozen table of text embeddings
            (`prompt_table`, zeros until filled), or "binary", the modality code through an MLP; "none" has no
            hyper-network (the paper's Fig. 5 compares the three).
        prompt_size: D, length of the table's embeddings; with 0, "clip" is "binary".
        channels: of the generated layers.

    Raises:
        NnmissError: unknown prompt.
    """

    def __init__(self, unet: nn.Module, num_modalities: int, prompt: str = "clip", prompt_size: int = 0,
                 channels: int = 8):
        super().__init__(unet, num_modalities)
        if prompt not in PROMPTS:
            raise NnmissError(f"prompt {prompt!r} is unknown. {nearest_names(prompt, PROMPTS)}")
        self.prompt = "binary" if prompt == "clip" and not prompt_size else prompt
        heads = self.decoder.seg_layers
        self.head, heads[-1] = heads[-1], nn.Identity()  # the decoder's first output is the finest feature map now
        if self.prompt == "clip":
            # row: the code as a number, modality 0 its lowest bit, minus 1
            self.register_buffer("prompt_table", torch.zeros(2**num_modalities - 1, prompt_size))
        if self.prompt != "none":
            described = [nn.Linear(prompt_size, EMBEDDING)] if self.prompt == "clip" else [
                nn.Linear(num_modalities, EMBEDDING), nn.LeakyReLU(), nn.Linear(EMBEDDING, EMBEDDING)]
            self.head = HyperHead(nn.Sequential(*described, nn.LeakyReLU()), self.encoder, self.head.out_channels, channels)

    def fuse(self, features, index, importance=None):
        return [*super().fuse(features, index, importance), index >= 0]  # (B, M, ...), (B, M)

    def decode(self, fused):
        return self.segment(*fused)[0]

    def segment(self, images: Tensor, code: Tensor) -> tuple[Tensor | list[Tensor], list[Tensor]]:
        """Logits and the features that are distilled.

        Args:
            images: (B, M, *spatial) float, absent channels 0.
            code: (B, M) bool, the modality code; need not be what `images` holds.

        Returns:
            The logits as `decode` returns them, and the encoder's feature maps (finest first) with the decoder's finest.
        """
        features = list(self.encoder(images))
        outputs = self.decoder(features)
        finest = outputs[0] if isinstance(outputs, list) else outputs
        logits = self.head(finest) if self.prompt == "none" else self.head(finest, features[-1], self.described(code))
        return [logits, *outputs[1:]] if isinstance(outputs, list) else logits, [*features, finest]

    def forward_complete(self, images: Tensor, return_features: bool = False):
        """Logits as the hyper-teacher gives them: modality code all ones, nothing blanked; see `segment`."""
        logits, features = self.segment(images, torch.ones(images.shape[:2], dtype=torch.bool, device=images.device))
        return (logits, features) if return_features else logits

    def described(self, code: Tensor) -> Tensor:
        """(B, M) bool -> (B, D) float32: the text embedding of these modalities, or the code itself."""
        if self.prompt == "binary":
            return code.float()
        place = 2 ** torch.arange(self.num_modalities, device=code.device)
        return self.prompt_table[(code * place).sum(1) - 1]

    def compute_conv_feature_map_size(self, input_size) -> int:
        """nnU-Net's proxy of activation memory (voxels times channels)."""
        head = 0 if self.prompt == "none" else self.head.channels_kept * torch.Size(input_size).numel()
        return super().compute_conv_feature_map_size(input_size) + head


class HyperHead(nn.Module):
    """Three 1x1x1 convolutions, their weights generated for each sample (Eq. 6).

    Args:
        describe: embeds what names the modalities: (B, D) -> (B, EMBEDDING), Z_m.
        encoder: the U-Net's, for its widths and kinds of layers.
        num_outputs: K.
        channels: width of the generated layers.
    """

    def __init__(self, describe: nn.Module, encoder: nn.Module, num_outputs: int, channels: int):
        super().__init__()
        width, deepest = encoder.output_channels[0], encoder.output_channels[-1]
        nonlinearity = encoder.nonlin(**{**(encoder.nonlin_kwargs or {}), "inplace": False}) if encoder.nonlin else \
            nn.LeakyReLU()
        norm = encoder.norm_op(width, **(encoder.norm_op_kwargs or {})) if encoder.norm_op else nn.Identity()
        self.narrow = nn.Sequential(norm, nonlinearity, encoder.conv_op(width, channels, 1))
        self.nonlinearity = nonlinearity
        self.shapes = [(channels, channels), (channels, channels), (num_outputs, channels)]  # (out, in) per layer
        self.channels_kept = width + 3 * channels + num_outputs
        self.describe = describe
        last = nn.Linear(EMBEDDING, sum(out * (into + 1) for out, into in self.shapes))
        self.generate = nn.Sequential(nn.Linear(EMBEDDING + deepest, EMBEDDING), nn.LeakyReLU(), last)
        self._start_as_ordinary_convolutions(last)

    @torch.no_grad()
    def _start_as_ordinary_convolutions(self, last: nn.Linear) -> None:
        """Its bias becomes freshly initialised convolutions, its weight small, so that samples start nearly alike."""
        parts = [part for out, into in self.shapes
                 for part in (nn.init.kaiming_normal_(torch.empty(out, into), a=0.01).flatten(), torch.zeros(out))]
        last.bias.copy_(torch.cat(parts))
        nn.init.normal_(last.weight, std=VARIATION / EMBEDDING**0.5)

    def forward(self, finest: Tensor, bottleneck: Tensor, description: Tensor) -> Tensor:
        """Logits (B, K, *spatial).

        Args:
            finest: (B, C, *spatial), the decoder's finest features.
            bottleneck: (B, C', *any), pooled to Z_e.
            description: (B, D), what `describe` takes.
        """
        x = self.narrow(finest).flatten(2)  # (B, channels, V)
        for position, (weight, bias) in enumerate(self.generated(bottleneck, description)):
            x = torch.baddbmm(bias[:, :, None], weight, self.nonlinearity(x) if position else x)
        return x.unflatten(2, finest.shape[2:])

    def generated(self, bottleneck: Tensor, description: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(weight (B, out, in), bias (B, out)) of each layer."""
        indicator = torch.cat([self.describe(description), bottleneck.flatten(2).mean(2)], 1)  # Z_m, Z_e
        sizes = [size for out, into in self.shapes for size in (out * into, out)]
        parts = self.generate(indicator).split(sizes, 1)
        return [(weight.unflatten(1, shape), bias)
                for weight, bias, shape in zip(parts[::2], parts[1::2], self.shapes)]


def build_hyper_unet(configuration: ConfigurationManager, num_modalities: int, num_outputs: int, deep_supervision: bool,
                     block: dict, prompt: str = "") -> HyperUNet:
    """The network of a plan's configuration, as its "nnmiss" block says; `prompt` if given instead of the block's."""
    unet = build_unet(configuration, num_modalities, num_outputs, deep_supervision)
    return HyperUNet(unet, num_modalities, prompt or block.get("prompt", "clip"), block.get("prompt_size", 0),
                     block.get("hyper_channels", 8))
