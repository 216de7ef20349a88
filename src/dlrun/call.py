"""Packages that can be called: `dlrun.train`, `dlrun.sweep` and `dlrun.runs` are also functions of dlrun.api."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


class CallablePackage(ModuleType):
    # A package that calls the function of its name in dlrun.api, which is imported then.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> "Signature":
        from inspect import signature  # takes longer to import than all else here

        return signature(_function(self))

    @property
    def __doc__(self) -> str:  # type: ignore[override]  # a module's text is read only
        """The function's text with its parameters, for help(): what dlrun.train is to who imports dlrun."""
        from inspect import getdoc

        first, _, rest = (getdoc(_function(self)) or "").partition("\n\n")
        call = self.__signature__
        lines = [f"{self.__name__}(", *(f"    {each}," for each in call.parameters.values()), ")"]
        package = f"The package of this name:\n{vars(self)['__doc__']}"
        return "\n\n".join([first, "\n".join(lines), *filter(None, [rest]), package])


def _function(package: ModuleType) -> Callable[..., Any]:
    return getattr(import_module("dlrun.api"), package.__name__.rpartition(".")[2])
