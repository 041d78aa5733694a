"""Model shapes from a Hugging Face config.json: found, parsed, and given to the reader of its family."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moesim.errors import ScenarioError
from moesim.scenario.hugging_face import families  # noqa: F401 - fills the registry
from moesim.scenario.hugging_face.config import MAX_COUNT, MAX_EXPERTS, Config
from moesim.scenario.hugging_face.keys import KEYS, NESTED
from moesim.scenario.hugging_face.parts import Fields, general
from moesim.scenario.hugging_face.quantization import quantized
from moesim.scenario.hugging_face.registry import FAMILIES, Family

MAX_BYTES = 16_000_000
_NEEDED = ("hidden_size", "n_layers", "n_heads", "vocab_size", "n_experts", "top_k")
"""What a model of an unknown family must state, besides the width of its experts."""
_QUANT_FILE = "hf_quant_config.json"


def read_config(path: Path) -> Fields:
    """The fields of a model from a config.json, or from a folder that has one.

    Raises:
        ScenarioError: what would be right; the caller knows the place.
    """
    path = path / "config.json" if _is_folder(path) else path
    config = _json(path, "a preset of 'moesim list models', or the path of a config.json or of its folder")
    text, kinds = _language_model(config)
    family = _family(text, kinds)
    if family is None:
        stated = Config(text, kinds[-1])
        fields = {**_by_keys(stated), "estimated": f"the model_type {_printable(stated.family)!r} is read by its keys"}
    else:
        stated = Config(text, family.model_type, family.defaults, family.keys)
        fields = family.read(stated)
    name = _printable(str(config.get("_name_or_path") or text.get("_name_or_path") or _name(path))) or stated.family
    estimated = fields.pop("estimated", "")
    for field, value in fields.items():
        limit = MAX_EXPERTS if field == "n_experts" else MAX_COUNT
        if isinstance(value, int) and value > limit:
            raise stated.wrong(f"{field}, as it follows from the file,", value, f"at most {limit}")
    types = _data_types(config, text, path, fields)
    method = types.pop("method", "")
    if types.pop("alone", False):
        method += ", of weights alone: set precision.activations to bf16"
    source = [
        f"{'estimated: ' if estimated else ''}config.json of {name}{f' ({method})' if method else ''}",
        *([estimated] if estimated else []),
        *([_unstated(called.group())] if not types and (called := _NARROW.search(name)) else []),
        *([f"not modelled: {family.untold}"] if family is not None and family.untold else []),
    ]
    return {"name": name, **fields, **types, "source": "; ".join(source)}


_NARROW = re.compile(r"(?:nv|mx)?fp[48]|int[48]|awq|gptq|w[48]a(?:4|8|16)", re.IGNORECASE)
"""What the names of quantised checkpoints have in them."""


def _unstated(found: str) -> str:
    """What to do about a model whose name alone says that it is quantised."""
    return (
        f"read in 16 bits, as the file has no quantization_config and no {_QUANT_FILE} beside it, though its name says "
        f"{found}: precision.weights sets another type"
    )


def in_cache(name: str) -> Path | None:
    """The folder of a model that this machine has from Hugging Face, by its organisation/name; None if it has not."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    if name.count("/") != 1 or ".." in name or len(name) > 200:
        return None
    try:
        model = hub.expanduser() / f"models--{name.replace('/', '--')}"
        revision = (model / "refs" / "main").read_text(encoding="utf-8").strip()
        folder = model / "snapshots" / revision
        return folder if (folder / "config.json").is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _name(path: Path) -> str:
    """A model's name by where its file is: in the cache of a hub, in a folder of its own, or called by it."""
    folder = path.resolve().parent
    if folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--"):
        return folder.parents[1].name.removeprefix("models--").replace("--", "/")
    return folder.name if path.name == "config.json" else path.stem


def _printable(text: str) -> str:
    """A text that a file can hold: JSON may have halves of surrogate pairs."""
    return text[:200].encode("utf-8", "replace").decode()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _json(path: Path, wanted: str) -> dict[str, Any]:
    """The object in a JSON file of at most `MAX_BYTES`; `wanted` is what would be right where there is no such file."""
    try:
        with path.open("rb") as file:  # no more than that: a device has no size and no end
            data = file.read(MAX_BYTES + 1)
        found = json.loads(data.decode("utf-8-sig")) if len(data) <= MAX_BYTES else None
    except (FileNotFoundError, NotADirectoryError):
        raise ScenarioError(wanted) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ScenarioError(f"a readable {path.name} ({place} is no JSON: {error.msg})") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = {UnicodeDecodeError: "it is no text in UTF-8", RecursionError: "it is nested too deeply"}
        why = getattr(error, "strerror", None) or reason.get(type(error), "its name or a number cannot be read")
        raise ScenarioError(f"a readable {path.name} ({why})") from None
    if len(data) > MAX_BYTES:
        raise ScenarioError(f"a {path.name} of a model, which is smaller than {MAX_BYTES // 10**6} MB")
    if not isinstance(found, dict):
        raise ScenarioError(f"a {path.name} that holds an object, not {found!r:.40}")
    return found


