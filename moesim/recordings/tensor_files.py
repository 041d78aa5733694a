"""Files of arrays that other libraries write, `.npz`, `.safetensors` and `.pt`: bounded, and never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS
from moesim.recordings.sample import npy_header
from moesim.recordings.stream import reason

MAX_BYTES = 8 * MAX_CELLS
"""What an archive may hold when it is unpacked."""
BROKEN_ARCHIVE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""What zipfile raises of damaged archives."""
_SAMPLE = 1 << 20
TORCH = ("pt", "pickle")
"""Kinds of samples that torch.save wrote: since PyTorch 1.6, and before."""


def npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` by name; object arrays, which would have to be unpickled, are refused.

    Raises:
        TraceError: no archive, a damaged one, an object array, or more than 2 GiB when unpacked.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, archive)
            for member in archive.namelist():
                with archive.open(member) as file:
                    arrays[member.removesuffix(".npy")] = read_npy(f"{path}: {member}", file)
    except TraceError:
        raise
    except BROKEN_ARCHIVE as error:
        raise TraceError(f"{path}: found a damaged .npz archive ({reason(error)}), wanted a whole one") from None
    return arrays


def read_npy(where: str, file: Any) -> NDArray[Any]:
    """One array in NumPy's format from an open binary file, its header checked before any memory is taken.

    Raises:
        TraceError: a damaged header, an object array, too large an array, or fewer bytes than the header says.
    """
    shape, dtype = npy_header(file, where)
    if dtype.hasobject or dtype.kind not in "biufUS":
        raise TraceError(
            f"{where}: found an array of Python objects, which would have to be unpickled; wanted one of numbers "
            "(save with numpy.savez of plain arrays)"
        )
    cells = 1
    for size in shape:
        cells *= int(size)
    if cells * max(dtype.itemsize, 1) > MAX_BYTES:
        raise TraceError(f"{where}: found an array of shape {list(shape)}, wanted at most {MAX_BYTES} bytes")
    file.seek(0)
    try:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TraceError(f"{where}: cannot be read: the array is cut off ({reason(error)})") from None
    return array


def safetensors_arrays(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors of a safetensors file by name, one at a time.

    Raises:
        TraceError: a damaged file, or a data type that NumPy lacks.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(
            f"{path}: found a damaged safetensors file ({reason(error)}), wanted a whole one of integers"
        ) from None


def torch_names(path: Path) -> bytes:
    """The part of a `.pt` file that names its keys, as bytes to search in; nothing is run. Empty if it is none."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
            if start == b"\x80\x02":  # the format before PyTorch 1.6
                return start + file.read(_SAMPLE)
        if start != b"PK":
            return b""
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("/data.pkl"):
                    with archive.open(member) as file_in_zip:
                        return file_in_zip.read(_SAMPLE)
    except BROKEN_ARCHIVE:
        return b""
    return b""


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, tensors as NumPy arrays, read with `weights_only=True` alone.

    Raises:
        TraceError: torch is not installed, the file is damaged, holds more than plain data and tensors, or unpacks to
            more than 2 GiB.
    """
    try:
        import torch
    except ImportError:
        raise TraceError(
            f"{path}: found a file of torch.save, which only torch reads safely; "
            "install torch (its CPU build is enough), or save the tensor with numpy.save and import that"
        ) from None
    import pickle  # only the class of an error; nothing is unpickled here

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_size(path, archive)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise TraceError(
            f"{path}: found a file of torch.save with more than tensors and plain data, which is not run; "
            "wanted one that torch.load(weights_only=True) reads"
        ) from None
    except TraceError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file may end torch's reader anywhere
        raise TraceError(f"{path}: found a damaged file of torch.save ({reason(error)}), wanted a whole one") from None
    return _plain(str(path), content)


def _plain(where: str, value: Any) -> Any:
    """Nested data with every tensor as an array; a tensor that claims more numbers than it stores is refused."""
    import torch

    if isinstance(value, torch.Tensor):
        if (
            value.is_sparse
            or value.is_quantized
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise TraceError(f"{where}: found a tensor that stores fewer numbers than its shape, wanted a plain one")
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, dict):
        return {key: _plain(f"{where}: {key}", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{where}[{number}]", item) for number, item in enumerate(value)]
    return value


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to more than `MAX_BYTES`."""
    size = sum(member.file_size for member in archive.infolist())
    if size > MAX_BYTES:
        raise TraceError(f"{path}: unpacks to {size / 1e9:.1f} GB, wanted at most {MAX_BYTES / 1e9:.1f} GB")
