"""Packages that can be called: `dlrun.train`, `dlrun.sweep` and `dlrun.runs` are also functions of dlrun.api."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


class CallablePackage(ModuleType):
    """A package that calls the function of its name in dlrun.api, which is imported then."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> "Signature":
        from inspect import signature  # takes longer to import than all else here

        return signature(_function(self))


def _function(package: ModuleType) -> Callable[..., Any]:
    return getattr(import_module("dlrun.api"), package.__name__.rpartition(".")[2])
