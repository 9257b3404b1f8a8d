"""No new adapter: every weight is trained, or one of the adapters that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from xp.adapter import Merge, Several, merged
from xp.adapter.several import check_names, check_there
from xp.error import nearest
from xp.peft.base import Peft, Purpose, check_base, trained_in_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoPeft(Peft, name="none"):
    """Train every weight, or one of the adapters that there are."""

    adapters: dict[str, str]
    """Adapters on top of the model, each by a name of your own: ``{law: runs/<run>/model, verse: mlflow:<run id>}``."""

    active: str | list[str] | None
    """Those of them that take part: a name, or several, which add up; ``[]`` is none. null: the first, or the one that
    is trained."""

    trained: str | None
    """The one that command=train trains; the others, and the model, stay as they are."""

    @model_validator(mode="after")
    def _known(self) -> NoPeft:
        check_names(self.adapters)
        for setting, names in (("trained", [self.trained] if self.trained else []), ("active", self._active)):
            for name in names:
                if name not in self.adapters:
                    raise ValueError(f"{setting}={name}: {self._missing(name)}")
        for name in self._active:
            if self._active.count(name) > 1:
                raise ValueError(f"active: {name} is there twice, and would count twice; give it once")
        if self.active is not None and not self.adapters:
            raise ValueError("active: there are no adapters; give peft.adapters={<name>: <folder>}")
        return self

    def _missing(self, name: str) -> str:
        return (
            f"there is no such adapter.{nearest(name, self.adapters) or f' Give peft.adapters={{{name}: <folder>}}.'}"
        )

    @property
    def _active(self) -> list[str]:
        if self.active is None:
            return [self.trained] if self.trained else [*self.adapters][:1]
        return [self.active] if isinstance(self.active, str) else self.active

    @property
    def several(self) -> Several | None:
        """The adapters to put on the model; None where it is to stay as it is."""
        return Several(self.adapters, tuple(self._active), self.trained) if self.adapters else None

    @property
    def in_full(self) -> bool:
        """Unless one of the adapters is trained."""
        return self.trained is None

    def check_files(self) -> None:
        """The adapters' folders; what MLflow has is asked for later."""
        check_there(self.adapters)

    def check_use(self, command: str, model: str, merged: list[str]) -> None:
        """Adapters that there are need their base, and one that is to be trained."""
        if merged and not self.adapters and command == "merge":
            raise ValueError(
                "merge.weights: they are those of peft.adapters, and there are none; leave them out, or give the base "
                "as model.path, and peft.adapters={<name>: <folder>}"
            )
        for name in merged:
            if name not in self.adapters:
                raise ValueError(f"merge.weights.{name}: {self._missing(name)}")
        if merged and self.active is not None:
            raise ValueError("peft.active: merge.weights says what takes part; leave it out")
        if merged and command != "merge":
            raise ValueError(f"merge.weights: command={command} merges nothing; leave it out")
        if not self.adapters:
            return
        check_base(model)
        if command == "train" and self.trained is None:
            raise ValueError(
                "peft.trained has no value; give peft.trained=<one of peft.adapters> to train that one, or set "
                "peft.adapters={} to train all weights"
            )
        if command not in ("train", "show") and self.trained is not None:
            raise ValueError(f"peft.trained={self.trained}: command={command} trains nothing; leave it out")
        if self.trained is not None and self.trained not in self._active:
            raise ValueError(f"peft.trained={self.trained}: it takes no part in what is trained; add it to peft.active")

    def apply(self, network: PreTrainedModel, purpose: Purpose) -> PreTrainedModel:
        """The network itself; an adapter that ``model.path`` has is merged into it first."""
        if self.trained is not None:
            return trained_in_float32(network)
        if hasattr(network, "peft_config"):
            whole = Merge(weights={}, combination="cat", density=None, rank=None)
            network, _ = merged(network, whole, "peft=none: the adapter in model.path")
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return network
