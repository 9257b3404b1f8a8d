"""Weights that exist: the bundled model, a folder, the hub, an MLflow run; and adapters on top of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from xp import adapter, hub
from xp.adapter.folder import Folder, check_sizes, where
from xp.error import UserError, check_folder
from xp.model import footprint, placement, quantization, stored
from xp.model.architecture import able, label_names, lacking, on_meta, renamed_base, renewed_head, settled_labels
from xp.model.arguments import placed
from xp.model.base import Described, Loaded, Model, Wish, loading, nameless
from xp.model.foreign import check_config
from xp.model.processor import load_processor
from xp.model.tokenizer import settle_pad

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ASSETS = Path(__file__).parent.parent / "assets"


def _settled(path: str | Path) -> str:
    if not os.path.isdir(path):
        hub.settle()
    return str(path)


class Pretrained(Model, name="pretrained"):
    """Weights that exist: the bundled model, a folder, a repository of the hub, or the model of an MLflow run."""

    path: str
    """``bundled``, a folder (adapter folders too), a repository id of the hub, or ``mlflow:<run id>``."""

    revision: str | None
    """Branch, tag or commit on the hub; null takes the newest."""

    trust_remote_code: bool
    """Whether Python code in the model's repository may run on this machine. It can do anything you can."""

    quantization: quantization.Quantization | None
    """Numbers that bitsandbytes holds linear layers in: int8 (Dettmers et al., 2022), nf4 or fp4 (2023); null: none."""

    quantization_options: dict[str, Any]
    """More fields of transformers' ``BitsAndBytesConfig``, for example ``{bnb_4bit_use_double_quant: true}``."""

    device_map: str | dict[str, str | int] | None
    """Where a model's parts go that is larger than a device: auto, balanced, sequential, or ``{module: device}``."""

    max_memory: dict[str | int, str | int] | None
    """The most that ``device_map`` puts on each device, for example ``{0: 10GiB, cpu: 30GiB}``; the rest: on disk."""

    offload_folder: str | None
    """Where ``device_map`` writes parts for the disk that are not in safetensors files already."""

    base: str | None
    """What the adapter in ``path`` is on, where that is not (or no longer) what the adapter says itself."""

    @model_validator(mode="after")
    def _fits_together(self) -> Pretrained:
        quantization.check(self.quantization, self.quantization_options, self.device_map)
        placement.check(self.device_map, self.max_memory, self.offload_folder)
        return self

    def check_files(self) -> None:
        """The folder, where the path is one; what the hub or MLflow has is asked for later."""
        path = os.path.expanduser(self.path)
        if path.startswith((".", "/", "runs/")):
            check_folder(f"model.path={self.path}", path)

    def describe(self, wish: Wish) -> Described:
        """Config, labels and tokenizer; those of an adapter folder are its own where it has some, else its base's."""
        path = self._folder(wish)
        if wish.adapters is not None:
            folder = wish.adapters.folders(wish.locate)[wish.adapters.leading]
        elif adapter.is_adapter(path):
            folder = adapter.read(path, f"model.path={self.path}", weights=False)
            path = path if folder.has_config else self._base(folder, wish)
        else:
            return self._describe(path, wish)
        wish = replace(wish, classes=adapter.classes(folder))
        return self._describe(folder.path if folder.has_config else path, wish)

    def skeleton(self, wish: Wish) -> Callable[[], PreTrainedModel] | None:
        """Makes the network from its config alone."""
        import transformers

        path = self._folder(wish)
        if adapter.is_adapter(path):
            return None
        config = self._describe(path, wish).config
        auto_class = able(wish.auto_class, config)

        def make() -> PreTrainedModel:
            with loading(self.path, auto_class, self.revision):
                return on_meta(getattr(transformers, auto_class), config, self.trust_remote_code)

        return make

    def _base(self, folder: Folder, wish: Wish) -> str:
        return _settled(where(folder, wish.locate(self.base) if self.base else None))

    def _folder(self, wish: Wish) -> str:
        """Where the model is: a folder, or a repository of the hub."""
        self.check_files()
        return _settled(ASSETS / "bundled" if self.path == "bundled" else os.path.expanduser(wish.locate(self.path)))

    def load(self, wish: Wish) -> Loaded:
        """Load weights, config and tokenizer; an adapter folder comes with its base, a base with its adapters."""
        path = self._folder(wish)
        if adapter.is_adapter(path) and wish.adapters is None:
            folder = adapter.read(path, f"model.path={self.path}")
            base = self._base(folder, wish)
            loaded = self._adapted(folder, base, wish, wish.train)
            if others := folder.beside():
                self._beside(loaded, folder, others, base, wish)
                names = [adapter.NEW, *others]
                adapter.activate(loaded.network, names, folder.key, names[0] if wish.train else None)
                loaded.notes.append(f"beside the adapter: {', '.join(others)}, as in its training")
            return loaded
        if self.base is not None:
            raise UserError(f"model.base={self.base}: model.path={self.path} is no adapter, and has no base")
        return self._load(path, path, wish) if wish.adapters is None else self._with(wish.adapters, path, wish)

    def _with(self, several: adapter.Several, path: str, wish: Wish) -> Loaded:
        """The network in ``path`` with several adapters, which share its sizes and the task."""
        if adapter.is_adapter(path):
            said = "it is an adapter itself; name it in peft.adapters, and give its base here"
            raise UserError(f"model.path={self.path}: {said}")
        folders = several.folders(wish.locate)
        first, folder = several.leading, folders.pop(several.leading)
        loaded = self._adapted(folder, path, wish, several.trained == first, first)
        self._beside(loaded, folder, folders, path, wish)
        loaded.notes += [line for each in (folder, *folders.values()) for line in each.half]
        adapter.activate(loaded.network, several.active, several.key, several.trained)
        loaded.notes.append(several.told)
        return loaded

    def _beside(self, loaded: Loaded, first: Folder, folders: dict[str, Folder], base: str, wish: Wish) -> None:
        """Put more adapters on a network that has the first one."""
        for name, each in folders.items():
            self._check(each, base, wish)
            own, others = (self._known_labels(one.path if one.has_config else base, one) for one in (each, first))
            adapter.check_labels(each, own, others)
            adapter.put_on_another(loaded.network, each, name, loaded.notes)

    def _check(self, folder: Folder, base: str, wish: Wish) -> None:
        """Refuse an adapter for another task, or for a base of other sizes."""
        folder.check_task(wish.peft_type, "the task")
        if folder.origin not in (None, base):
            with loading(self.path):
                check_sizes(folder, self.config, *(self._config(each) for each in (folder.origin, base)))

    def _adapted(self, folder: Folder, base: str, wish: Wish, trainable: bool, name: str = "default") -> Loaded:
        """The network in ``base`` with an adapter, whose folder may have a config of its own."""
        described = folder.path if folder.has_config else base
        self._check(folder, base, wish)
        wish = replace(wish, kept=(*wish.kept, *folder.kept), classes=adapter.classes(folder))
        loaded = self._load(base, described, wish)
        own, rows = (", ".join(each) for each in (self._known_labels(described, folder), wish.labels))
        if wish.train and rows and ", ".join(loaded.labels) != own:
            said = (
                f"this adapter answers {own}; the training rows have {rows}. Train on such rows, or start from {base}"
            )
            raise UserError(f"{folder.key}: {said}")
        placement.check_adaptable(loaded.network, self.path, base)
        loaded.network = adapter.put_on(loaded.network, folder, trainable, loaded.notes, name)
        if lost := [name for name in loaded.new if not folder.holds(name)]:
            raise UserError(f"{folder.key}: neither the adapter nor its base {base} has weights for {lost[0]}")
        loaded.new = []
        return loaded

    def _config(self, path: str) -> PretrainedConfig:
        import transformers

        return transformers.AutoConfig.from_pretrained(adapter.configured(path), **self._source)

    @property
    def _source(self) -> dict[str, Any]:
        return {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}

    def _describe(self, path: str, wish: Wish) -> Described:
        """Config, labels and tokenizer in ``path``."""
        import transformers

        with loading(self.path, revision=self.revision):
            described = self._config(path)
        check_config(described, self.path, self.trust_remote_code)
        self._check_config(described)
        labels = settled_labels(label_names(described), wish)
        values = ({"num_labels": wish.classes} if wish.classes else {}) | wish.config(labels) | self.config
        with loading(self.path):
            config = transformers.AutoConfig.from_pretrained(adapter.configured(path), **values, **self._source)
            kind = wish.processor_class
            processor: Any = load_processor(kind, path, self.processor, **self._source) if kind else None
        if hasattr(processor, "pad_token_id"):
            settle_pad(processor, config)
        return Described(processor, labels, config)

    def _load(self, path: str, described_by: str, wish: Wish) -> Loaded:
        """The network in ``path`` with the config, labels and tokenizer that are in ``described_by``."""
        import transformers

        described = self._describe(described_by, wish)
        own, labels = self._known_labels(described_by), described.labels
        auto_class = able(wish.auto_class, described.config)
        auto = getattr(transformers, auto_class)
        placing = placed(self, auto, described.config, wish)

        def loaded(**more: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
            with loading(self.path, auto_class, self.revision):
                network, report = auto.from_pretrained(
                    str(Path(path).absolute()) if Path(path).is_dir() else path,  # An adapter's config will name it.
                    config=described.config,
                    dtype=self._dtype(wish),
                    ignore_mismatched_sizes=wish.train or path != described_by or wish.classes is not None,
                    output_loading_info=True,
                    use_safetensors=True,
                    **placing,
                    **self._source,
                    **more,
                )
            return network, report

        network, report = loaded()
        if renamed := renamed_base(network.base_model_prefix, report):
            network, report = loaded(key_mapping=renamed)
        new = lacking(report, wish.spare)
        if wish.train and labels and not new and labels != own and not nameless(own):
            # As many labels as before, but others: what the head knows of the old ones misleads.
            new = renewed_head(network)
        if new and not wish.train and path == described_by and wish.classes is None:
            raise UserError(
                f"model.path={self.path}: it has no trained head for this task (no weights for {', '.join(new[:3])}); "
                "train it first, or give the folder of a model that was trained for it"
            )
        if random := quantization.layers_of(network, new):  # What is new is trained in full.
            return self._load(path, described_by, replace(wish, kept=(*wish.kept, *random)))
        if wish.train:
            stored.check_trains(self.path, network)
        with loading(self.path):
            measured = footprint.settled(network, self.quantization, wish.computes_in)
        return Loaded(network, described.processor, labels, new, described_by, measured)

    def _known_labels(self, path: str, folder: Folder | None = None) -> list[str]:
        with loading(self.path):
            return adapter.head_labels(folder) or label_names(self._config(path))
