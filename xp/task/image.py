"""Tasks on images and videos that can only predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from xp.hardware import home
from xp.task.prediction import Function
from xp.task.task import Task

Share = Annotated[float, Field(ge=0, le=1)]


class ImageFeatureExtraction(Task, name="image_feature_extraction"):
    """The network's last hidden states, or one vector for the whole image."""

    pipeline: ClassVar[str] = "image-feature-extraction"
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "a vector for each patch (1, patches, width), or one (1, width), as a .npy file"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    spare: ClassVar[tuple[str, ...]] = ("pooler",)

    pool: bool
    """Whether to give the pooler's one vector for the whole image."""

    def arguments(self, row: dict[str, Any]) -> dict[str, Any]:
        """A tensor, not a million numbers in lists."""
        return {"return_tensors": True, "pool": self.pool}


class ImageSegmentation(Task, name="image_segmentation"):
    """Masks of what is where in an image."""

    pipeline: ClassVar[str] = "image-segmentation"
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "labels with their masks, as .png files"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    batches: ClassVar[bool] = False

    subtask: Literal["panoptic", "instance", "semantic"] | None
    """What is told apart: classes (semantic), things (instance), or both; null: the most that the model can do."""

    threshold: Share
    """Least probability of a segment."""

    mask_threshold: Share
    """Least value of a pixel that belongs to a segment."""

    overlap_mask_area_threshold: Share
    """Share of a segment that must be left once the others are taken off, for it to count."""


class ObjectDetection(Task, name="object_detection"):
    """Boxes around what is in an image."""

    pipeline: ClassVar[str] = "object-detection"
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "labels with their boxes in pixels and their scores"
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    threshold: Share
    """Least score of a box."""


class DepthEstimation(Task, name="depth_estimation"):
    """How far away each pixel is."""

    pipeline: ClassVar[str] = "depth-estimation"
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "the depth of each pixel as a .npy file, and as a .png to look at"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    batches: ClassVar[bool] = False
    bf16: ClassVar[bool] = False


class MaskGeneration(Task, name="mask_generation"):
    """Masks of all that stands out in an image, without labels (Kirillov et al., 2023)."""

    pipeline: ClassVar[str] = "mask-generation"
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "masks, as .png files, with their scores"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    batches: ClassVar[bool] = False

    points_per_batch: PositiveInt
    """Points that are tried at once; more is faster and takes more memory."""

    points_per_crop: PositiveInt
    """Points along each side of the grid that is laid over the image."""

    crops_n_layers: NonNegativeInt
    """How many times the image is looked at in smaller crops, too."""

    crop_overlap_ratio: Share
    """Share of the image's size that crops have in common."""

    crop_n_points_downscale_factor: PositiveInt
    """By what each layer of crops has fewer points."""

    pred_iou_thresh: Share
    """Least quality of a mask, as the model itself sees it."""

    stability_score_thresh: Share
    """Least part of a mask that stays the same when its threshold moves."""

    stability_score_offset: NonNegativeFloat
    """How far the threshold moves for that."""

    mask_threshold: float
    """Value from which on a pixel belongs to a mask."""

    crops_nms_thresh: Share
    """Of masks that overlap by more than this, one is kept."""

    output_rle_mask: bool
    """Whether to give masks as run lengths, too."""

    output_bboxes_mask: bool
    """Whether to give the masks' boxes, too."""


class KeypointMatching(Task, name="keypoint_matching"):
    """The same points in two images."""

    pipeline: ClassVar[str] = "keypoint-matching"
    takes: ClassVar[str] = "an image and an other_image"
    gives: ClassVar[str] = "pairs of points with their scores"
    inputs: ClassVar[tuple[str, ...]] = ("image", "other_image")
    batches: ClassVar[bool] = False

    threshold: Share
    """Least score of a pair."""

    def entry(self, row: dict[str, Any]) -> Any:
        """The pair."""
        return [row["image"], row["other_image"]]


class VideoClassification(Task, name="video_classification"):
    """Classes of what happens in a video."""

    pipeline: ClassVar[str] = "video-classification"
    takes: ClassVar[str] = "a video"
    gives: ClassVar[str] = "labels with their probabilities"
    inputs: ClassVar[tuple[str, ...]] = ("video",)

    top_k: PositiveInt
    """How many classes are given, the likeliest first."""

    num_frames: PositiveInt | None
    """How many frames the model sees; null: as many as its config says."""

    frame_sampling_rate: PositiveInt
    """Take one frame out of so many."""

    function_to_apply: Function | None
    """What turns the network's numbers into scores; null: what its config says it was trained with."""


class ImageToImage(Task, name="image_to_image"):
    """Another image made from an image, for example a sharper and larger one; transformers 5 has no pipeline for it."""

    auto_class: ClassVar[str] = "AutoModelForImageToImage"
    parts: ClassVar[tuple[str, ...]] = ("image_processor",)
    takes: ClassVar[str] = "an image"
    gives: ClassVar[str] = "an image, as a .png file"
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    even: ClassVar[bool] = True

    crop: bool
    """Whether to cut off the margin that is made from what the image processor has added to the input."""

    def answer(self, inputs: Sequence[dict[str, Any]], network: Any, processor: Any, generation: Any) -> list[Any]:
        """The network's ``reconstruction`` of each image, between 0 and 1, as a picture."""
        from PIL import Image

        images = [row["image"] for row in inputs]
        pixels = processor.image_processor(images=images, return_tensors="pt").to(home(network), network.dtype)
        made = network(**pixels).reconstruction.float().clamp(0, 1).mul(255).round().byte().cpu().numpy()
        scale = getattr(network.config, "upscale", 1)
        pictures = []
        for image, channels in zip(images, made, strict=True):
            kept = channels[:, : image.height * scale, : image.width * scale] if self.crop else channels
            pictures.append(Image.fromarray(kept.transpose(1, 2, 0)))
        return pictures
