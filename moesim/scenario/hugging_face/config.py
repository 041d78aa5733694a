"""The fields of a config.json, each checked where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face.keys import KEYS

MAX_COUNT = 10**9
MAX_LAYERS, MAX_EXPERTS = 10_000, 100_000
"""As a scenario's model may have."""


@dataclass(frozen=True)
class Config:
    """The description of a language model.

    `data` is what the file states, `family` its model_type. `defaults` are the
    values of fields that a file of the family may leave out, by our names, and
    `keys` the keys under which the family states a field, where these are not those
    of `KEYS`.
    """

    data: Mapping[str, Any]
    family: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def keys_of(self, name: str) -> tuple[str, ...]:
        """The keys under which a field may be stated."""
        return self.keys.get(name) or KEYS.get(name) or (name,)

    def find(self, name: str) -> tuple[str, Any]:
        """The key of a field and its value: the stated one, None for a null, else the default or None."""
        keys = self.keys_of(name)
        for key in keys:
            if self.data.get(key) is not None:
                return key, self.data[key]
        if any(key in self.data for key in keys):
            return keys[0], None
        return keys[0], self.defaults.get(name)

    def has(self, name: str) -> bool:
        """Whether a field is stated or has a default."""
        return self.find(name)[1] is not None

    def wrong(self, key: str, found: Any, wanted: str) -> ScenarioError:
        """The error about a field: what was found and what would be right."""
        return ScenarioError(f"a config.json of {self.family} whose {key} is {wanted}, not {found!r:.40}")

    def count(self, name: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least` to 10^9.

        Raises:
            ScenarioError: another value, or none where there is no default.
        """
        key, value = self.find(name)
        if value is None:
            value = default
        if value is None:
            also = "".join(f" or {each}" for each in self.keys_of(name)[1:])
            raise ScenarioError(f"a config.json of {self.family} with the field {key}{also}")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_COUNT:
            raise self.wrong(key, value, f"a whole number from {least} to {MAX_COUNT}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false; 0 and 1 stand for them.

        Raises:
            ScenarioError: another value.
        """
        key, value = self.find(name)
        value = default if value is None else value
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise self.wrong(key, value, "true or false")
        return bool(value)

    def number(self, name: str, default: float) -> float:
        """A number above 0 and below 1e38.

        Raises:
            ScenarioError: another value.
        """
        key, value = self.find(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e38:
            raise self.wrong(key, value, "a number above 0 and below 1e38")
        return float(value)

    def word(self, name: str, default: str) -> str:
        """A text.

        Raises:
            ScenarioError: another value.
        """
        key, value = self.find(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise self.wrong(key, value, "a word")
        return value

    def per_layer(self, name: str, kind: type) -> list[Any] | None:
        """The values of a list with one for each layer, None where the file has no such list.

        What the list has beyond the layers belongs to layers that predict further tokens.

        Raises:
            ScenarioError: it is too short, or holds something else.
        """
        key, value = self.find(name)
        if value is None:
            return None
        n_layers = self.n_layers
        if not isinstance(value, list) or len(value) < n_layers:
            raise self.wrong(key, value, f"a list with a value for each of {n_layers} layers")
        for each in value[:n_layers]:
            whole = isinstance(each, int) and 0 <= each <= MAX_COUNT
            if not isinstance(each, kind) or (kind is int and not whole):
                wanted = {int: "whole numbers", str: "words", bool: "true or false"}[kind]
                raise self.wrong(key, each, f"a list of {wanted}")
        return value[:n_layers]

    def indices(self, name: str) -> list[int] | None:
        """Layers that a list names, ascending and distinct; None where the file has no such list.

        Raises:
            ScenarioError: it holds something else.
        """
        key, value = self.find(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in value):
            raise self.wrong(key, value, "a list of indices of layers")
        return sorted({i for i in value if i < self.n_layers})

    def part(self, name: str) -> Config:
        """A mapping in the config, which is read as this one; without fields where there is none.

        Raises:
            ScenarioError: it is no mapping.
        """
        value = self.data.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise self.wrong(name, value, "a mapping")
        return replace(self, data=value or {})

    def without(self, *names: str) -> Config:
        """The same config without some fields, whatever it states of them."""
        keys = {key for name in names for key in self.keys_of(name)}
        return replace(
            self,
            data={key: value for key, value in self.data.items() if key not in keys},
            defaults={name: value for name, value in self.defaults.items() if name not in names},
        )

    def updated(self, **data: Any) -> Config:
        """The same config with other values under some keys."""
        return replace(self, data={**self.data, **data})

    @property
    def n_layers(self) -> int:
        """Layers, few enough to list.

        Raises:
            ScenarioError: there are more.
        """
        n_layers = self.count("n_layers")
        if n_layers > MAX_LAYERS:
            raise self.wrong(self.find("n_layers")[0], n_layers, f"at most {MAX_LAYERS}")
        return n_layers
