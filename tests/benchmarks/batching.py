"""Length-grouped batches beside shuffled ones: time of one epoch, and what the model has learned by it."""

from __future__ import annotations

from backends import compare

if __name__ == "__main__":
    names = ("length", "shuffle")
    compare(
        {name: [f"training.batching={name}", "data.eval_rows=800", "data.train_rows=3000"] for name in names},
        "objective",
    )
