"""Files of arrays: read within bounds, never unpickled."""

from __future__ import annotations

import io
import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.recordings.checked import MAX_CELLS, to_logical, whole_numbers
from moesim.recordings.tensor_files import load_torch, npz_arrays, read_npy, safetensors_arrays


def npy_header(shape: tuple[int, ...]) -> bytes:
    """An array file that claims a shape and has no numbers."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_npz_arrays_are_those_that_numpy_wrote(tmp_path: Path) -> None:
    """Types and orders as they were, compressed or not."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3, dtype=np.float32)),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    found = npz_arrays(tmp_path / "a.npz")
    assert set(found) == {"a", "b"}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_object_arrays_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    """Their reading would run what the file says."""
    np.savez(tmp_path / "o.npz", routed_experts=np.array({"a": 1}, dtype=object))
    with pytest.raises(TraceError, match=r"o\.npz: routed_experts\.npy: found an array of Python objects"):
        npz_arrays(tmp_path / "o.npz")


def test_an_array_that_claims_more_than_it_has_takes_no_memory(tmp_path: Path) -> None:
    """The header is judged before anything is read: too large, or cut off."""
    with pytest.raises(TraceError, match="at most"):
        read_npy("x.npy", io.BytesIO(npy_header((MAX_CELLS, 2))))
    with pytest.raises(TraceError, match="cut off"):
        read_npy("x.npy", io.BytesIO(npy_header((3,))))
    with pytest.raises(TraceError, match="no array of NumPy"):
        read_npy("x.npy", io.BytesIO(b"\x93NUMPY\x01\x00garbage"))


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    """Its directory says so; nothing is unpacked."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        zeros = bytes(1 << 20)
        for _ in range(64):
            file.write(zeros)
    content = bytearray(path.read_bytes())
    size = (1 << 26).to_bytes(4, "little")
    directory = content.rindex(size)
    content[directory : directory + 4] = (0xFFFFFFFE).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"unpacks to 4\.3 GB, wanted at most 2\.1 GB"):
        npz_arrays(path)


def test_a_safetensors_file_is_read_by_name(tmp_path: Path) -> None:
    """And a damaged one is named."""
    from safetensors.numpy import save_file

    save_file({"100_3": np.arange(4), "100_4": np.ones(4, dtype=np.int64)}, tmp_path / "rank0.safetensors")
    found = dict(safetensors_arrays(tmp_path / "rank0.safetensors"))
    assert found["100_3"].tolist() == [0, 1, 2, 3]
    whole = (tmp_path / "rank0.safetensors").read_bytes()
    for length in (4, 30, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(TraceError, match=r"cut\.safetensors: found a damaged"):
            dict(safetensors_arrays(tmp_path / "cut.safetensors"))
    header = json.dumps({"a": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]}}).encode()
    (tmp_path / "cut.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(TraceError, match="damaged"):
        dict(safetensors_arrays(tmp_path / "cut.safetensors"))


@pytest.mark.ref
def test_files_of_torch_are_read_as_weights_only(tmp_path: Path) -> None:
    """Tensors become arrays; objects, cut files and tensors that claim more than they store are refused."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pt"
    torch.save({"rank": 0, "list": [torch.arange(3)]}, path)
    content = load_torch(path)
    assert content["rank"] == 0
    assert content["list"][0].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TraceError, match=r"a\.pt: found a damaged file"):
        load_torch(path)
    torch.save({"a": Fraction(1, 2)}, path)  # Megatron-LM allows paths where it is imported
    with pytest.raises(TraceError, match="which is not run"):
        load_torch(path)
    torch.save({"a": torch.zeros(1).expand(2**40)}, path)
    with pytest.raises(TraceError, match="a: found a tensor that stores fewer numbers"):
        load_torch(path)


def test_without_torch_its_files_are_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are never read in another way."""
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "a.pt").write_bytes(b"PK")
    with pytest.raises(TraceError, match=r"install torch .* or save the tensor with numpy\.save"):
        load_torch(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "value, message",
    [
        ([[1, 2], [3]], "lists of unequal lengths"),
        ([[1, -2]], r"x\[0\]\[1\]: found -2"),
        ([[1, 2.5]], r"x\[0\]\[1\]: found 2.5"),
        ([[1, float("nan")]], "found nan"),
        ([[1, 10**30]], "x: found .*, wanted whole numbers"),
        ([["a", 1]], "found 'a'"),
        ([[True, False]], "found True"),
        ([[None, 1]], "found None"),
        ([1, 2], r"shape \[2\], wanted \[a, b\]"),
        ([[]], "empty"),
        (7, "shape"),
        ("text", "shape"),
        (None, "shape"),
        ({"a": 1}, "shape"),
    ],
)
def test_what_are_no_counts_is_refused(value: Any, message: str) -> None:
    """With the place in the lists."""
    with pytest.raises(TraceError, match=message):
        whole_numbers("x", value, {2: "[a, b]"})


def test_slots_are_summed_to_their_experts() -> None:
    """Expert 0 has two slots, slot 3 is empty."""
    counts = np.array([[[1, 2, 4, 9]], [[10, 20, 40, 0]]])
    assert to_logical("x", counts, np.array([[0, 1, 0, -1]])).tolist() == [[[5, 2]], [[50, 20]]]
    with pytest.raises(TraceError, match="map"):
        to_logical("x", counts, np.array([[0, 1]]))
