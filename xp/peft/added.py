"""An adapter that is added to a model and trained: what all methods of peft share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from xp.adapter import Several
from xp.adapter.several import check_names, check_there
from xp.peft import known
from xp.peft.base import Peft, Purpose, check_base
from xp.peft.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Added(Peft):
    """A new adapter, on the model alone or on top of adapters that there are."""

    modules_to_save: list[str]
    """Layers to train and save in full beside it; a new head is one of them anyway."""

    options: dict[str, Any]
    """Further fields of the method's configuration class in peft."""

    adapters: dict[str, str]
    """Adapters under the new one, each by a name of your own: ``{law: runs/<run>/model}``. They take part and stay as
    they are, and are saved along with it."""

    @property
    @abstractmethod
    def method(self) -> Method:
        """The method of peft, with its options."""

    @property
    def several(self) -> Several | None:
        """The adapters under the new one."""
        return Several(self.adapters, tuple(self.adapters)) if self.adapters else None

    def _check_under(self, kind: str) -> None:
        """Refuse names that no adapter can have, and methods of which there is but one on a model.

        Raises:
            ValueError: such a name or method.
        """
        check_names(self.adapters)
        if self.adapters and (why := known.alone(kind, self.options)):
            raise ValueError(f"adapters: {why}; use command=merge on them first, and train on what it saves")

    def check_files(self) -> None:
        """The adapters' folders; what MLflow has is asked for later."""
        check_there(self.adapters)

    def check_use(self, command: str, model: str, merged: list[str]) -> None:
        """A new adapter is for a training, and those under it need their base."""
        super().check_use(command, model, merged)
        if not self.adapters:
            return
        check_base(model)
        if command not in ("train", "show"):
            raise ValueError(
                f"peft.adapters: peft={self.name} trains a new one on top of them, command={command} trains nothing; "
                "use peft=none"
            )

    def check(self, purpose: Purpose) -> None:
        """Have peft check the options."""
        self.method.check(purpose)

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose) -> None:
        """Tell which layers it will be on."""
        self.method.plan(skeleton, purpose, self.several)

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """A ``peft.PeftModel`` around the network; an adapter that ``model.path`` came with is trained further."""
        return self.method.apply(network, purpose, self.several)
