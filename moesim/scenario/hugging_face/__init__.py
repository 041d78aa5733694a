"""Models from the config.json of Hugging Face, read as they are.

In comes a file or its folder, out go the fields of a scenario's model. `keys`
names what is called differently from family to family, `config` checks what is read,
`parts` reads what most families have in common, `families` has a reader for each,
and `quantization` the data types of the checkpoint.
"""

from moesim.scenario.hugging_face.quantization import METHODS
from moesim.scenario.hugging_face.read import in_cache, read_config
from moesim.scenario.hugging_face.registry import FAMILIES

__all__ = ["FAMILIES", "METHODS", "in_cache", "read_config"]
