"""What turns inputs into tensors: read from where a model is, or made for a model of one's own choosing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xp.error import UserError, nearest
from xp.model.foreign import check_templates

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def load_processor(kind: str, path: str, wanted: dict[str, Any], **source: Any) -> Any:
    """The processor that is saved in ``path``, with some of its options set anew.

    Args:
        kind: which of transformers' Auto classes it is.
        path: a folder or a repository of the hub.
        wanted: options to set.
        source: revision and trust of a repository.

    Raises:
        UserError: there is no such option.
    """
    import transformers

    processor = saved_processor(kind, path, **source)
    check_templates(processor, path)
    if not wanted:
        return processor
    check_options(processor, wanted)
    if hasattr(processor, "from_dict"):
        return type(processor).from_dict(processor.to_dict() | wanted)
    return getattr(transformers, kind).from_pretrained(path, **source, **wanted)


def saved_processor(kind: str, path: str, **source: Any) -> Any:
    """The processor that is saved in ``path``, as it is.

    Images are resized by Pillow even where torchvision is installed: the two differ in the last bits of a pixel,
    and a model must not depend on what else a machine has. torchvision does it for the few that have no other.

    Args:
        kind: which of transformers' Auto classes it is.
        path: a folder or a repository of the hub.
        source: revision and trust of a repository.
    """
    import transformers

    if kind == "AutoImageProcessor":
        return transformers.AutoImageProcessor.from_pretrained(path, backend="pil", **source)
    processor = getattr(transformers, kind).from_pretrained(path, **source)
    if kind == "AutoProcessor" and getattr(processor, "image_processor", None) is not None:
        # Not by `backend` in the call above: the tokenizer would take it, too, as its own.
        processor.image_processor = saved_processor("AutoImageProcessor", path, **source)
    return processor


def new_processor(kind: str, config: PretrainedConfig, wanted: dict[str, Any]) -> Any:
    """The image processor or feature extractor of an architecture, fit to a model's config.

    Args:
        kind: AutoImageProcessor or AutoFeatureExtractor.
        config: of the model; its ``image_size`` is what images are made to be, its bins and frames those of a sound.
        wanted: options to set.

    Raises:
        UserError: the architecture has none of this kind, or no such option.
    """
    made = _image_processor(config) if kind == "AutoImageProcessor" else _feature_extractor(config)
    if made is None:
        raise UserError(
            f"model.type={config.model_type}: transformers has no {kind.removeprefix('Auto')} for it; take another type"
        )
    check_options(made, wanted)
    return type(made).from_dict(made.to_dict() | wanted)


def _image_processor(config: PretrainedConfig) -> Any:
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    name = IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type, {}).get("pil")
    if name is None:
        return None
    made = getattr(transformers, name)()
    size = getattr(config, "image_size", None)
    if size is None or made.size is None:
        return made
    height, width = (size, size) if isinstance(size, int) else size
    whole = {"height": height, "width": width}
    options: dict[str, Any] = {"size": {"shortest_edge": min(height, width)} if made.size.shortest_edge else whole}
    if made.crop_size is not None:
        options["crop_size"] = whole
    return type(made)(**options)


def _feature_extractor(config: PretrainedConfig) -> Any:
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type)
    if name is None:
        return None
    if config.model_type == "wav2vec2-bert":  # transformers 5.23 names one that gives waves; the model takes features.
        name = "SeamlessM4TFeatureExtractor"
    options: dict[str, Any] = {}
    if name == "ASTFeatureExtractor":
        options = {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
    if name == "WhisperFeatureExtractor":  # Two frames of 10 ms become one position.
        options = {"feature_size": config.num_mel_bins, "chunk_length": config.max_source_positions // 50}
    if name == "Wav2Vec2FeatureExtractor":
        # A group norm sees the padding whatever a mask says, so such models have always been trained without one.
        options = {"return_attention_mask": getattr(config, "feat_extract_norm", "group") == "layer"}
    return getattr(transformers, name)(**options)


def check_options(processor: Any, wanted: dict[str, Any]) -> None:
    """Refuse options that a processor does not have.

    Raises:
        UserError: one of ``wanted`` is not among its options (says the nearest).
    """
    if hasattr(processor, "to_dict"):
        known = {*processor.to_dict(), *getattr(getattr(processor, "valid_kwargs", None), "__annotations__", ())}
    else:
        known = {"padding_side", "truncation_side", "model_max_length", *getattr(processor, "init_kwargs", ())}
    for key in wanted:
        if key not in known:
            raise UserError(
                f"model.processor.{key}: a {type(processor).__name__} has no such option.{nearest(key, known)}"
            )
