"""Writes the damaged checkpoints and training states that the rows of wrong_calls.txt name, from
best.ckpt and last.ckpt in the working folder. What is damaged behind a checksum gets a right CRC-32,
which is all that older files have, so that the checks behind it are reached."""
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checkpoints import change, load, pack, read, seal, write


def put(path, to, tensor, format, *values, element=0):
    """Writes `path` as `to` with other numbers in a tensor."""
    header, data = load(path)
    new = struct.pack(format, *values)
    at = header[tensor]["data_offsets"][0] + element * len(new)
    write(to, seal(header, data[:at] + new + data[at + len(new) :]))


def entry(to, tensor, **fields):
    """Writes best.ckpt as `to` with other fields in a tensor's entry of the header (None: without that field)."""
    header, data = load("best.ckpt")
    header[tensor] = {key: value for key, value in {**header[tensor], **fields}.items() if value is not None}
    write(to, seal(header, data))


def rename(header, tensor, to):
    return {(to if name == tensor else name): value for name, value in header.items()}


def add(header, data, name):
    """The same with one more tensor, of one number."""
    size = len(data)
    return {**header, name: {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]}}, data + bytes(4)


def flip(path, to, at):
    data = bytearray(read(path))
    data[at] ^= 1
    write(to, bytes(data))


best, last = read("best.ckpt"), read("last.ckpt")
header, data = load("best.ckpt")
state_header, state = load("last.ckpt")
counter, weight, variance = "bn1.num_batches_tracked", "conv1.weight", "bn1.running_var"

# Files that are cut, longer, or another format altogether.
write("header-cut.ckpt", best[:1000])
write("data-cut.ckpt", best[:100000])
write("byte-short.ckpt", best[:-1])
write("byte-more.ckpt", best + b"\0")
write("no-bytes.ckpt", b"")
write("seven-bytes.ckpt", best[:7])
write("zip.ckpt", b"PK\003\004 as torch.save writes it")
write("text.ckpt", b"These are notes, and no checkpoint.\n")
write("huge-header.ckpt", b"\xff" * 8 + best[8:])
write("list.ckpt", pack(b"[1,2,3]"))
write("no-json.ckpt", pack(b"{'a': 1}"))
write("state-cut.ckpt", last[:-1000])
write("state-header-cut.ckpt", last[:500])

# The checksum.
flip("best.ckpt", "flipped.ckpt", -12345)
flip("best.ckpt", "flipped-text.ckpt", best.index(b"test_accuracy") + 17)
flip("last.ckpt", "state-flipped.ckpt", -12345)
change("best.ckpt", "wrong-sum.ckpt", pack, crc32="01234567")
change("best.ckpt", "short-sum.ckpt", pack, crc32="0")
change("best.ckpt", "no-sum.ckpt", pack, crc32=None)
change("last.ckpt", "state-no-sum.ckpt", pack, crc32=None)
change("best.ckpt", "other-sum.ckpt", xxh3_128="0" * 32)
change("best.ckpt", "kept-metadata.ckpt", pack, xxh3_128="0" * 32)  # as PyTorch may save it
change("best.ckpt", "escape.ckpt", pack, crc32=None, program="\x1b[31m\r\nred")

# The header.
entry("dtype.ckpt", weight, dtype="F33")
entry("no-dtype.ckpt", weight, dtype=None)
entry("shape.ckpt", weight, shape=[-1])
entry("no-shape.ckpt", weight, shape=None)
entry("no-offsets.ckpt", weight, data_offsets=[0])
entry("offsets.ckpt", weight, data_offsets=[0, 1 << 40])
entry("bytes.ckpt", weight, shape=[1 << 40, 1 << 40])
write("metadata.ckpt", pack({**header, "__metadata__": {"epoch": 1}}, data))
write("long-tensor.ckpt", seal(rename(header, weight, "x" * 300), data))
begin, end = header[weight]["data_offsets"]
other = next(name for name, value in header.items() if value.get("shape") == [12])
moved = {"dtype": "F32", "shape": [12], "data_offsets": [begin, begin + 48]}
write("overlap.ckpt", seal({**header, other: moved}, data))
write("gap.ckpt", seal({name: value for name, value in header.items() if name != weight}, data))

