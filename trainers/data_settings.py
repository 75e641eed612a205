"""Settings of what is trained on: which pictures, in which sizes, with which captions."""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.layouts.buckets import Bucket, buckets
from pipeline.settings import option
from trainers.caption_settings import CaptionSettings
from trainers.caption_variants import suffixes_of, tag_classes

CAPTION_LENGTHS = (75, 150, 225)  # tokens: one, two or three windows of CLIP


@dataclass(frozen=True, kw_only=True)
class DataSettings(CaptionSettings):
    """How a data set is read; what its own files say (cond_dropout.txt, a dataset TOML) counts before."""

    layout: Literal["auto", "everydream", "kohya"] = option(
        "auto", "Whose tree it is; auto tells by its folders and small files."
    )
    resolution_px: int = option(
        512, "Buckets have about the area of a square of this side.", min=64, max=4096, metavar="PX"
    )
    buckets: bool = option(
        True,
        "Sort pictures by aspect ratio into batches of several sizes; --no-buckets cuts squares of "
        "--resolution-px out of all.",
    )
    bucket_step_px: int = option(
        64,
        "Sides of buckets are multiples of this.",
        min=8,
        max=256,
        metavar="PX",
        only_if={"buckets": (True,)},
    )
    crop: Literal["face", "centre"] = option(
        "face",
        "What stays of a picture that is longer than its bucket: faces where boxes are known, or the middle.",
    )
    flip_p: float = option(0.0, "Chance of a picture to be shown mirrored.", min=0, max=1)
    max_tokens: int = option(75, "Longest caption in tokens: 75, 150 or 225.", min=75, max=225)
    conditional_dropout: float = option(
        0.0, "Chance of a caption to be left out, so that the model learns guidance.", min=0, max=1
    )
    caption_extension: str = option(
        "",
        "Suffix of caption files in kohya's folders; left out, .txt is taken, then .caption.",
        metavar=".EXT",
    )
    captions_from_names: bool = option(
        True,
        "EveryDream trees: a picture without caption file gets its name up to the first _ as its caption.",
    )
    shuffle: bool = option(False, "Shuffle the parts of a caption at every visit.")
    keep_tokens: int = option(
        0,
        "Parts of a caption that stay in front; in EveryDream trees always at least the first.",
        min=0,
        max=1000,
    )
    keep_tokens_separator: str = option(
        "",
        "Sign in captions, such as |||, that parts before it stay in front; after a second one, at the end.",
    )
    caption_separator: str = option(",", "What stands between the parts of captions in the files.")
    secondary_separator: str = option(
        "", "Sign such as ;;; between parts that move as one; becomes the separator."
    )
    tag_dropout: float = option(
        0.0, "Chance of each part that does not stay in front to be left out.", min=0, max=1
    )
    caption_prefix: str = option("", "Text before every caption, joined by a space.")
    caption_suffix: str = option("", "Text after every caption, joined by a space.")
    wildcards: bool = option(
        False, "Draw one of {a|b}, and one of several lines of a caption, at every visit."
    )

    def check(self) -> None:
        """See that the values go together.

        Raises:
            SettingsError: they do not.
        """
        if self.max_tokens not in CAPTION_LENGTHS:
            raise SettingsError(f"max_tokens must be 75, 150 or 225, found {self.max_tokens}")
        if not self.caption_separator.strip():
            raise SettingsError("caption_separator must hold a sign", hint='write ","')
        if self.caption_extension and not self.caption_extension.startswith("."):
            hint = f"write .{self.caption_extension}"
            raise SettingsError(
                f'caption_extension "{self.caption_extension}" must begin with a dot', hint=hint
            )
        tag_classes(self.tag_class_dropout)
        if suffixes_of(self.caption_variant) and self.caption_extension:
            raise SettingsError(
                "caption_extension and caption_variant both say which files hold captions",
                hint="give one of them",
            )
        self.sizes()

    def sizes(self) -> tuple[Bucket, ...]:
        """The buckets; the one square without buckets.

        Raises:
            SettingsError: the resolution is below two steps.
        """
        if not self.buckets:
            return (Bucket(self.resolution_px, self.resolution_px),)
        try:
            return buckets(self.resolution_px, step_px=self.bucket_step_px)
        except ValueError as error:
            raise SettingsError(
                f"resolution_px is {self.resolution_px}: {error}",
                hint="raise it, take smaller bucket_step_px, or buckets = false",
            ) from error
