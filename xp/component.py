"""Component: a typed piece of a run that a config chooses by name."""

from __future__ import annotations

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
    """

    registry: ClassVar[dict[str, type[Component]]] = {}

    name: str
    """Which component this is: the word its class was registered under."""

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Component in cls.__bases__:
            cls.registry = {}
        elif name in cls.registry:
            raise TypeError(f"{name!r} is {cls.registry[name].__qualname__} already; {cls.__qualname__} needs a name")
        elif name:
            cls.registry[name] = cls

    @classmethod
    def choose(cls, value: Any) -> Self:
        """The component that ``value["name"]`` asks for, checked by its class.

        Raises:
            ValueError: no such name (says the nearest one), or the settings do not fit the class.
        """
        if isinstance(value, cls):
            return value
        kind = cls.__name__.lower()
        if not isinstance(value, dict):
            raise ValueError(f"name: choose one, for example {kind}={next(iter(cls.registry))}")
        name = value.get("name")
        if name not in cls.registry:
            raise ValueError(f"name={name}: there is no such {kind}.{nearest(str(name), cls.registry)}")
        chosen = cls.registry[name].model_validate(value)
        assert isinstance(chosen, cls)
        return chosen

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if Component in cls.__bases__:
            return core_schema.no_info_plain_validator_function(cls.choose)
        return handler(source)
