"""Steps of variants as a recipe writes them: each read with its method's own settings class, and each chain asked whether it makes sense."""

from __future__ import annotations

from recompress.errors import InputError
from recompress.methods.chain import check_chain
from recompress.methods.registry import Need, all_methods
from recompress.records import Runtime
from recompress.settings.base import Settings
from recompress.settings.file import SettingsFile, unknown


class Step(Settings):
    """One step of a variant: a method and its settings, checked against the method's own class, and what the method says of itself."""

    method: str
    config: Settings
    module: str
    """The module of the function that does it: what the step's key takes the fingerprint of."""
    needs: tuple[Need, ...]
    gives: Runtime
    architectures: tuple[str, ...]
    """Model types that the method knows: whether the base is one of them is seen when it is found."""

    @property
    def as_json(self) -> dict[str, object]:
        """What the recipe says of it, with every dial; a digest of a recipe is made of this."""
        return {"method": self.method, "config": self.config.model_dump(mode="json")}


def read_steps(file: SettingsFile, variant: str, benchmark: str) -> tuple[Step, ...]:
    """The steps of one variant of a recipe. Raises ``InputError`` for what is not known or not possible, with its line."""
    steps = tuple(_read_step(file, ("variants", variant, i)) for i in range(len(file.values["variants"][variant])))
    if not steps:
        raise InputError(f"variant {variant!r} has no steps ({file.where(('variants', variant))})")
    for i in range(len(steps)):
        try:
            check_chain([(step.method, step.config) for step in steps[: i + 1]], benchmark, None)
        except InputError as error:
            raise InputError(f"{error} ({file.where(('variants', variant, i, steps[i].method))})") from None
    return steps


def _read_step(file: SettingsFile, location: tuple[str, str, int]) -> Step:
    methods = all_methods()
    _, variant, i = location
    step = file.values["variants"][variant][i]
    if len(step) != 1:
        raise InputError(f"a step is one 'method: {{settings}}', got {len(step)} keys ({file.where(location)})")
    [name] = step
    if name not in methods:
        raise InputError(unknown("method", name, methods, file.where((*location, name))))
    if not isinstance(step[name], dict):
        raise InputError(f"the settings of {name!r} should be {{key: value}}, {{}} for none, got {step[name]!r} ({file.where((*location, name))})")
    chosen = methods[name]
    config = file.read_as(chosen.config, (*location, name))
    return Step(method=name, config=config, module=chosen.run.__module__, needs=chosen.needs, gives=chosen.gives, architectures=chosen.architectures)
