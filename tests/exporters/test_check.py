"""What ``--check`` says of files, and what it refuses to do for them."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import pickle
import resource
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from safetensors.numpy import save_file
from tflite.Model import Model

from ajpq.exporters.check import files_in, inspect
from ajpq.exporters.readers.content import plain
from ajpq.exporters.readers.protobuf import delimited, varint
from ajpq.exporters.seal import sealed, unsealed
from ajpq.reporting.inspected import print_inspection
from hw_models.errors import AjpqError
from tests.e2e.commands import command
from tests.exporters.samples import POLICY, archive, exported

PARTS = ["conv0", "conv1", "globalavgpool2", "flatten3", "linear4"]


def written(folder, content, name="file"):
    path = folder / name
    path.write_bytes(content)
    return path


def by_name(found):
    return {part.name: part for part in found.parts}


def test_onnx_by_layer(tmp_path):
    path = exported("onnx", tmp_path)
    found = inspect(path)
    graph = onnx.load(path).graph
    stored = {c.name: len(c.raw_data) for c in graph.initializer}
    assert found.format == "ONNX"
    assert [part.name for part in found.parts if part.name in PARTS] == PARTS
    assert sum(part.stored_bytes for part in found.parts) == sum(stored.values())
    for name in PARTS:
        nodes = [node for node in graph.node if node.name.startswith(f"{name}::")]
        own = {value for node in nodes for value in node.input} & stored.keys()
        assert by_name(found)[name].stored_bytes == sum(stored[value] for value in own)
        assert by_name(found)[name].kind == ", ".join(dict.fromkeys(n.op_type for n in nodes))
    assert "878 uint8" in by_name(found)["conv1"].constants  # 864 weights, 14 zero points
    assert found.facts["inputs"] == "input float32 [N, 3, 12, 12]"
    assert found.other_bytes == path.stat().st_size - sum(stored.values())


def test_tflite_by_layer(tmp_path):
    path = exported("tflite", tmp_path)
    found = inspect(path)
    model = Model.GetRootAs(path.read_bytes())
    graph = model.Subgraphs(0)
    operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
    assert found.format == "TensorFlow Lite"
    assert len(found.parts) == len(operators)
    for part, operator in zip(found.parts, operators, strict=True):
        tensors = [graph.Tensors(index) for index in operator.InputsAsNumpy()]
        assert part.stored_bytes == sum(model.Buffers(t.Buffer()).DataLength() for t in tensors)
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {part.kind for part in found.parts}
    assert any("864 int8, 12 int32" in part.constants for part in found.parts)


def test_packed_by_layer(tmp_path):
    path = exported("packed", tmp_path)
    found = inspect(path)
    assert [part.name for part in found.parts] == PARTS
    rows = "3 x pruned, 3 x 3 bit, 2 x 4 bit"
    assert by_name(found)["conv0"].constants == rows
    assert sum(p.stored_bytes for p in found.parts) + found.other_bytes == path.stat().st_size
    assert found.other_bytes > 0


def test_policy(tmp_path):
    found = inspect(exported("policy", tmp_path))
    assert found.facts["hash"] == POLICY.hash
    assert by_name(found)["conv"].constants == "8 x 4 bit"


def test_a_policy_without_a_hash_is_told(tmp_path):
    path = written(tmp_path, b'{"schema_version": 1, "layers": {"a": {"weight_bits": [4]}}}')
    assert "not sealed" in inspect(path).integrity


def test_weights(tmp_path):
    save_file({"a": np.zeros((2, 3), "f4"), "b": np.ones(5, "i1")}, tmp_path / "w")
    found = inspect(tmp_path / "w")
    assert found.format == "safetensors weights"
    assert {name: part.stored_bytes for name, part in by_name(found).items()} == {"a": 24, "b": 5}
    assert "not sealed" in found.integrity


def test_an_unsealed_file_is_told(tmp_path):
    path = exported("onnx", tmp_path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    found = inspect(path)
    assert "not sealed" in found.integrity
    assert "policy" not in found.stated


def one_node(tensor, **attributes):
    node = helper.make_node("Conv", ["x", tensor.name], ["y"], "conv", **attributes)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [tensor])
    return helper.make_model(graph)


def external(tensor):
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")
    return tensor


def test_tensors_in_other_files_are_refused(tmp_path):
    weights = numpy_helper.from_array(np.ones((2, 2), "f4"), "w")
    assert inspect(written(tmp_path, one_node(weights).SerializeToString())).parts
    hidden = external(numpy_helper.from_array(np.ones((2, 2), "f4"), "v"))
    inner = one_node(external(numpy_helper.from_array(np.ones((2, 2), "f4"), "u"))).graph
    for model in (one_node(hidden), one_node(weights, value=hidden), one_node(weights, g=inner)):
        with pytest.raises(AjpqError, match="in other files"):
            inspect(written(tmp_path, model.SerializeToString()))


def test_a_shape_that_does_not_fit_its_bytes_is_refused(tmp_path):
    weights = numpy_helper.from_array(np.ones((2, 2), "f4"), "w")
    weights.dims[0] = 1 << 40
    with pytest.raises(AjpqError, match="cannot be in a file"):
        inspect(written(tmp_path, one_node(weights).SerializeToString()))
    weights.dims[0] = 3
    with pytest.raises(AjpqError, match="16 bytes for 6 values"):
        inspect(written(tmp_path, one_node(weights).SerializeToString()))


def test_pickles_are_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    with pytest.raises(AjpqError, match="pickle"):
        inspect(written(tmp_path, pickle.dumps(Trap())))
    found = inspect(written(tmp_path, archive({"m/data.pkl": pickle.dumps(Trap())})))
    assert "pickle" in found.format
    assert not (tmp_path / "sprung").exists()


def test_names_cannot_command_the_terminal(tmp_path):
    weights = numpy_helper.from_array(np.ones(2, "f4"), "w")
    model = one_node(weights)
    model.graph.node[0].name = "\x1b[2J\x1b]0;owned\x07" + 500 * "x"
    (part,) = inspect(written(tmp_path, model.SerializeToString())).parts
    assert part.name.isprintable()
    assert len(part.name) <= 120
    assert plain("a\nb\u202e") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


def printed(path):
    console = Console(file=io.StringIO(), width=200)
    print_inspection(inspect(path), console)
    return console.file.getvalue()


def test_what_a_file_claims_of_itself_is_told_as_a_claim(tmp_path):
    claims = {"integrity": "the file fits its seal", "format": "ONNX", "bytes": "1"}
    save_file({"a": np.zeros(2, "f4")}, tmp_path / "w", metadata=claims)
    found = inspect(tmp_path / "w")
    assert found.format == "safetensors weights"
    assert "not sealed" in found.integrity
    assert found.stated == claims
    lines = [line.strip() for line in printed(tmp_path / "w").splitlines()]
    assert [line for line in lines if line.startswith(("integrity", "format", "bytes"))] == [
        "format: safetensors weights",
        f"bytes: {(tmp_path / 'w').stat().st_size:,}",
        f"integrity: {found.integrity}",
    ]
    assert sorted(lines[-3:]) == sorted(f"states {key}: {value}" for key, value in claims.items())


def test_a_sealed_statement_is_a_claim_too(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported("onnx", tmp_path / "sound").read_bytes())
    path.write_bytes(sealed(unsealed(path.read_bytes()), {"inputs": "none", "integrity": "sure"}))
    found = inspect(path)
    assert found.facts["inputs"] == "input float32 [N, 3, 12, 12]"
    assert found.stated == {"inputs": "none", "integrity": "sure"}
    assert "states integrity: sure" in printed(path)


HOSTILE_TEXT = "\x1b[2J\r\n## owned [red]"


def test_foreign_text_cannot_command_the_terminal_when_it_is_printed(tmp_path):
    path = tmp_path / f"w{HOSTILE_TEXT}"
    header = {"a": {"dtype": "F32", "shape": [HOSTILE_TEXT, *range(500)], "data_offsets": [0, 4]}}
    head = json.dumps({"__metadata__": {HOSTILE_TEXT: HOSTILE_TEXT}, **header}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    (part,) = inspect(path).parts
    assert len(part.constants) <= 120
    shown = printed(path)
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert not any(line.startswith("## owned") for line in shown.splitlines())
    path.write_bytes(b"neither")
    refused = command("export", "--check", path)
    assert refused.returncode == 2
    assert "\x1b" not in refused.stderr


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"hello world", b"GIF89a", b"{}", b"[1]"])
def test_other_files_are_refused(content, tmp_path):
    with pytest.raises(AjpqError, match="file"):
        inspect(written(tmp_path, content))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing"):
        with pytest.raises(AjpqError, match=name):
            inspect(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AjpqError, match="found 0"):
        files_in(tmp_path / "empty")


def test_a_folder_is_checked_file_by_file(tmp_path):
    paths = [exported(name, tmp_path) for name in ("onnx", "policy")]
    (tmp_path / "README.md").write_text("a card")
    assert files_in(tmp_path) == sorted(paths)


# --- files that claim more than they hold ---------------------------------------------------------


def crowd(
    graphs=1, operators=1, tensors=1, inputs=0, *, repeated=False, dims=0, buffers=0
) -> bytes:
    """A TensorFlow Lite file of equal graphs that share their list of operators, which share their
    list of inputs. Where they are ``repeated``, the lists name one graph and one operator only;
    tensors always are.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)

    def table(slots):
        builder.StartObject(8)
        for slot, offset in slots.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return builder.EndObject()

    def vector(offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def tables(count, slots):
        return vector([table(slots)] * count if repeated else [table(slots) for _ in range(count)])

    of_inputs = builder.CreateNumpyVector(np.zeros(inputs, np.int32))
    of_dims = builder.CreateNumpyVector(np.ones(dims, np.int32))
    of_tensors = vector([table({0: of_dims} if dims else {})] * tensors)
    of_operators = tables(operators, {1: of_inputs} if inputs else {})
    of_graphs = tables(graphs, {0: of_tensors, 3: of_operators})
    of_codes = vector([table({})])
    of_buffers = vector([table({0: builder.CreateByteVector(b"x")})] * buffers)
    builder.Finish(table({1: of_codes, 2: of_graphs, 4: of_buffers}), file_identifier=b"TFL3")
    return bytes(builder.Output())


CROWDS = {
    "one list of inputs": {"operators": 2_000, "inputs": 10_000},
    "one operator": {"operators": 2_000, "repeated": True},
    "one graph": {"graphs": 2_000, "repeated": True},
    "one graph of one operator": {"graphs": 200_000, "operators": 200_000, "repeated": True},
    "one list of operators": {"graphs": 2_000, "operators": 20_000},
    "one list of tensors": {"graphs": 2_000, "operators": 0, "tensors": 200_000},
}


@pytest.mark.parametrize("name", CROWDS)
def test_lists_that_are_shared_to_take_time_are_refused(name, tmp_path):
    path = written(tmp_path, crowd(**CROWDS[name]))
    start = time.process_time()
    with pytest.raises(AjpqError, match="share lists"):
        inspect(path)
    assert time.process_time() - start < 5


def test_a_crowd_that_shares_nothing_is_read(tmp_path):
    found = inspect(written(tmp_path, crowd(operators=2_000)))
    assert len(found.parts) == 2_000


def test_the_fields_of_a_whole_file_are_counted(tmp_path):
    with pytest.raises(AjpqError, match="more than 500,000 fields"):
        inspect(written(tmp_path, onnx_of_fields(b"\x0a\0", 6)))
    with pytest.raises(AjpqError, match="fields in one message"):
        inspect(written(tmp_path, onnx_of_fields(b"\x0a\0" * 3, 1)))


def test_a_long_statement_is_refused(tmp_path):
    def with_statement(size):
        statement = b'{"made by": "%s"}' % (b"x" * size)
        entry = delimited(14, delimited(1, b"ajpq") + delimited(2, statement))
        return b"\x08\x08" + delimited(7, delimited(1, b"")) + entry

    with pytest.raises(AjpqError, match="its seal is broken"):
        inspect(written(tmp_path, with_statement(60_000)))
    with pytest.raises(AjpqError, match=r"longer than 65,536 bytes"):
        inspect(written(tmp_path, with_statement(70_000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a":' * 70 + b"1" + b"}" * 70, "levels deep"),
        (b'{"a":' * 100_000, "levels deep"),
        (b"{%s}" % b",".join(b'"%x": 1' % number for number in range(50_001)), "50,000 keys"),
        (b"{", "no policy"),
        (b'{"a": "\xff"}', "no policy"),
    ],
)
def test_a_policy_is_read_within_the_limits_of_json(tmp_path, content, message):
    with pytest.raises(AjpqError, match=message):
        inspect(written(tmp_path, content))


def deep_graphs() -> bytes:
    graph = b""
    for _ in range(2000):
        graph = delimited(1, delimited(5, delimited(6, graph)))
    return delimited(7, graph)


def onnx_of_fields(field: bytes, nodes: int) -> bytes:
    """A model of so many nodes with 100,000 times ``field`` each."""
    node = delimited(1, field * 100_000)
    return b"\x08\x08" + delimited(7, node * nodes)


HOSTILE = {
    "many nodes of many fields": lambda: onnx_of_fields(b"\x0a\0", 200),
    "many nodes of many attributes": lambda: onnx_of_fields(b"\x2a\0", 200),
    "many keys of a policy": lambda: (
        b'{"layers": {%s}}' % b",".join(b'"%x": {}' % number for number in range(500_000))
    ),
    "many empty nodes": lambda: delimited(7, b"\x0a\0" * 20_000_000),
    "a long varint": lambda: b"\x08" + b"\xff" * 1_000_000,
    "a length beyond the file": lambda: b"\x3a" + varint(1 << 60),
    "graphs in graphs": deep_graphs,
    **{name: functools.partial(crowd, **shape) for name, shape in CROWDS.items()},
    "a shape of a million lengths": functools.partial(crowd, dims=1_000_000, inputs=1, buffers=1),
    "a zip bomb": lambda: archive({"a": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
    "a deep JSON": lambda: b'{"a":' + b"[" * 1_000_000,
    "a long JSON number": lambda: b'{"schema_version": ' + b"1" * 1_000_000 + b"}",
    "many JSON values": lambda: (
        b'{"layers": {"a": {"weight_bits": [' + b"9," * 1_000_000 + b"9]}}}"
    ),
    "a safetensors header": lambda: (1 << 40).to_bytes(8, "little") + b"{" + bytes(100),
    "a vector beyond the file": lambda: b"\x10\0\0\0TFL3" + b"\xff" * 64,
}


def _within_bounds(paths, answers):
    """In a process of its own: half a gigabyte more than it has."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (1 << 29)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in paths:
        start = time.process_time()
        try:
            inspect(path)
            message = "taken"
        except AjpqError as error:
            message = str(error)
        answers.put((path.name, message, time.process_time() - start))


def test_hostile_files_take_little_memory_and_time(tmp_path):
    paths = [written(tmp_path, make(), name) for name, make in HOSTILE.items()]
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_within_bounds, args=(paths, answers))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    told = [answers.get() for _ in paths]
    taken = [name for name, message, _ in told if message == "taken" or "MemoryError" in message]
    assert taken == []
    assert [name for name, _, seconds in told if seconds > 5] == []


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "policy.json", "journal.jsonl"])
@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"null", b'{"a": 1}'])
def test_run_folders_that_are_none_are_refused(name, content, tmp_path):
    (tmp_path / "config.yaml").write_text("kind: search\nfinal: [{keep: 1, recipe: {name: a}}]\n")
    (tmp_path / "result.json").write_text('{"found": {}, "policy": 3}')
    (tmp_path / "policy.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AjpqError):
        inspect(tmp_path)
