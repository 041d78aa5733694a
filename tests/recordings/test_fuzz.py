"""Damaged recordings: one sentence that names the file, and nothing written."""

from __future__ import annotations

import gzip
import io
import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moesim.errors import TraceError
from moesim.recordings import import_recordings, read_trace
from tests.recordings.engine_files import trtllm_folder
from tests.recordings.samples import SAMPLES

RUBBISH = st.binary(max_size=300)
ODD_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        -(2**63),
        2**31,
        2**63,
        10**400,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\x00",
        [],
        [[]],
        {},
        [[1], 2],
    ]
)


def error_of(path: Path, out: Path) -> str | None:
    """What the error of an import says, in one line and with nothing written; None of one that succeeds."""
    try:
        import_recordings([path], out)
    except TraceError as error:
        said = str(error)
    else:
        read_trace(out)
        return None
    assert "\n" not in said
    assert len(said) < 600
    assert not out.exists()
    return said


def attempt(name: str, content: bytes) -> None:
    """Import a file of these bytes: it succeeds, or the error is one line that names the file; nothing else is left."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, name), Path(folder, "out.parquet")
        path.write_bytes(content)
        said = error_of(path, out)
        assert said is None or name in said
        assert {each.name for each in Path(folder).iterdir()} <= {name, "out.parquet"}


def test_whole_samples_are_imported(tmp_path: Path) -> None:
    """Each as the layout that it is named for; otherwise the tests below would prove little."""
    for kind, (name, content) in SAMPLES.items():
        (tmp_path / name).write_bytes(content)
        report = import_recordings([tmp_path / name], tmp_path / f"{kind}.parquet")
        assert kind.startswith(report.layout), kind


@pytest.mark.parametrize(
    "kind", [kind for kind, (name, _) in SAMPLES.items() if "json" in name or name[-3:] in ("csv", "bin")]
)
def test_samples_may_be_compressed(tmp_path: Path, kind: str) -> None:
    """What gzip packed is read as it is, whatever its name ends in."""
    name, content = SAMPLES[kind]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    whole, packed = (import_recordings([tmp_path / each], tmp_path / "out.parquet") for each in (name, "packed"))
    assert whole == packed


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=25)
@given(data=st.data())
def test_cut_and_flipped_files(kind: str, data: st.DataObject) -> None:
    """Cut anywhere, with a run of bytes replaced, as it is or compressed."""
    name, content = SAMPLES[kind]
    cut = data.draw(st.integers(0, len(content)))
    rubbish = data.draw(RUBBISH)
    change = data.draw(st.sampled_from(["cut", "replace", "insert"]))
    attempt(name, damaged(content, cut, rubbish, change))


def damaged(content: bytes, cut: int, rubbish: bytes, change: str) -> bytes:
    """Bytes that are cut, or have others in them."""
    if change == "cut":
        return content[:cut]
    return content[:cut] + rubbish + content[cut + len(rubbish) * (change == "replace") :]


@settings(max_examples=40)
@given(cut=st.integers(0, 700), rubbish=RUBBISH, change=st.sampled_from(["cut", "replace", "insert"]))
@pytest.mark.parametrize("damages", ["rank0.safetensors", "rank1.safetensors", "meta_info.json"])
def test_damaged_statistics_of_tensorrt_llm(damages: str, cut: int, rubbish: bytes, change: str) -> None:
    """A folder of files; the error names the one that is damaged, or all of them read."""
    with tempfile.TemporaryDirectory() as folder:
        counts = {"100_3": [1, 2, 3], "100_4": [1, 0, 0]}
        path = trtllm_folder(Path(folder, "s"), [counts, counts], 3)
        (path / damages).write_bytes(damaged((path / damages).read_bytes(), cut, rubbish, change))
        said = error_of(path, Path(folder, "out.parquet"))
        assert said is None or str(path) in said


@pytest.mark.ref
@settings(max_examples=60)
@given(cut=st.integers(0, 2500), rubbish=RUBBISH, change=st.sampled_from(["cut", "replace", "insert"]))
def test_damaged_files_of_torch(cut: int, rubbish: bytes, change: str) -> None:
    """Of SGLang's recorder."""
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    record = {"forward_pass_id": 1, "global_physical_count": torch.ones(2, 3, dtype=torch.int32)}
    torch.save({"records": [record], "last_physical_to_logical_map": torch.tensor([[0, 1, 0]] * 2)}, file)
    attempt("a.pt", damaged(file.getvalue(), cut, rubbish, change))


