"""The nouns that travel between the stages: frozen dataclasses of arrays and numbers, and Protocols.

In: nothing. Out: ModelShape, LayerShape, GpuSpec, NetworkSpec, ClusterShape, Parallelism,
Precision (what is simulated), Draw, Batch, AttentionWork (whose tokens), Assignment (which expert serves which token),
Placement, Traffic (which slot, which port), Program, Exchange, Timeline (when),
StepTimes, Tasks (what the clock says of a step), TokenGroups, Queues, QueuedRun
(experts with queues), Trace, CountsTrace, LogitsTrace (what was recorded).
"""

from moesim.types.assignment import (
    CAUSES,
    LOST_GPU,
    NOT_DROPPED,
    OVER_CAPACITY,
    QUEUE_FULL,
    TO_BEST_WITH_ROOM,
    TO_LOCAL_EXPERT,
    TO_NEXT_CHOICE,
    TO_SHARED_EXPERT,
    Assignment,
)
from moesim.types.attention_work import (
    AttentionWork,
    Sequences,
    attention_work,
    equal_decodes,
    equal_prompts,
)
from moesim.types.cluster import (
    DTYPE_BYTES,
    ClusterShape,
    GpuSpec,
    Level,
    NetworkSpec,
    Parallelism,
    Precision,
)
from moesim.types.expert_queues import QueuedRun, Queues, TokenGroups
from moesim.types.levels import ACROSS_NODES, LEVELS, TWO_LEVELS, WITHIN_NODE, NetworkLevels
from moesim.types.model import STATES, WEIGHT_PARTS, LayerChange, LayerClass, LayerShape, ModelShape
from moesim.types.placement import Placement, Topology, Traffic, nodes_of
from moesim.types.popularity import FittedPopularity
from moesim.types.program import (
    COMPUTE_KINDS,
    COMPUTE_STREAM,
    EXCHANGE_KINDS,
    EXCHANGE_STREAM,
    PARTS,
    Exchange,
    Part,
    Program,
    Timeline,
)
from moesim.types.protocols import Planner, ReplicaChoice, Router, TokenSource
from moesim.types.recording import (
    DECODE,
    PHASES,
    PREFILL,
    TRAIN,
    UNKNOWN,
    CountsTrace,
    LogitsTrace,
    Recording,
    TokenColumns,
    Trace,
    token_columns,
)
from moesim.types.routed import RoutedStep
from moesim.types.router import RouterState, RouterStep
from moesim.types.step_times import QueueTotals, StepTimes, Tasks
from moesim.types.tokens import Batch, Draw, EqualSequences

__all__ = [
    "ACROSS_NODES",
    "CAUSES",
    "COMPUTE_KINDS",
    "COMPUTE_STREAM",
    "DECODE",
    "DTYPE_BYTES",
    "EXCHANGE_KINDS",
    "EXCHANGE_STREAM",
    "LEVELS",
    "LOST_GPU",
    "NOT_DROPPED",
    "OVER_CAPACITY",
    "PARTS",
    "PHASES",
    "PREFILL",
    "QUEUE_FULL",
    "STATES",
    "TO_BEST_WITH_ROOM",
    "TO_LOCAL_EXPERT",
    "TO_NEXT_CHOICE",
    "TO_SHARED_EXPERT",
    "TRAIN",
    "TWO_LEVELS",
    "UNKNOWN",
    "WEIGHT_PARTS",
    "WITHIN_NODE",
    "Assignment",
    "AttentionWork",
    "Batch",
    "ClusterShape",
    "CountsTrace",
    "Draw",
    "EqualSequences",
    "Exchange",
    "FittedPopularity",
    "GpuSpec",
    "LayerChange",
    "LayerClass",
    "LayerShape",
    "Level",
    "LogitsTrace",
    "ModelShape",
    "NetworkLevels",
    "NetworkSpec",
    "Parallelism",
    "Part",
    "Placement",
    "Planner",
    "Precision",
    "Program",
    "QueueTotals",
    "QueuedRun",
    "Queues",
    "Recording",
    "ReplicaChoice",
    "RoutedStep",
    "Router",
    "RouterState",
    "RouterStep",
    "Sequences",
    "StepTimes",
    "Tasks",
    "Timeline",
    "TokenColumns",
    "TokenGroups",
    "TokenSource",
    "Topology",
    "Trace",
    "Traffic",
    "attention_work",
    "equal_decodes",
    "equal_prompts",
    "nodes_of",
    "token_columns",
]
