"""Settings of captions that change from visit to visit: classes of tags that fall away, several captions."""

from dataclasses import dataclass

from pipeline.settings import option


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """Classes of tags, and captions by files or lines."""

    tag_class_dropout: tuple[str, ...] = option(
        (),
        'Chance of a class of tags to be left out together, such as "0.3=*hair, bangs" or "0.2=@clothes.txt" '
        "(a tag a line); repeat it for more classes.",
        metavar="CHANCE=TAGS",
    )
    caption_variant: tuple[str, ...] = option(
        (),
        "Suffix of caption files of which one is drawn at every visit, with its weight; repeat it for each.",
        metavar=".EXT[=WEIGHT]",
    )
    caption_lines: bool = option(
        False, "Each line of a caption file is a caption of its own, drawn at every visit; 3::text weighs 3."
    )
