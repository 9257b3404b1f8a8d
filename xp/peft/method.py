"""Method: one of peft's methods with its options, from its configuration class to the adapted network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xp.adapter import NEW, Several, activate, surround
from xp.adapter.loading import HARMLESS
from xp.error import UserError
from xp.peft import fitting, initial, known, layers
from xp.peft.base import Purpose, trained_in_float32
from xp.peft.further import further
from xp.peft.options import typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftConfig
    from transformers import PreTrainedModel

WRONG = (ValueError, TypeError, LookupError, AttributeError, AssertionError, ImportError, RuntimeError)
"""What peft and torch raise on settings that do not fit."""


@dataclass(frozen=True)
class Method:
    """A method of peft, and what was set of it."""

    kind: str
    """As peft spells it."""

    target_modules: str | list[str] | None
    """Layers to adapt; None leaves it to peft, which knows those of many architectures."""

    modules_to_save: list[str]
    """Layers to train and save in full beside it."""

    options: dict[str, Any]
    """Fields of the method's configuration class."""

    settings: dict[str, str] = field(default_factory=dict)
    """Those options that have a setting of their own, and its name."""

    def setting(self, option: str) -> str:
        """What the command line calls an option."""
        return f"peft.{self.settings.get(option, f'options.{option}')}"

    def check(self, purpose: Purpose) -> None:
        """Have peft check the options.

        Raises:
            UserError: a value has the wrong type, or the method's own rules refuse it.
        """
        self._config(purpose)

    def plan(self, skeleton: Callable[[], PreTrainedModel], purpose: Purpose, under: Several | None) -> None:
        """Tell which layers it will adapt, found on a network without weights.

        Args:
            skeleton: makes the network.
            purpose: what the adapter is for.
            under: the adapters that it will be on top of.

        Raises:
            UserError: none, or the method does not take this architecture, task, or what is under it.
        """
        import torch

        config = self._config(purpose)
        if under is not None:
            self._check_under(under, purpose)
        if getattr(config, "init_lora_weights", None) is not None:
            config.init_lora_weights = True  # The others look at the weights.
        with torch.device("meta"):
            network = skeleton()
            try:
                adapted, _ = self._adapted(network, config, empty=True)
            except (NotImplementedError, RuntimeError):  # It looks at the weights; LoRA of the same layers does not.
                network = skeleton()
                targets = self.target_modules or layers.usual(self.kind, network)
                stand_in = Method("LORA", targets, self.modules_to_save, {})
                adapted, _ = stand_in._adapted(network, stand_in._config(purpose), empty=True)
        purpose.say(layers.told(self.kind, adapted))

    def apply(self, network: PreTrainedModel, purpose: Purpose, under: Several | None) -> PreTrainedModel:
        """The network with a new adapter, or the one that it came with; what is trained of it is float32.

        Args:
            network: as loaded, with the adapters that are to be under the new one.
            purpose: what it is for.
            under: the names of these.

        Raises:
            UserError: the settings do not fit the network or its adapter.
        """
        if under is None and hasattr(network, "peft_config"):
            return further(self, network)
        if getattr(network, "quantization_method", None) is not None:
            self._check_quantized()
        config = self._config(purpose, layers.heads(network, purpose))
        adapted, lines = (
            self._put_on(network, config, purpose) if under is None else self._on_top(network, config, under)
        )
        for line in lines:
            purpose.say(line)
        with self._explained(network):
            initial.finish(adapted, self.options.get("init_lora_weights"), purpose)
        purpose.say(layers.told(self.kind, adapted))
        if saved := layers.saved(adapted, purpose.new):
            purpose.say(saved)
        return trained_in_float32(surround(adapted))

    def _check_quantized(self) -> None:
        """Refuse what cannot be trained on quantized weights, or would change them."""
        if not known.takes_quantized(self.kind):
            raise UserError(
                f"peft: {self.kind} has no layers for quantized weights; set model.quantization to null, or use one "
                "that has, such as peft=lora"
            )
        word = self.options.get("init_lora_weights")
        if initial.takes_from_base(word):  # peft refuses pissa; olora it quantizes anew, and does not give it back.
            raise UserError(
                f"peft.options.init_lora_weights={word}: it takes a part out of the base's weights, which quantized "
                "ones do not give; set model.quantization to null, or use eva, or peft=qlora as it is"
            )

    def lasting(self) -> dict[str, Any]:
        """The options that an adapter must have which is trained further.

        Raises:
            UserError: one is for new adapters alone.
        """
        return dict(self.options)

    def _check_under(self, under: Several, purpose: Purpose) -> None:
        """Refuse a new adapter that cannot be added up with those under it."""
        folders = under.folders(purpose.locate).values()
        for folder in folders:
            if folder.kind != self.kind:
                raise UserError(
                    f"{folder.key}: this is {folder.kind}, and the new one {self.kind}, which peft does not add up; "
                    "use command=merge first, and train on what it saves"
                )
        full = {*self.modules_to_save, *layers.FULL.get(purpose.task_type or "", []), *purpose.new}
        if held := sorted(full.union(*(folder.kept for folder in folders))):
            raise UserError(
                f"peft.adapters: {', '.join(held)} would be held in full by these adapters or the new one, and cannot "
                "be added up; use command=merge first, and train on what it saves"
            )

    def _on_top(self, network: Any, config: PeftConfig, under: Several) -> tuple[Any, list[str]]:
        """The network with one adapter more, which alone is trained, and what peft warns of."""
        with warnings.catch_warnings(record=True) as caught, self._explained(network):
            warnings.simplefilter("always")
            network.add_adapter(NEW, config)
        activate(network, [NEW, *sorted(under.paths)], "peft.adapters", NEW)
        return network, _told(caught)

    def _put_on(self, network: PreTrainedModel, config: PeftConfig, purpose: Purpose) -> tuple[Any, list[str]]:
        """The network with its first adapter, and what peft warns of."""
        return self._adapted(network, config)

    def _config(self, purpose: Purpose, heads: list[str] | None = None) -> PeftConfig:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        made = PEFT_TYPE_TO_CONFIG_MAPPING[self.kind]
        there = known.options(self.kind)
        values = typed(made, self.options, self.setting)
        if "init_lora_weights" in values:
            values["init_lora_weights"] = initial.before(values["init_lora_weights"])
        if self.target_modules is not None:
            values["target_modules"] = self.target_modules
        if heads and self.target_modules == "all-linear" and "exclude_modules" in there:
            given = values.get("exclude_modules") or []
            if isinstance(given, str):
                raise UserError(
                    f"peft.options.exclude_modules={given}: a regular expression does not go with all-linear and a new "
                    f"head; give a list of names"
                )
            values["exclude_modules"] = [*given, *heads]
        saved = sorted({*self.modules_to_save, *(name.rpartition(".")[0] for name in purpose.new)})
        if saved and "modules_to_save" not in there:
            raise UserError(
                f"peft: {self.kind} trains no layers in full, and {', '.join(saved)} would have to be; take another one"
            )
        if saved:
            values["modules_to_save"] = saved
        if "total_step" in there:
            values["total_step"] = purpose.steps or 1 << 30  # Until the rows are counted.
        if "hidden_size" in there:
            values["hidden_size"] = 1  # Until the network is there.
        if "progressbar" in there:
            values.setdefault("progressbar", False)
        with warnings.catch_warnings(record=True) as caught, self._explained():
            warnings.simplefilter("always")
            config = made(task_type=purpose.task_type, **values)
        for line in _told(caught):
            purpose.say(line)
        return config

    def _adapted(self, network: PreTrainedModel, config: PeftConfig, empty: bool = False) -> tuple[Any, list[str]]:
        """The network with an adapter, and what peft warns of."""
        from peft import get_peft_model
        from peft.mapping_func import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

        if config.is_prompt_learning and config.task_type not in MODEL_TYPE_TO_PEFT_MODEL_MAPPING:
            tasks = ", ".join(MODEL_TYPE_TO_PEFT_MODEL_MAPPING)
            raise UserError(f"peft: {self.kind} is for tasks that peft calls {tasks}; this is none of them")
        with warnings.catch_warnings(record=True) as caught, self._explained(network, empty):
            warnings.simplefilter("always")
            fitting.check(self, network)
            adapted = get_peft_model(network, config, low_cpu_mem_usage=empty)
            fitting.check_adapted(self, adapted)
        return adapted, _told(caught)

    @contextmanager
    def _explained(self, network: PreTrainedModel | None = None, empty: bool = False) -> Iterator[None]:
        """Turns what peft raises on settings that do not fit into a `UserError`.

        What a network without weights cannot do, or one with them for want of memory, is no fault of theirs.
        """
        try:
            yield
        except UserError:
            raise
        except WRONG as error:
            if isinstance(error, RuntimeError) and (empty or "memory" in str(error) or "alloc" in str(error).lower()):
                raise
            said = " ".join(str(error).split())
            unmatched = "not found in the base model" in said or "No modules were targeted" in said
            if network is not None and unmatched:
                raise layers.nothing(self.target_modules, network) from error
            if network is not None and "specify `target_modules`" in said:
                raise layers.unknown(self.kind, network) from error
            raise UserError(f"peft: {self.kind}: {said[:400]}") from error


def _told(caught: list[warnings.WarningMessage]) -> list[str]:
    """What peft warns of, but for what tells a user nothing."""
    lines = [" ".join(str(each.message).split()) for each in caught]
    return [f"peft: {line}" for line in lines if not HARMLESS.match(line)]
