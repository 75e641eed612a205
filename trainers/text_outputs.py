"""What the text encoder says of a batch's captions: with gradients while it learns, else remembered.

A frozen encoder is asked once for each caption, and for one at a time: so what is remembered is a function of
the caption alone, and a resumed run, whose memory is empty, goes on with the same bits. Where captions are
shuffled or thinned they are new on every visit; then each batch is asked whole and nothing is remembered.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from trainers.batches import Batch
from trainers.conditioning import encode
from trainers.models import Models
from trainers.train_settings import Settings

MOST_BYTES = 1 << 30


class TextOutputs:
    """Hidden states of captions, [batch, tokens, width], on the device.

    Args:
        is_learning: gradients go through the text encoder, to itself or to embeddings.
        captions_vary: captions are drawn anew on each visit.
    """

    def __init__(
        self,
        models: Models,
        settings: Settings,
        device: torch.device,
        *,
        is_learning: bool,
        captions_vary: bool,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._text_encoder = models.text_encoder
        self._clip_skip = settings.clip_skip
        self._device = device
        self._is_learning = is_learning
        self._captions_vary = captions_vary
        self._remembers = not is_learning and not captions_vary
        self._most_bytes = most_bytes
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, batch: Batch) -> Tensor:
        """Hidden states of a batch."""
        known = self.known(batch)
        if known is not None:
            return known
        with torch.set_grad_enabled(self._is_learning and torch.is_grad_enabled()):
            return self._encode(batch.token_ids)

    def known(self, batch: Batch) -> Tensor | None:
        """Hidden states of a batch whose captions are remembered; None where they are not."""
        if not self._remembers:
            return None
        return torch.cat([self._one(batch, number) for number in range(len(batch.captions))])

    def freeze(self) -> None:
        """The text encoder, and the embeddings it reads, learn no more."""
        self._is_learning, self._remembers = False, not self._captions_vary

    @property
    def num_known(self) -> int:
        """Captions remembered."""
        return len(self._known)

    def _encode(self, token_ids: Tensor) -> Tensor:
        token_ids = token_ids.to(self._device, non_blocking=True)
        return encode(self._text_encoder, token_ids, clip_skip=self._clip_skip)

    def _one(self, batch: Batch, number: int) -> Tensor:
        caption = batch.captions[number]
        found = self._known.get(caption)
        if found is None:
            with torch.no_grad():
                found = self._encode(batch.token_ids[number : number + 1])
            self._known[caption] = found
            self._bytes += found.numel() * found.element_size()
            while self._bytes > self._most_bytes and len(self._known) > 1:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= oldest.numel() * oldest.element_size()
        else:
            self._known.move_to_end(caption)
        return found
