"""Where experts live: planners, replica choice, and the traffic that follows.

In: sizes and a planner's name, then the expert that serves each assignment. Out: a
Placement (slots on GPUs), the slot of every assignment, and the tokens per
slot and per pair of GPUs.
"""

from moesim.placement.planners import PLANNERS, place
from moesim.placement.slots import assign_slots
from moesim.placement.traffic import traffic_of_layer

__all__ = ["PLANNERS", "assign_slots", "place", "traffic_of_layer"]