def _language_model(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The part that describes the language model, and the model types from the inside out."""
    kinds, text = [_kind(config)], config
    while nested := next((text[key] for key in NESTED if isinstance(text.get(key), dict)), None):
        outer = {name: text[name] for name in ("tie_word_embeddings", "expert_dtype") if text.get(name) is not None}
        text = {**nested, **outer}
        kinds.insert(0, _kind(text))
    return text, [kind for kind in kinds if kind] or [""]


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get("model_type")
    return kind if isinstance(kind, str) else ""


def _family(text: Mapping[str, Any], kinds: list[str]) -> Family | None:
    """The family by the model type, else by the name of the architecture."""
    for kind in kinds:
        if kind in FAMILIES:
            return FAMILIES[kind]
    architectures = text.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    known = {_letters(kind): each for kind, each in FAMILIES.items()}
    for name in names:
        base = str(name).split("For")[0] if isinstance(name, str) else ""
        if _letters(base) in known:
            return known[_letters(base)]
    return None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _by_keys(config: Config) -> Fields:
    """A model of an unknown family by the keys that most families have."""
    lacking = [name for name in _NEEDED if not config.has(name)]
    if lacking:
        keys = "; ".join(" or ".join(KEYS[name]) for name in lacking)
        kind = repr(config.family)[:42]
        raise ScenarioError(
            f"a config.json of a model with experts, whose model_type is one of 'moesim list families' (here {kind}) "
            f"or which has the keys that are missing here: {keys}"
        )
    if not config.has("moe_intermediate_size"):
        config = Config(config.data, config.family, keys={"moe_intermediate_size": KEYS["intermediate_size"]})
    return general(config)


def _data_types(config: Mapping[str, Any], text: Mapping[str, Any], path: Path, fields: Fields) -> Fields:
    """Data types of the weights, as the config or the file beside it states them."""
    found = config.get("quantization_config")
    found = text.get("quantization_config") if found is None else found
    beside = path.with_name(_QUANT_FILE)
    if found is None and path.name == "config.json" and beside.is_file():
        found = _json(beside, f"a {_QUANT_FILE} beside the config.json").get("quantization")
        if not isinstance(found, dict):
            raise ScenarioError(f"a {_QUANT_FILE} with the mapping quantization, not {found!r:.40}")
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise ScenarioError(f"a config.json whose quantization_config is a mapping, not {found!r:.40}")
    if not found:
        return {}
    expert_dtype = found.get("expert_dtype", text.get("expert_dtype"))
    return {**quantized(found, _layers_of_parts(fields), expert_dtype), "method": _method(found)}


def _method(quantization: Mapping[str, Any]) -> str:
    """What a quantisation is called, and what it says of the KV cache."""
    names = (quantization.get("quant_method"), quantization.get("quant_algo"))
    method = " ".join(_printable(name) for name in names if isinstance(name, str))
    scheme = quantization.get("kv_cache_scheme")
    narrow = isinstance(scheme, dict) and (scheme.get("type"), scheme.get("num_bits")) == ("float", 8)
    if narrow or quantization.get("kv_cache_quant_algo") == "FP8":
        method += ", KV cache in fp8 with precision.kv_cache fp8"
    return method


def _layers_of_parts(fields: Fields) -> dict[str, list[int]]:
    """Of each part the layers that have it."""
    layers = range(fields["n_layers"])
    dense = set(fields["dense_layers"])
    without = set() if fields.get("attention") != "absent" else set(layers)
    for entry in fields.get("layers", ()):
        if "attention" in entry:
            here = entry.get("indices") or layers[entry["first"] :: entry["every"]]
            without = without | set(here) if entry["attention"] == "absent" else without - set(here)
    moe = [i for i in layers if i not in dense]
    return {
        "attention": [i for i in layers if i not in without],
        "experts": moe,
        "shared": moe if fields.get("n_shared_experts") else [],
        "dense": sorted(dense) if fields["intermediate_size"] else [],
    }
