"""Writes the damaged checkpoints and training states that the rows of wrong_calls.txt name, from
best.ckpt, last.ckpt and best-state.ckpt in the working folder. What is damaged behind a checksum gets a right CRC-32,
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


def flip(path, to, at):
    data = bytearray(read(path))
    data[at] ^= 1
    write(to, bytes(data))


best, last = read("best.ckpt"), read("last.ckpt")

# Files that are cut, longer, or another format altogether.
write("header-cut.ckpt", best[:1000])
write("data-cut.ckpt", best[:100000])
write("no-bytes.ckpt", b"")
write("zip.ckpt", b"PK\003\004 as torch.save writes it")
write("text.ckpt", b"These are notes, and no checkpoint.\n")
write("no-json.ckpt", pack(b"{'a': 1}"))
write("state-cut.ckpt", last[:-1000])

# The checksum.
flip("best.ckpt", "flipped.ckpt", -12345)
flip("best.ckpt", "flipped-text.ckpt", best.index(b"test_accuracy") + 17)
flip("last.ckpt", "state-flipped.ckpt", -12345)
change("best.ckpt", "no-sum.ckpt", pack, crc32=None)
change("best.ckpt", "kept-metadata.ckpt", pack, xxh3_128="0" * 32)  # as PyTorch may save it
change("best.ckpt", "escape.ckpt", pack, crc32=None, program="\x1b[31m\r\nred")

# Another network, as another program writes it: without the program's name and checksum.
write("no-tensors.ckpt", pack({}))
header, data = load("best.ckpt")
header["conv1.weight"]["shape"] = [12, 3, 25]
del header["__metadata__"]
write("other-shape.ckpt", pack(header, data))

# Numbers that no training leaves behind.
put("best.ckpt", "nan.ckpt", "conv1.weight", "<f", float("nan"), element=7)

# Training states.
put("last.ckpt", "state-step.ckpt", "run.step", "<q", 1)
put("last.ckpt", "state-adam.ckpt", "run.adam.step", "<q", 5)
put("last.ckpt", "state-stuck.ckpt", "run.random", "<625I", *[0] * 625)
put("last.ckpt", "state-counter.ckpt", "bn4.num_batches_tracked", "<q", 3)
put("last.ckpt", "state-best-steps.ckpt", "run.best.bn4.num_batches_tracked", "<q", 3)
write("state-best-length.ckpt", last)
for layer in 1, 2, 4, 5:
    put("state-best-length.ckpt", "state-best-length.ckpt", f"run.best.bn{layer}.num_batches_tracked", "<q", 3)
put("last.ckpt", "state-begun.ckpt", "run.loss.running", "<d", 1)
change("last.ckpt", "state-no-epochs.ckpt", epochs=None)
change("last.ckpt", "state-epochs.ckpt", epochs="many")
change("last.ckpt", "state-lr.ckpt", lr="nan")
change("last.ckpt", "state-device.ckpt", device="abacus")
change("last.ckpt", "state-precision.ckpt", precision="half")
change("last.ckpt", "state-average.ckpt", **{"recipe.average": "swa"})
change("last.ckpt", "state-ema.ckpt", **{"recipe.average": "ema"})
change("best-state.ckpt", "state-no-average.ckpt", **{"recipe.average": None})
put("best-state.ckpt", "state-nan-average.ckpt", "run.average.conv1.weight", "<f", float("nan"), element=7)
change("last.ckpt", "state-shift.ckpt", **{"recipe.shift": "32"})
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
change("best.ckpt", "odd-classes.ckpt", classes='["cat",""]')
change("best.ckpt", "few-classes.ckpt", classes='["cat","dog"]')
change("best.ckpt", "rude-classes.ckpt", classes='["\x1b[31m"]')
change("last.ckpt", "state-no-classes.ckpt", classes=None)
change("last.ckpt", "state-classes.ckpt", classes='["cat",""]')
