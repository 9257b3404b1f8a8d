"""transformers' Trainer, fed with the job's own batches, optimizer, schedule, loss, evaluation and log."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from xp.backend.base import Backend
from xp.training.gradients import gradients

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xp.training.job import Job


class HuggingFace(Backend, name="hf"):
    """Train with ``transformers.Trainer``: its loop, its clipping, its processes; the job decides what it sees."""

    def fit(self, job: Job) -> None:
        """Do the job in a Trainer; neither its own logging, evaluation, saving nor seeding takes part."""
        from transformers import TrainingArguments
        from transformers.trainer_callback import PrinterCallback

        arguments = TrainingArguments(
            output_dir=job.folder,
            max_steps=job.total_steps - job.step,  # Where it goes on is the job's own business.
            max_grad_norm=job.recipe.max_grad_norm or 0.0,
            seed=job.seed,
            use_cpu=job.device.type == "cpu",
            use_cache=getattr(job.network.config, "use_cache", False),
            logging_strategy="no",
            eval_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            # A loss that is not finite must reach the job, which stops, and not be replaced by an average.
            logging_nan_inf_filter=False,
            ddp_find_unused_parameters=False,
        )

        arguments._n_gpu = min(1, arguments.n_gpu)  # One device a process; Trainer would take all with DataParallel.
        trainer = _trainer_class()(job, model=job.network, args=arguments, optimizers=(job.optimizer, job.schedule))
        trainer.remove_callback(PrinterCallback)
        trainer.train()


class _Accumulating:
    """Gradients by way of the Trainer's own accelerator."""

    def __init__(self, accelerator: Any, network: nn.Module) -> None:
        self.accelerator, self.network = accelerator, network

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Hold gradients back until the last micro-batch."""
        held: AbstractContextManager[Any] = self.accelerator.no_sync(self.network)
        return nullcontext() if last else held

    def backward(self, loss: Tensor) -> None:
        """accelerate's backward."""
        self.accelerator.backward(loss)

    def forget(self) -> None:
        """No gradients any more."""
        self.network.zero_grad()


def _trainer_class() -> Any:
    """The Trainer with its four seams taken by the job; made on demand because importing Trainer takes seconds."""
    import torch
    from torch.utils.data import IterableDataset
    from transformers import Trainer

    class JobTrainer(Trainer):  # type: ignore[misc]
        """A Trainer whose every "batch" is a whole `xp.training.job.Step`."""

        def __init__(self, job: Job, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.job = job
            self.now: tuple[Any, torch.Tensor] | None = None

        def get_train_dataloader(self) -> Any:
            """The job's steps."""
            return _Steps(self.job)

        def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
            """One step; its items are counted by the job already."""
            assert num_batches == 1
            return [next(epoch_iterator)], None

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            """Backward of each micro-batch; only the last one exchanges gradients between processes."""
            self.now = gradients(self.job, inputs, _Accumulating(self.accelerator, model))
            return self.now[1]

        def floating_point_ops(self, inputs: Any) -> int:
            """Not counted."""
            return 0

        def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
            if self.now is None:  # Called once more at the end of the epoch.
                return
            (step, losses), self.now = self.now, None
            self.job.finish(step, losses, grad_norm, kwargs["learning_rate"])
            self.control.should_training_stop = self.job.done

    class _Steps(IterableDataset[Any]):
        """The job's steps, as a data loader that knows its length."""

        def __init__(self, job: Job) -> None:
            self.job = job
            self.batch_size = job.recipe.batch_size
            self.dataset = job.feed.rows

        def __len__(self) -> int:
            return self.job.total_steps - self.job.step

        def __iter__(self) -> Any:
            return self.job.steps()

    return JobTrainer
