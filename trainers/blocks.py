"""Blocks of a Stable Diffusion 1.x model by the names of A1111's block weights, and values for them.

BASE is the text encoder, IN00 to IN11 the down side of the UNet, M00 its middle, OUT00 to OUT11 its up side:
the numbers of `input_blocks` and `output_blocks` of the original code, as kohya's scripts and A1111 count.
IN00 is `conv_in`, and takes the time embedding with it; OUT11 takes what comes behind the last block.

One grammar says values for blocks:

    IN04-IN08=0.5, M00=1, OUT=0.25, BASE=0      names, ranges and sides; a later one wins
    IN=0,0,0,0,1,1,1,1,1,0,0,0; M00=1           as many values as there are blocks: kohya's 12 of a side
    26 numbers                                  BASE, IN00 ..., M00, OUT00 ...: A1111's for LoCon and LoHa
    17 numbers                                  BASE and the blocks with attention: A1111's for LoRA
    25 numbers                                  without BASE: kohya's block_dims
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import SettingsError
from pipeline.settings import nearest

BASE = "BASE"
MIDDLE = "M00"
_DOWN = re.compile(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)")
_UP = re.compile(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one model.

    Args:
        names: in the order of A1111's 26.
        with_attention: in the order of its 17.
    """

    names: tuple[str, ...]
    with_attention: tuple[str, ...]
    _per_level: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Blocks":
        """Read them off the configuration of a UNet2DConditionModel."""
        layers = config["layers_per_block"]
        count = int(layers if isinstance(layers, int) else layers[0])
        downs, ups = config["down_block_types"], config["up_block_types"]
        per_level, total = count + 1, len(downs) * (count + 1)
        names = [BASE, *(f"IN{number:02d}" for number in range(total)), MIDDLE]
        names += [f"OUT{number:02d}" for number in range(total)]
        attentive = [BASE]
        for level, kind in enumerate(downs):
            numbers = range(1 + level * per_level, 1 + level * per_level + count)
            attentive += [f"IN{number:02d}" for number in numbers if "CrossAttn" in kind]
        attentive.append(MIDDLE)
        for level, kind in enumerate(ups):
            numbers = range(level * per_level, (level + 1) * per_level)
            attentive += [f"OUT{number:02d}" for number in numbers if "CrossAttn" in kind]
        return cls(tuple(names), tuple(attentive), per_level)

    def of_path(self, path: str) -> str:
        """The block of a UNet's layer or parameter, by its canonical path."""
        down = _DOWN.match(path)
        if down:
            level, kind, place = int(down[1]), down[2], int(down[3])
            place = self._per_level - 1 if kind == "downsamplers" else place
            return f"IN{1 + level * self._per_level + place:02d}"
        up = _UP.match(path)
        if up:
            level, kind, place = int(up[1]), up[2], int(up[3])
            place = self._per_level - 1 if kind == "upsamplers" else place
            return f"OUT{level * self._per_level + place:02d}"
        if path.startswith("mid_block."):
            return MIDDLE
        return self.names[-1] if path.startswith(("conv_out", "conv_norm_out")) else "IN00"

    def parse(self, text: str, what: str) -> dict[str, float]:
        """Values by block, of those that the text names.

        Args:
            what: name of the setting, for messages.

        Raises:
            SettingsError: not in the grammar, or a block that this model does not have.
        """
        if not text.strip():
            return {}
        if "=" not in text:
            return self._listed(text, what)
        rules: list[tuple[str, list[str]]] = []
        for part in re.split("[,;]", text):
            if "=" in part:
                blocks, _, value = part.partition("=")
                rules.append((blocks.strip(), [value]))
            elif part.strip() and rules:
                rules[-1][1].append(part)
        found: dict[str, float] = {}
        for given, texts in rules:
            named, values = self._named(given, what), _numbers(",".join(texts), what)
            if len(values) not in (1, len(named)):
                raise SettingsError(
                    f"{what} has {len(values)} values for the {len(named)} blocks {given}",
                    hint="give one value, or one for each block",
                )
            found.update(zip(named, values * (len(named) if len(values) == 1 else 1), strict=True))
        return found

    def _listed(self, text: str, what: str) -> dict[str, float]:
        values = _numbers(text, what)
        of_length = {len(one): one for one in (self.names[1:], self.with_attention, self.names)}
        if len(values) not in of_length:
            known = ", ".join(str(length) for length in sorted(of_length))
            raise SettingsError(
                f"{what} has {len(values)} values; lists have {known}, as blocks are counted",
                hint='or name the blocks: "IN04-IN08=0.5, M00=1"',
            )
        return dict(zip(of_length[len(values)], values, strict=True))

    def _named(self, text: str, what: str) -> tuple[str, ...]:
        first, _, last = (part.strip().upper() for part in text.partition("-"))
        if first in ("IN", "OUT") and not last:
            return tuple(name for name in self.names if name.startswith(first))
        ends = []
        for name in (first, last or first):
            if name not in self.names:
                near = nearest(name, [one.lower() for one in self.names])
                raise SettingsError(
                    f'{what} names a block "{name}" that this model does not have',
                    hint=f'did you mean "{near.upper()}"?' if near else f"known: {', '.join(self.names)}",
                )
            ends.append(self.names.index(name))
        if ends[0] > ends[1]:
            raise SettingsError(f"{what} has the range {text.strip()} backwards", hint=f"{last}-{first}")
        return self.names[ends[0] : ends[1] + 1]


def _numbers(text: str, what: str) -> tuple[float, ...]:
    try:
        values = tuple(float(one) for one in text.replace(";", ",").split(",") if one.strip())
    except ValueError as error:
        raise SettingsError(
            f'{what} must be numbers with commas between, found "{text.strip()}"',
            hint='or blocks and values: "IN04-IN08=0.5, M00=1"',
        ) from error
    if any(one < 0 for one in values):
        raise SettingsError(f"{what} must be 0 or more, found {min(values):g}", hint="mend that value")
    return values


def kohya_list(values: Mapping[str, float], names: Sequence[str], default: float) -> str:
    """Values of blocks as kohya's scripts list them."""
    return ",".join(f"{values.get(name, default):g}" for name in names)
