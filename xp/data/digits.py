"""Handwritten digits that come with scikit-learn: real images, with no network and no download."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from xp.data.base import Data

if TYPE_CHECKING:
    from datasets import Dataset


class Digits(Data, name="digits"):
    """1,797 digits of 8 by 8 pixels in 17 greys (Alpaydin and Kaynak, 1998); the last fifth is for evaluation."""

    def read(self, train: bool) -> tuple[Dataset | None, Dataset | None, str]:
        """Rows of ``image``, as PNG, and ``label``, in scikit-learn's order."""
        import numpy as np
        import sklearn
        from datasets import ClassLabel, Dataset, Features, Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
        rows = [
            {"image": {"bytes": _png(image), "path": f"{number:04d}.png"}, "label": int(label)}
            for number, (image, label) in enumerate(zip(pixels, digits.target, strict=True))
        ]
        names = [str(name) for name in digits.target_names]
        features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
        held_out = len(rows) // 5
        train_rows, eval_rows = (
            Dataset.from_list(side, features=features) for side in (rows[:-held_out], rows[-held_out:])
        )
        return train_rows, eval_rows, f"digits of scikit-learn {sklearn.__version__}"


def _png(pixels: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
