"""Drafting: the small model that proposes words for a larger one to accept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from xp.error import UserError
from xp.model import Wish, placement
from xp.run import Run

if TYPE_CHECKING:
    import torch

    from xp.generation.drafts import Draft


def load_draft(run: Run, wish: Wish, device: torch.device) -> Draft | None:
    """The model that ``generation.assistant_model`` names, loaded as the run's own model is; None where none drafts.

    Raises:
        UserError: there is no such model.
    """
    path = getattr(run.generation, "assistant_model", None)
    if path is None:
        return None
    from xp.generation.drafts import Draft

    try:
        of_its_own = {"path": path, "base": None, "revision": None, "config": {}, "processor": {}}
        of_its_own |= {"device_map": None, "max_memory": None, "offload_folder": None}  # It is small, and other names.
        loaded = run.model.model_copy(update=of_its_own).load(replace(wish, adapters=None))
    except UserError as error:
        said, given, _ = str(error).partition("; give model.base=")
        merged = "; use command=merge on it where its base is, and give what that saves" if given else ""
        raise UserError(f"{said}{merged}".replace("model.path=", "generation.assistant_model=", 1)) from error
    return Draft(
        placement.place(loaded.network, device).eval(), getattr(loaded.processor, "tokenizer", loaded.processor)
    )
