"""Settings of single blocks: ranks, alphas and learning rates."""

from dataclasses import dataclass

from pipeline.settings import option

_ADAPTERS = ("lora", "locon", "loha")
_GRAMMAR = "VALUES"


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What differs from block to block, all in one grammar: docs/train.md tells it."""

    block_dims: str = option(
        "",
        'Ranks by block, such as "IN04-IN08=8, M00=16"; other blocks keep linear_dim, 0 leaves one out.',
        metavar=_GRAMMAR,
        only_if={"kind": _ADAPTERS},
    )
    block_alphas: str = option(
        "", "Alphas by block; other blocks keep linear_alpha.", metavar=_GRAMMAR, only_if={"kind": _ADAPTERS}
    )
    block_conv_dims: str = option(
        "",
        "Ranks of larger convolutions by block; other blocks keep conv_dim.",
        metavar=_GRAMMAR,
        only_if={"kind": _ADAPTERS},
    )
    block_conv_alphas: str = option(
        "",
        "Alphas of larger convolutions by block; other blocks keep conv_alpha.",
        metavar=_GRAMMAR,
        only_if={"kind": _ADAPTERS},
    )
    block_learning_rates: str = option(
        "",
        'Learning rates by block, over that of its part: "IN=0.5, BASE=0"; other blocks keep 1.',
        metavar=_GRAMMAR,
    )

    @property
    def has_blocks(self) -> bool:
        """Whether anything differs from block to block."""
        texts = (self.block_dims, self.block_alphas, self.block_conv_dims, self.block_conv_alphas)
        return any((*texts, self.block_learning_rates))
