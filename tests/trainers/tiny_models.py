"""Stable Diffusion 1.x in small: the real classes with few channels, random weights."""

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def tiny_unet(seed: int = 0, channels: tuple[int, ...] = (16, 32, 32)) -> UNet2DConditionModel:
    """Three levels, of which the outermost has no attention."""
    torch.manual_seed(seed)
    down = ["DownBlock2D", *["CrossAttnDownBlock2D"] * (len(channels) - 1)]
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=["CrossAttnUpBlock2D"] * (len(channels) - 1) + ["UpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def tiny_text_encoder(seed: int = 0) -> CLIPTextModel:
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=16,
            projection_dim=16,
            bos_token_id=62,
            eos_token_id=63,
            pad_token_id=63,
        )
    )
