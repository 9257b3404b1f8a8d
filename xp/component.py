"""Component: a typed piece of a run that a config chooses by name."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from xp.error import nearest


class Settings(BaseModel):
    """A frozen group of settings: unknown keys and wrong types are errors, nothing has a default.

    The yaml under ``conf/`` states every value; the class states its type, its bounds and its meaning.
    Validators are built at first use, so that choosing one component does not pay for all.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, defer_build=True, protected_namespaces=(), allow_inf_nan=False
    )


class Component(Settings):
    """Base of the kinds (Model, Data, Task, Peft, Backend); a kind is the registry of its components.

    ``class Lora(Peft, name="lora")`` makes ``name: lora`` in a yaml of ``conf/peft/`` mean this class.
    A component's fields are its settings; its methods take what only exists at run time.

    Where a kind is a folder, each of its files is imported when one of its components is asked for by name: a new
    component is a file there and a yaml, and nothing to add. A file that is called as its component costs no other.
    """

    registry: ClassVar[dict[str, type[Component]]] = {}
    """The components imported so far, by name; ask `find` or `all`."""

    group: ClassVar[str]
    """The kind's name: that of its config group, and of its file or folder in ``xp/``."""

    name: str
    """Which component this is: the word its class was registered under."""

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Component in cls.__bases__:
            cls.registry, cls.group = {}, cls.__name__.lower()
        elif name in cls.registry:
            raise TypeError(f"{name!r} is {cls.registry[name].__qualname__} already; {cls.__qualname__} needs a name")
        elif name:
            cls.registry[name] = cls

    @classmethod
    def _files(cls) -> list[str]:
        """The names of the modules in the kind's folder; none where the kind is one file."""
        return [module.name for module in iter_modules(getattr(sys.modules.get(f"xp.{cls.group}"), "__path__", []))]

    @classmethod
    def all(cls) -> dict[str, type[Self]]:
        """Every component of this class by its name; imports all files of its kind."""
        for file in cls._files():
            import_module(f"xp.{cls.group}.{file}")
        return {name: each for name, each in cls.registry.items() if issubclass(each, cls)}

    @classmethod
    def find(cls, name: str) -> type[Self]:
        """The component of this name.

        Raises:
            ValueError: there is none (says the nearest one).
        """
        if name not in cls.registry and name in cls._files():
            import_module(f"xp.{cls.group}.{name}")
        found = cls.registry.get(name) or cls.all().get(name)
        if found is None:
            raise ValueError(f"name={name}: there is no such {cls.group}.{nearest(name, cls.all())}")
        assert issubclass(found, cls)
        return found

    @classmethod
    def choose(cls, value: Any) -> Self:
        """The component that ``value["name"]`` asks for, checked by its class.

        Raises:
            ValueError: no such name (says the nearest one), or the settings do not fit the class.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"name: choose one, for example {cls.group}={next(iter(cls.all()))}")
        return cls.find(str(value.get("name"))).model_validate(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if Component in cls.__bases__:
            return core_schema.no_info_plain_validator_function(cls.choose)
        return handler(source)
