"""Muon for matrices, AdamW for the rest.

Muon steps a matrix by its momentum with all singular values made equal (Jordan et al. 2024; Liu et al. 2025,
arXiv:2502.16982, eq. 2 to 4, whose factor 0.2 * sqrt(max(rows, columns)) makes a step as large as AdamW's, so
that learning rates are those of AdamW). It is made for the matrices inside a network: tables of embeddings,
convolutions, biases and scales of norms are stepped by AdamW.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pipeline.errors import SettingsError

TABLE = "is_table"  # key of a group of parameters that are tables, not matrices


class MuonAndAdamW(torch.optim.Optimizer):
    """Both as one optimizer.

    Args:
        params: groups with `params` and `lr`; those with `is_table` go to AdamW whole.
        weight_decay: of both.
        betas: of AdamW.
        momentum, nesterov, ns_steps, adjust_lr_fn: of Muon.

    Raises:
        SettingsError: this torch has no Muon.
    """

    def __init__(
        self,
        params: Sequence[Mapping[str, Any]],
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise SettingsError(
                f"muon needs torch 2.9, this is {torch.__version__}",
                hint="pip install -U torch, or --optimizer adamw",
            )
        super().__init__([dict(group) for group in params], {})
        of_muon: list[dict[str, Any]] = []
        of_adamw: list[dict[str, Any]] = []
        for group in self.param_groups:
            rest = {key: value for key, value in group.items() if key != "params"}
            is_matrix = [one.ndim == 2 and not group.get(TABLE, False) for one in group["params"]]
            for chosen, wanted in ((of_muon, True), (of_adamw, False)):
                ones = [
                    one for one, is_one in zip(group["params"], is_matrix, strict=True) if is_one == wanted
                ]
                if ones:
                    chosen.append({**rest, "params": ones})
        self._inner: dict[str, torch.optim.Optimizer] = {}
        if of_muon:
            self._inner["muon"] = torch.optim.Muon(
                of_muon,
                weight_decay=weight_decay,
                momentum=momentum,
                nesterov=nesterov,
                ns_steps=ns_steps,
                adjust_lr_fn=adjust_lr_fn,
            )
        if of_adamw:
            self._inner["adamw"] = torch.optim.AdamW(of_adamw, weight_decay=weight_decay, betas=betas)
        self._share_groups()

    def _share_groups(self) -> None:
        """The groups are those of the two: a learning rate that is set here is set there."""
        self.param_groups = [group for one in self._inner.values() for group in one.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both."""
        assert closure is None
        for one in self._inner.values():
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {name: one.state_dict() for name, one in self._inner.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both back."""
        for name, one in self._inner.items():
            one.load_state_dict(state_dict[name])
        self._share_groups()
