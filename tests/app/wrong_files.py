"""Writes the damaged checkpoints and training states that the rows of wrong_calls.txt name, from
best.ckpt and last.ckpt in the working folder. What is damaged behind a checksum gets a right CRC-32,
which is all that older files have, so that the checks behind it are reached."""
import json
import struct
import zlib


def load(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"].pop("xxh3_128", None)
    return header, data[8 + length :]


def pack(header, data, seal=True):
    """The bytes of a file; seal: with a right checksum, as the program computes it."""
    if seal:
        header["__metadata__"]["crc32"] = "00000000"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + data
    if seal:
        whole = whole.replace(b'"crc32":"00000000"', b'"crc32":"%08x"' % zlib.crc32(whole))
    return whole


def write(path, whole):
    with open(path, "wb") as file:
        file.write(whole)


def change(path, to, seal=True, **changes):
    """Writes `path` as `to` with other metadata (None: without that key)."""
    header, data = load(path)
    for key, value in changes.items():
        header["__metadata__"].pop(key, None)
        if value is not None:
            header["__metadata__"][key] = value
    write(to, pack(header, data, seal))


def put(path, to, tensor, format, value, element=0):
    """Writes `path` as `to` with another number in a tensor."""
    header, data = load(path)
    at = header[tensor]["data_offsets"][0] + element * struct.calcsize(format)
    new = struct.pack(format, value)
    write(to, pack(header, data[:at] + new + data[at + len(new) :]))


def entry(to, tensor, seal=True, **fields):
    """Writes best.ckpt as `to` with other fields in a tensor's entry of the header."""
    header, data = load("best.ckpt")
    header[tensor].update(fields)
    for field in [key for key, value in fields.items() if value is None]:
        del header[tensor][field]
    write(to, pack(header, data, seal))


def rename(header, tensor, to):
    return {(to if name == tensor else name): value for name, value in header.items()}


def flip(path, to, at):
    data = bytearray(open(path, "rb").read())
    data[at] ^= 1
    write(to, bytes(data))


best, last = open("best.ckpt", "rb").read(), open("last.ckpt", "rb").read()
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
write("list.ckpt", struct.pack("<Q", 8) + b"[1,2,3] ")
write("no-json.ckpt", struct.pack("<Q", 8) + b"{'a': 1}")
write("state-cut.ckpt", last[:-1000])
write("state-header-cut.ckpt", last[:500])

# The checksum.
flip("best.ckpt", "flipped.ckpt", -12345)
flip("best.ckpt", "flipped-text.ckpt", best.index(b"test_accuracy") + 17)
flip("last.ckpt", "state-flipped.ckpt", -12345)
change("best.ckpt", "wrong-sum.ckpt", seal=False, crc32="01234567")
change("best.ckpt", "short-sum.ckpt", seal=False, crc32="0")
change("best.ckpt", "no-sum.ckpt", seal=False, crc32=None)
change("last.ckpt", "state-no-sum.ckpt", seal=False, crc32=None)
change("best.ckpt", "other-sum.ckpt", xxh3_128="0" * 32)
change("best.ckpt", "kept-metadata.ckpt", seal=False, xxh3_128="0" * 32) # as PyTorch may save it
change("best.ckpt", "escape.ckpt", seal=False, crc32=None, program="\x1b[31m\r\nred")

# The header.
entry("dtype.ckpt", weight, dtype="F33")
entry("no-dtype.ckpt", weight, dtype=None)
entry("shape.ckpt", weight, shape=[-1])
entry("no-shape.ckpt", weight, shape=None)
entry("no-offsets.ckpt", weight, data_offsets=[0])
entry("offsets.ckpt", weight, data_offsets=[0, 1 << 40])
entry("bytes.ckpt", weight, shape=[1 << 40, 1 << 40])
write("metadata.ckpt", pack({**header, "__metadata__": {"epoch": 1}}, data, seal=False))
write("long-tensor.ckpt", pack(rename(header, weight, "x" * 300), data))
begin, end = header[weight]["data_offsets"]
other = next(name for name, value in header.items() if value.get("shape") == [12])
moved = {"dtype": "F32", "shape": [12], "data_offsets": [begin, begin + 48]}
write("overlap.ckpt", pack({**header, other: moved}, data))
write("gap.ckpt", pack({name: value for name, value in header.items() if name != weight}, data))

# Another network, as another program writes it: without the program's name and checksum.
foreign = {name: value for name, value in header.items() if name != "__metadata__"}
write("no-tensors.ckpt", pack({}, b"", seal=False))
shape = {**foreign, weight: {**foreign[weight], "shape": [12, 3, 25]}}
write("other-shape.ckpt", pack(shape, data, seal=False))
dtype = {**foreign, weight: {**foreign[weight], "dtype": "I32"}}
write("other-dtype.ckpt", pack(dtype, data, seal=False))
write("other-name.ckpt", pack(rename(foreign, weight, "conv9.weight"), data, seal=False))
size = len(data)
added = {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]}
write("tensor-more.ckpt", pack({**foreign, "conv9.weight": added}, data + bytes(4), seal=False))

# Numbers that no training leaves behind.
put("best.ckpt", "nan.ckpt", weight, "<f", float("nan"), 7)
put("best.ckpt", "infinite.ckpt", weight, "<f", float("-inf"))
put("best.ckpt", "variance.ckpt", variance, "<f", -1)
put("best.ckpt", "counter.ckpt", counter, "<q", -1)

# Training states.
put("last.ckpt", "state-nan.ckpt", "run.exp_avg." + weight, "<f", float("nan"))
put("last.ckpt", "state-square.ckpt", "run.exp_avg_sq." + weight, "<f", -1)
put("last.ckpt", "state-epoch.ckpt", "run.epoch", "<q", 0)
put("last.ckpt", "state-step.ckpt", "run.step", "<q", 1)
put("last.ckpt", "state-adam.ckpt", "run.adam.step", "<q", 5)
put("last.ckpt", "state-random.ckpt", "run.random", "<I", 625, 624)
write("state-stuck.ckpt", pack(state_header, b"".join(
    bytes(end - begin) if name == "run.random" else state[begin:end]
    for begin, end, name in sorted((*value["data_offsets"], name)
                                   for name, value in state_header.items() if name != "__metadata__"))))
put("last.ckpt", "state-counter.ckpt", "bn4.num_batches_tracked", "<q", 3)
put("last.ckpt", "state-best-steps.ckpt", "run.best.bn4.num_batches_tracked", "<q", 3)
best_of_another_length = bytearray(state)
for name, value in state_header.items():
    if name.startswith("run.best.") and name.endswith(".num_batches_tracked"):
        best_of_another_length[slice(*value["data_offsets"])] = struct.pack("<q", 3)
write("state-best-length.ckpt", pack(state_header, bytes(best_of_another_length)))
put("last.ckpt", "state-begun.ckpt", "run.loss.running", "<d", 1)
put("last.ckpt", "state-total.ckpt", "run.loss.total", "<d", -1)
put("last.ckpt", "state-best.ckpt", "run.best.epoch", "<q", 3)
put("last.ckpt", "state-accuracy.ckpt", "run.best.accuracy", "<d", 101)
write("state-no-adam.ckpt", pack(rename(state_header, "run.adam.step", "run.x"), state))
size = len(state)
added = {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]}
write("state-more.ckpt", pack({**state_header, "run.x": added}, state + bytes(4)))
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
