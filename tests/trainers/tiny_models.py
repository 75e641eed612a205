"""Stable Diffusion 1.x in small: the real classes with few channels, random weights.

As a script: `python -m tests.trainers.tiny_models FOLDER` writes FOLDER/tiny (diffusers) and
FOLDER/tiny.safetensors (single file). Nothing is as in SD1.5: 14 tokens a text, 4 pixels a latent, two heads.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pipeline.clip_tokens import BEGIN, END, byte_pair_tokenizer
from trainers.conditioning import Tokenizer
from trainers.models import Diffusion, Models, ModelSource, save_diffusers, save_single_file

LATENT_FACTOR = 4  # pixels of a picture for each of a latent


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


def tiny_vae(seed: int = 0) -> AutoencoderKL:
    """Three levels: a latent is 4 pixels wide."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.25,
    )


def tiny_tokenizer() -> Tokenizer:
    """Letters, three signs, and the words `girl` and `cat`; 64 tokens with the marks."""
    letters = [chr(ord("a") + number) for number in range(26)]
    merges = [("g", "i"), ("gi", "r"), ("gir", "l</w>"), ("c", "a"), ("ca", "t</w>")]
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *(f"{sign}</w>" for sign in ",.-12"),
        *(first + second for first, second in merges),
        BEGIN,
        END,
    ]
    inner = byte_pair_tokenizer({word: number for number, word in enumerate(words)}, merges)
    return Tokenizer(inner, max_text_tokens=16, begin=62, end=63, pad=63)


def tiny_models(seed: int = 0) -> Models:
    """A whole model, with a schedule of 100 steps."""
    return Models(
        family="sd1",
        unet=tiny_unet(seed).eval(),
        text_encoder=tiny_text_encoder(seed + 1).eval(),
        vae=tiny_vae(seed + 2).eval(),
        tokenizer=tiny_tokenizer(),
        diffusion=Diffusion(num_train_timesteps=100, beta_start=0.001, beta_end=0.02),
        source=ModelSource(given="tiny", name="tiny", sha256="0" * 64, vae_sha256="1" * 64),
    )


def write_tiny_models(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write the model as a diffusers folder and as a single file; returns both paths."""
    models = tiny_models(seed)
    save_diffusers(models, folder / "tiny", torch.float32, {})
    save_single_file(models, folder / "tiny.safetensors", torch.float32, {})
    return folder / "tiny", folder / "tiny.safetensors"


if __name__ == "__main__":
    write_tiny_models(Path(sys.argv[1]))
