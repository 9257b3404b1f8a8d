"""Arguments: what ``from_pretrained`` is told of quantization and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.model import placement, quantization, stored
from xp.model.architecture import on_meta
from xp.model.base import Wish, loading

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from xp.model.pretrained import Pretrained


def placed(model: Pretrained, auto: Any, config: PretrainedConfig, wish: Wish) -> dict[str, Any]:
    """The arguments by which a network is quantized, and its parts are put where they are to be.

    Args:
        model: the settings.
        auto: the Auto class that loads it.
        config: of the network.
        wish: what it is for.

    Raises:
        UserError: what is stored is quantized in another way, or is to be trained in full.
    """
    there = stored.method(config)
    stored.check(model.path, there, model.quantization, model.quantization_options, wish.in_full)
    placing: dict[str, Any] = {"device_map": {"": wish.device}} if there or model.quantization else {}
    if model.device_map is None and (there or not model.quantization):
        return placing
    with loading(model.path, auto.__name__, model.revision):
        network = on_meta(auto, config, model.trust_remote_code)
    if model.device_map is not None:
        placing = placement.arguments(network, model.device_map, model.max_memory, model.offload_folder)
    if model.quantization and not there:
        whole = quantization.kept_whole(network, wish.kept, model.quantization_options)
        placing["quantization_config"] = quantization.bits_and_bytes(
            model.quantization, model.quantization_options, wish.computes_in, whole
        )
    return placing
