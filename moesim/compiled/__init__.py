"""Compiled primitives that several stages use.

In: NumPy arrays and scalars. Out: the same. `jit` has the one decorator of all
kernels of the package, `random` counter-based random numbers, `topk` the
selection of the k largest, `count` loads. Nothing here knows a model or a GPU.
"""
