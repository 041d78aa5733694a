"""What the user asks: scenario files, checked, with the place of every field.

In: YAML, overrides, presets (data files). Out: `Scenario`, whose parts are the
plain nouns of `moesim.types`. `source` reads YAML with positions, `merge`
merges files and overrides, `renamed` knows former names of fields, `schema` checks fields,
`agreement` what they must agree on, `presets` and `hugging_face` fill in models, GPUs and networks.
"""

from moesim.scenario.presets import canonical, presets
from moesim.scenario.scenario import Scenario
from moesim.scenario.schema import json_schema

__all__ = ["Scenario", "canonical", "json_schema", "presets"]