# Another network, as another program writes it: without the program's name and checksum.
foreign = {name: value for name, value in header.items() if name != "__metadata__"}
write("no-tensors.ckpt", pack({}, b""))
write("other-shape.ckpt", pack({**foreign, weight: {**foreign[weight], "shape": [12, 3, 25]}}, data))
write("other-dtype.ckpt", pack({**foreign, weight: {**foreign[weight], "dtype": "I32"}}, data))
write("other-name.ckpt", pack(rename(foreign, weight, "conv9.weight"), data))
write("tensor-more.ckpt", pack(*add(foreign, data, "conv9.weight")))

# Numbers that no training leaves behind.
put("best.ckpt", "nan.ckpt", weight, "<f", float("nan"), element=7)
put("best.ckpt", "infinite.ckpt", weight, "<f", float("-inf"))
put("best.ckpt", "variance.ckpt", variance, "<f", -1)
put("best.ckpt", "counter.ckpt", counter, "<q", -1)

# Training states.
put("last.ckpt", "state-nan.ckpt", "run.exp_avg." + weight, "<f", float("nan"))
put("last.ckpt", "state-square.ckpt", "run.exp_avg_sq." + weight, "<f", -1)
put("last.ckpt", "state-epoch.ckpt", "run.epoch", "<q", 0)
put("last.ckpt", "state-step.ckpt", "run.step", "<q", 1)
put("last.ckpt", "state-adam.ckpt", "run.adam.step", "<q", 5)
put("last.ckpt", "state-random.ckpt", "run.random", "<I", 625, element=624)
put("last.ckpt", "state-stuck.ckpt", "run.random", "<625I", *[0] * 625)
put("last.ckpt", "state-counter.ckpt", "bn4.num_batches_tracked", "<q", 3)
put("last.ckpt", "state-best-steps.ckpt", "run.best.bn4.num_batches_tracked", "<q", 3)
write("state-best-length.ckpt", last)
for layer in 1, 2, 4, 5:
    put("state-best-length.ckpt", "state-best-length.ckpt", f"run.best.bn{layer}.num_batches_tracked", "<q", 3)
put("last.ckpt", "state-begun.ckpt", "run.loss.running", "<d", 1)
put("last.ckpt", "state-total.ckpt", "run.loss.total", "<d", -1)
put("last.ckpt", "state-best.ckpt", "run.best.epoch", "<q", 3)
put("last.ckpt", "state-accuracy.ckpt", "run.best.accuracy", "<d", 101)
write("state-no-adam.ckpt", seal(rename(state_header, "run.adam.step", "run.x"), state))
write("state-more.ckpt", seal(*add(state_header, state, "run.x")))
change("last.ckpt", "state-no-epochs.ckpt", epochs=None)
change("last.ckpt", "state-epochs.ckpt", epochs="many")
change("last.ckpt", "state-lr.ckpt", lr="nan")
change("last.ckpt", "state-device.ckpt", device="abacus")
change("last.ckpt", "state-precision.ckpt", precision="half")
change("last.ckpt", "state-no-data.ckpt", data_fingerprint=None)
change("last.ckpt", "state-model.ckpt", model="text.ckpt")
change("last.ckpt", "state-log.ckpt", log="text.ckpt")
change("last.ckpt", "state-device-file.ckpt", model="/dev/loop0")
change("last.ckpt", "state-above.ckpt", model="../x")
change("last.ckpt", "state-root.ckpt", log="/x")
change("last.ckpt", "state-link.ckpt", log="out-link/x")
change("last.ckpt", "state-linked.ckpt", model="out-file")
change("last.ckpt", "sub/state-no-model.ckpt", model=None)
change("last.ckpt", "state-dangling.ckpt", model="dangling")
change("last.ckpt", "sub/state.ckpt", model="../sub2/x")
change("last.ckpt", "state-pipe.ckpt", log="pipe")
change("last.ckpt", "state-escape.ckpt", model="a\x1b[31m")
change("last.ckpt", "state-c1.ckpt", data="a\u009b31m")
change("best.ckpt", "other-run.ckpt", run="00000000")
change("best.ckpt", "no-classes.ckpt", classes=None)
change("best.ckpt", "few-classes.ckpt", classes='["cat","dog"]')
change("best.ckpt", "rude-classes.ckpt", classes='["\x1b[31m"]')
change("last.ckpt", "state-no-classes.ckpt", classes=None)
change("last.ckpt", "state-classes.ckpt", classes='["cat","dog"]')
