"""Cut the merges that CLIP uses out of OpenAI's vocabulary file: pipeline/clip_merges.txt.gz.

    python tools/make_clip_merges.py bpe_simple_vocab_16e6.txt.gz

The file holds 262,144 merges, of which CLIP's vocabulary of 49,408 tokens is made of the first 48,894
(openai/CLIP: clip/simple_tokenizer.py). The same input gives the same bytes.
"""

import gzip
import hashlib
import sys
from pathlib import Path

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
NUM_MERGES = 49_152 - 256 - 2
OUTPUT = Path(__file__).parents[1] / "pipeline" / "clip_merges.txt.gz"


def main() -> None:
    """Check the source, cut it, write it."""
    data = Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        sys.exit(f"{sys.argv[1]} is not OpenAI's file: its sha256 is not {SHA256}")
    lines = gzip.decompress(data).decode("utf-8").split("\n")[1 : NUM_MERGES + 1]
    text = "".join(f"{line}\n" for line in lines)
    OUTPUT.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))


if __name__ == "__main__":
    main()
