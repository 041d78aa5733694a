"""Counts by layer and expert are read from what serving engines and people write, and wrong files are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import ParameterError
from moesim.workload import read_counts

COUNTS = [[5.0, 3.0, 1.0, 0.0], [2.0, 2.0, 2.0, 9.0]]
ROWS = [(layer, expert, COUNTS[layer][expert]) for layer in (0, 1) for expert in range(4)]
LONG = "layer,expert,count\n" + "".join(f"{layer},{expert},{count:g}\n" for layer, expert, count in ROWS)


def read(path: Path, content: object, n_layers: int = 2, moe_layers: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """What is read of four experts when this content is in the file."""
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return read_counts(path, n_layers=n_layers, moe_layers=moe_layers, n_experts=4)[0]


GOOD = {
    "json of SGLang": ("a.json", {"rank": 0, "logical_count": COUNTS}),
    "json, steps": ("a.json", {"logical_count": [[[1, 1, 0, 0], [2, 0, 1, 4]], [[4, 2, 1, 0], [0, 2, 1, 5]]]}),
    "json, lists alone": ("a.json", COUNTS),
    "json, packed": ("a.json.gz", {"logical_count": COUNTS}),
    "json, dense layers of zeros": ("a.json", {"logical_count": [[0] * 4, COUNTS[0], [0] * 4, COUNTS[1]]}),
    "npy": ("a.npy", np.array(COUNTS, dtype=np.int64)),
    "npy, steps": ("a.npy", np.array([COUNTS, np.zeros((2, 4))])),
    "csv, matrix": ("a.csv", "5,3,1,0\n2,2,2,9\n"),
    "csv, rows": ("a.csv", LONG),
    "csv, rows in another order, packed": (
        "a.CSV.gz",
        "count, layer_id ,expert_id\n" + "5,3,0\n3,3,1\n1,3,2\n2,7,0\n2,7,1\n2,7,2\n9,7,3",
    ),
    "csv, rows that occur twice": ("a.csv", LONG.replace("1,3,9", "1,3,4\n1,3,5")),
}


@pytest.mark.parametrize("name", GOOD)
def test_counts_are_read(tmp_path: Path, name: str) -> None:
    """The same counts, however they are written."""
    file, content = GOOD[name]
    np.testing.assert_array_equal(read(tmp_path / file, content), COUNTS)


@pytest.mark.parametrize("content", [("a.npy", np.array(COUNTS[0])), ("a.csv", "5,3,1,0"), ("a.json", COUNTS[0])])
def test_counts_of_experts_alone_are_those_of_every_layer(tmp_path: Path, content: tuple[str, object]) -> None:
    """[E] and a matrix of one row."""
    np.testing.assert_array_equal(read(tmp_path / content[0], content[1]), [COUNTS[0], COUNTS[0]])


def test_of_rows_for_all_layers_those_of_the_moe_layers_are_taken(tmp_path: Path) -> None:
    """Where the dense ones have counts too."""
    rows = [[1, 1, 1, 1], COUNTS[0], [1, 1, 1, 2], COUNTS[1]]
    np.testing.assert_array_equal(read(tmp_path / "a.json", rows, 4, (1, 3)), COUNTS)


BAD = {
    "another shape": ("a.json", [[1, 2, 3]] * 2, "2 layers with counts of 3 experts, wanted 2 layers of 4 experts"),
    "another number of layers": ("a.json", [[1, 2, 3, 4]] * 3, "3 layers .* wanted 2 layers of 4 experts"),
    "a layer without counts": ("a.json", [[1, 2, 3, 4], [0] * 4], "1 layers with counts .* wanted counts in all 2"),
    "negative": ("a.npy", np.array([[1, 2, 3, -4]] * 2), "-4 among the counts, wanted finite numbers"),
    "NaN": ("a.csv", "1,2,3,nan\n1,2,3,4", "nan among the counts, wanted finite"),
    "infinite": ("a.npy", np.full((2, 4), np.inf), "inf among the counts"),
    "pickled": ("a.npy", np.array([[1, None, 3, 4]] * 2, dtype=object), "no plain array .* not pickled"),
    "words in npy": ("a.npy", np.array([["a"] * 4] * 2), "<U1 cells, wanted numbers"),
    "null": ("a.json", [[1, 2, 3, None]] * 2, "object cells, wanted numbers"),
    "ragged": ("a.json", [[1, 2], [3]], "rows of different lengths, wanted logical_count"),
    "ragged csv": ("a.csv", "1,2,3,4\n1,2", "different lengths, wanted rows under layer,expert,count"),
    "no key": ("a.json", {"physical_count": COUNTS}, "physical_count, wanted logical_count"),
    "no JSON": ("a.json", "{", "no JSON .* wanted logical_count"),
    "other columns": ("a.csv", "layer,tokens\n0,1", "columns layer, tokens, wanted rows under layer,expert,count"),
    "header alone": ("a.csv", "layer,expert,count\n", "a header alone"),
    "empty": ("a.csv", "", "no rows"),
    "half an expert": ("a.csv", "layer,expert,count\n0,0.5,1", "the layer or expert 0.5, wanted whole numbers"),
    "too many experts": ("a.csv", LONG + "1,4,1\n", "counts of 5 experts, wanted 2 layers of 4"),
    "four dimensions": ("a.npy", np.ones((1, 1, 2, 4)), r"the shape \[1, 1, 2, 4\], wanted \[layers, experts\]"),
    "another suffix": ("a.pt", "x", "another type of file, wanted one that ends in .json"),
    "npy packed": ("a.npy.gz", "x", "another type of file"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str) -> None:
    """What was found and what would be right."""
    file, content, message = BAD[name]
    with pytest.raises(ParameterError, match=message):
        read(tmp_path / file, content)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Absent, or packed by name alone."""
    (tmp_path / "a.json.gz").write_text("[[1]]")
    for name, message in (("absent.json", "No such file"), ("a.json.gz", "Not a gzipped file")):
        with pytest.raises(ParameterError, match=f"nothing readable .*{message}"):
            read_counts(tmp_path / name, n_layers=1, moe_layers=(0,), n_experts=1)