def changed(value: Any, path: list[int], odd: Any) -> Any:
    """Nested data with the value at a path replaced."""
    if not path or not isinstance(value, dict | list) or not value:
        return odd
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copied = value.copy()
    copied[key] = changed(value[key], path[1:], odd)
    return copied


TEXTS = {kind: sample for kind, sample in SAMPLES.items() if sample[0].endswith(("json", "jsonl"))}


@pytest.mark.parametrize("kind", TEXTS)
@settings(max_examples=40)
@given(path=st.lists(st.integers(0, 20), max_size=5), odd=ODD_VALUES, line=st.integers(0, 20))
def test_wrong_values_anywhere_in_json(kind: str, path: list[int], odd: Any, line: int) -> None:
    """Wrong types, huge numbers, negative ids, ids beyond the model, NaN weights."""
    name, content = TEXTS[kind]
    texts = content.decode().splitlines()
    at = line % len(texts)
    texts[at] = json.dumps(changed(json.loads(texts[at]), path, odd))
    attempt(name, ("\n".join(texts) + "\n").encode())


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.npy", "a.npz", "a.pt", "a.bin", "a.parquet", "a.gz", "a"]
)
@settings(max_examples=15)
@given(content=RUBBISH)
@example(b"")
@example(b"\x00" * 100)
@example(b"PK\x03\x04" + b"\xff" * 50)
@example(b"PAR1" + b"\xff" * 50 + b"PAR1")
@example(b"\x93NUMPY\x01\x00\xff\xff")
@example(b"\x1f\x8b\x08\x00" + b"\xff" * 50)
@example(b"\x80\x02]q\x00.")
@example(b"\xff\xfe{\x00")
@example(b"[" * 100_000)
@example(b'{"logical_count": ' + b"[" * 100_000)
@example(b"1" * 10_000)
def test_rubbish_of_any_name(name: str, content: bytes) -> None:
    """Never a traceback, never an error of a codec."""
    attempt(name, content)


@pytest.mark.parametrize("name", ["a.jsonl", "a.npz", "a.pt", "a.parquet", "a.safetensors", "a.json.gz"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    """Whatever the file should have been."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(TraceError, match=rf"{name}: .*Git LFS pointer.*git lfs pull"):
        import_recordings([tmp_path / name], tmp_path / "out.parquet")


@pytest.mark.parametrize("kind", TEXTS)
def test_cut_gzip_files_are_named(tmp_path: Path, kind: str) -> None:
    """Where the download broke off."""
    name, content = TEXTS[kind]
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(content * 1, mtime=0)[:-9])
    with pytest.raises(TraceError, match=rf"{name}\.gz"):
        import_recordings([path], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


BOMBS = [
    ("a.jsonl.gz", b'{"problem_id": 0, "token_idx": 0, "layer": 0, "experts": [', b"1, "),
    ("a.jsonl.gz", b'{"record_type": "eplb_load_stats", "step": 1, "expert_load": [[', b"1, "),
    ("a.jsonl.gz", b'{"schema": "simllm-preplay-trace-v1", "provenance": "', b"x"),
    ("a.json.gz", b'{"logical_count": [[', b"1, "),
    ("a.json.gz", b'{"logical_count": ', b"["),
    ("a.json.gz", b'{"choices": [{"routed_experts": "', b"A"),
    ("a.csv.gz", b"layer,expert\n", b"1"),
    ("a.csv.gz", b"layer_id,expert_ids\n1,", b"2 "),
    ("a.csv.gz", b"layer,expert,count\n", b"1"),
    ("a.csv.gz", b"Step,x_layer0_expert0\n", b" "),
    ("a.gz", b"", b"\x00"),
]
"""Name, beginning and what follows without end."""


@pytest.mark.slow
@pytest.mark.parametrize("name, start, filling", BOMBS)
def test_a_bomb_takes_bounded_memory(tmp_path: Path, name: str, start: bytes, filling: bytes) -> None:
    """Above a gigabyte of one line in a few megabytes: equal members, one after the other."""
    path = tmp_path / name
    block = gzip.compress(filling * ((1 << 22) // len(filling)), compresslevel=1, mtime=0)
    path.write_bytes(gzip.compress(start) + block * 260)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TraceError, match=r"a[.\w]*\.gz"):
        import_recordings([path], tmp_path / "out.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000
