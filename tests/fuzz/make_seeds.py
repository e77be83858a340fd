#!/usr/bin/env python3
"""Writes a seed corpus and, where one helps, a dictionary for each fuzz target.

    make_seeds.py FOLDER      writes FOLDER/TARGET/* and FOLDER/TARGET.dict
"""
import json
import math
import pathlib
import struct
import sys
import zlib

sys.dont_write_bytecode = True
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from checkpoints import pack, text_of

folder = pathlib.Path(sys.argv[1])


def write(target, name, content):
    path = folder / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_dictionary(target, words):
    def quoted(word):
        return "".join(c if c.isascii() and c.isalnum() or c in "_.-=/,:{}[] " else f"\\x{ord(c):02x}" for c in word)

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{target}.dict").write_text("".join(f'"{quoted(word)}"\n' for word in words))


# ---- checkpoints: the input's form is told in checkpoint_fuzz.c ----

RESUME, HEADER_ONLY, PATCHES_AT = 1, 2, 2
SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
         "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}


# the network, as small as the target makes it
NETWORK = []
for layer in "1245":
    NETWORK += [(f"conv{layer}.weight", "F32", [2, 2, 2, 2]), (f"conv{layer}.bias", "F32", [2])]
    NETWORK += [(f"bn{layer}.{part}", "F32", [2])
                for part in ("weight", "bias", "running_mean", "running_var")]
    NETWORK += [(f"bn{layer}.num_batches_tracked", "I64", [])]
NETWORK += [("fc1.weight", "F32", [2, 2]), ("fc1.bias", "F32", [2])]
PARAMETERS = [t for t in NETWORK if t[0].endswith((".weight", ".bias"))]
NUMBERS = [("adam.step", "I64", []), ("random", "U32", [625]), ("epoch", "I64", []),
           ("step", "I64", []), ("loss.total", "F64", []), ("loss.running", "F64", []),
           ("best.epoch", "I64", [])]
BEST = [("best.accuracy", "F64", []), ("best.loss", "F64", [])] + \
       [(f"best.{name}", dtype, shape) for name, dtype, shape in NETWORK]
STATE = NETWORK + [(f"run.{name}", dtype, shape) for name, dtype, shape in
                   [(f"exp_avg.{name}", d, s) for name, d, s in PARAMETERS] +
                   [(f"exp_avg_sq.{name}", d, s) for name, d, s in PARAMETERS] + NUMBERS]
STATE_BEST = STATE + [(f"run.{name}", dtype, shape) for name, dtype, shape in BEST]

OURS = {"program": "cifar-train 0.1.0", "crc32": "00000000"}
SETTINGS = {"epochs": "5", "batch": "10", "lr": "0.001", "weight_decay": "0.0001", "seed": "0",
            "device": "auto", "precision": "float32", "log_every": "1000", "limit": "0",
            "save_every": "0", "model": "best.ckpt", "data": "data", "log": "run.jsonl"}


def layout(tensors, metadata=None):
    """The header as an object, the size of the data, and where each tensor begins in it."""
    header, at, places = {}, 0, {}
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape in sorted(tensors, key=lambda tensor: -SIZES[tensor[1]]):
        size = SIZES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        places[name] = at
        at += size
    return header, at, places


def header_only(bits, header, data, patches=()):
    """patches: offset and eight bytes"""
    return (bytes([bits | HEADER_ONLY | len(patches) << PATCHES_AT]) +
            data.to_bytes(2, "little") +
            b"".join(at.to_bytes(2, "little") + value for at, value in patches) + text_of(header))


def whole(bits, header, data=b"", length=None):
    return bytes([bits]) + pack(header, data, length)


def i64(value):
    return struct.pack("<q", value)


def f64(value):
    return struct.pack("<d", value)


def f32(value):
    return struct.pack("<f", value) * 2


def checkpoint_seeds():
    seeds = {}

    def made(name, tensors, metadata, *patches, bits=0):
        """patches: a tensor, bytes that it begins with, and, if they are further on, where"""
        header, size, at = layout(tensors, metadata)
        seeds[name] = header_only(bits, header, size, [(at[t] + sum(further), value) for t, value, *further in patches])

    # what is accepted, and such files with one thing that is not
    made("network", NETWORK, OURS)
    made("network_pytorch", NETWORK, None)
    made("network_format_pt", NETWORK, {"format": "pt"})
    made("network_without_crc", NETWORK, {"program": "x"})
    made("network_resumed", NETWORK, OURS, bits=RESUME)
    made("network_with_more", NETWORK + [("run.more", "U8", [3])], OURS)
    made("network_with_stranger", NETWORK + [("stranger", "U8", [3])], OURS)
    made("network_missing_one", NETWORK[1:], OURS)
    made("network_numbers", NETWORK, OURS, ("conv1.weight", f32(1.5)), ("bn5.running_var", f32(3e38)),
         ("bn1.num_batches_tracked", i64(5000)))
    made("network_nan", NETWORK, OURS, ("conv2.weight", f32(float("nan"))))
    made("network_infinite", NETWORK, OURS, ("bn2.running_mean", f32(float("-inf"))))
    made("network_variance", NETWORK, OURS, ("bn4.running_var", f32(-1)))
    made("network_counter", NETWORK, OURS, ("bn1.num_batches_tracked", i64(-1)))
    for name, dtype, shape in (("dtype", "I32", [2]), ("shape", "F32", [2, 1]), ("longer", "F32", [3]),
                               ("rank_eight", "U8", [1, 1, 1, 1, 1, 1, 1, 8])):
        other = [("conv1.bias", dtype, shape) if t[0] == "conv1.bias" else t for t in NETWORK]
        made(f"network_other_{name}", other, OURS)

    def state(name, *patches, tensors=STATE, **settings):
        made(f"state{name}", tensors, OURS | SETTINGS | settings, ("run.epoch", i64(1)), *patches, bits=RESUME)

    state("")
    made("state_as_network", STATE, OURS | SETTINGS, ("run.epoch", i64(1)))
    recipe = {"recipe": "best", "recipe.optimizer": "muon", "recipe.warmup": "0.2", "recipe.average": "ema",
              "recipe.decoupled": "true", "recipe.shift": "2", "validation": "500"}
    averages = STATE + [(f"run.average.{name}", d, s) for name, d, s in PARAMETERS]
    state("_recipe", tensors=averages, **recipe)
    state("_recipe_without_average", **recipe)
    state("_settings", epochs="7", batch="20", lr="0.5", device="cpu", precision="tf32", limit="77")
    for key, value in (("epochs", "0"), ("lr", "nan"), ("precision", "float64"), ("device", ""),
                       ("seed", "9223372036854775808"), ("limit", "-1"), ("batch", "10 ")):
        state(f"_{key}", **{key: value})
    made("state_bare", STATE, None, ("run.epoch", i64(1)), bits=RESUME)
    made("state_middle", STATE, OURS | SETTINGS, ("run.epoch", i64(2)), ("run.step", i64(100)),
         ("run.adam.step", i64(5100)), ("run.loss.total", f64(7.5)), ("run.loss.running", f64(2.5)),
         ("bn5.num_batches_tracked", i64(5100)), ("run.random", f32(0), 4 * 623), bits=RESUME)
    state("_epoch_zero", ("run.epoch", i64(0)))
    state("_epoch_large", ("run.epoch", i64(1 << 40)))
    state("_loss", ("run.loss.total", f64(float("nan"))))
    state("_running", ("run.loss.running", f64(-1)))
    state("_exp_avg_sq", ("run.exp_avg_sq.fc1.weight", f32(-1)))
    state("_step", ("run.step", i64(-1)))
    state("_best_epoch", ("run.best.epoch", i64(1)))
    state("_random", ("run.random", b"\0\0\0\0\x71\2\0\0", 4 * 623))
    state("_with_more", tensors=STATE + [("run.more", "U8", [3])])

    def best(name, *patches):
        made(f"best{name}", STATE_BEST, OURS | SETTINGS, ("run.epoch", i64(2)), ("run.best.epoch", i64(1)),
             ("run.best.accuracy", f64(61.08)), ("run.best.loss", f64(1.1)), *patches, bits=RESUME)

    best("")
    best("_accuracy", ("run.best.accuracy", f64(101)))
    best("_loss", ("run.best.loss", f64(float("inf"))))
    best("_nan", ("run.best.fc1.bias", f32(float("nan"))))

    # small files of any kind
    one = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    seeds["small"] = whole(0, one, bytes(8))
    seeds["small_resumed"] = whole(RESUME, one, bytes(8))
    seeds["empty"] = b"\0"
    seeds["short"] = b"\0" + bytes(7)
    seeds["no_header"] = whole(0, b"")
    seeds["nothing"] = whole(0, {})
    seeds["spaces"] = whole(0, b"  {}  ")
    seeds["metadata"] = whole(0, {"__metadata__": {"a": "b", "crc32": "12345678", "program": "p"}})
    seeds["metadata_many"] = whole(0, {"__metadata__": {f"key{i}": "x" * i for i in range(40)}})
    seeds["metadata_long"] = whole(0, {"__metadata__": {"k" * 40: "x", "k": "x" * 1100}})
    seeds["classes"] = whole(0, {"__metadata__": {"classes": json.dumps([str(i) for i in range(10)])}})
    seeds["classes_few"] = whole(0, {"__metadata__": {"classes": '["cat","\\u0000"]'}})
    seeds["metadata_wrong"] = whole(0, {"__metadata__": {"a": 1}})
    seeds["metadata_list"] = whole(0, {"__metadata__": ["a"]})
    seeds["crc_at_the_end"] = whole(0, b'{"__metadata__":{"a":"1","b":"\\"crc32\\":\\""}}')
    seeds["crc_short"] = whole(0, b'{"__metadata__":{"crc32":"1"}}')
    seeds["dtypes"] = whole(0, *(lambda h, n, _: (h, bytes(n)))(
        *layout([(f"t{dtype}", dtype, [2, 1]) for dtype in SIZES])))
    seeds["pickle"] = b"\0" + b"PK\3\4" + bytes(60)
    seeds["control"] = whole(0, {"\x1b[2J\x9b31m\u202e\x7f": {"dtype": "F32"}})
    seeds["control_text"] = whole(0, '{"a\u009b31m":{"dtype":"\u009b31m"}}'.encode())

    # lengths
    for name, length in (("zero", 0), ("one", 1), ("more", 1 << 16), ("half", 1 << 31),
                         ("int", (1 << 32) - 1), ("sign", 1 << 63), ("most", (1 << 64) - 1),
                         ("wraps", (1 << 64) - 8)):
        seeds[f"length_{name}"] = whole(0, one, bytes(8), length)
    seeds["long_header"] = header_only(0, b"{}" + b" " * ((1 << 17) - 2), 0)
    seeds["too_long_header"] = header_only(0, b"{}" + b" " * ((1 << 17) - 1), 0)

    # offsets, shapes, dtypes
    def tensor(name, dtype="F32", shape=(2,), offsets=(0, 8), data=8):
        seeds[name] = whole(0, {"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}},
                            bytes(data))

    most, small = (1 << 63) - 1, -(1 << 63)
    tensor("offsets_most", offsets=[most - 8, most])
    tensor("offsets_all", offsets=[0, most])
    tensor("offsets_negative", offsets=[-8, 0])
    tensor("offsets_least", offsets=[small, most])
    tensor("offsets_backwards", offsets=[8, 0])
    tensor("offsets_three", offsets=[0, 8, 8])
    tensor("offsets_texts", offsets=["0", "8"])
    tensor("offsets_real", offsets=[0.0, 8e0])
    tensor("offsets_gap", offsets=[4, 12], data=12)
    tensor("offsets_behind", data=9)
    seeds["offsets_huge"] = whole(0, b'{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,1%s]}}' %
                                  (b"0" * 30))
    tensor("shape_most", shape=[most])
    tensor("shape_wraps", shape=[1 << 31, 1 << 31, 4])
    tensor("shape_wraps_to_8", shape=[1 << 62, 8])
    tensor("shape_zero", shape=[0, most, most], offsets=[0, 0], data=0)
    tensor("shape_wraps_then_zero", shape=[most, most, 0], offsets=[0, 0], data=0)
    tensor("shape_three", shape=[3])
    tensor("shape_negative", shape=[-2, -1])
    tensor("shape_nine", shape=[1] * 8 + [2])
    tensor("shape_eight", shape=[1] * 7 + [2])
    tensor("shape_scalar", dtype="I64", shape=[])
    tensor("shape_real", shape=[2.0])
    tensor("shape_no_list", shape={"0": 2})
    tensor("dtype_unknown", dtype="F31")
    tensor("dtype_long", dtype="F" * 200)
    tensor("dtype_number", dtype=32)
    seeds["entry_number"] = whole(0, {"t": 1})
    seeds["entry_empty"] = whole(0, {"t": {}})
    seeds["name_empty"] = whole(0, {"": one["t"]}, bytes(8))
    seeds["name_63"] = whole(0, {"n" * 63: one["t"]}, bytes(8))
    seeds["name_64"] = whole(0, {"n" * 64: one["t"]}, bytes(8))
    seeds["name_zero"] = whole(0, {"a\0b": one["t"]}, bytes(8))
    seeds["overlap"] = whole(0, {"a": one["t"], "b": one["t"]}, bytes(8))
    seeds["empties"] = whole(0, {name: {"dtype": "U8", "shape": [0], "data_offsets": [8, 8]}
                                 for name in "abc"} | one, bytes(8))

    # JSON
    entry = b'"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    seeds["duplicate"] = whole(0, b"{" + entry + b"," + entry + b"}", bytes(8))
    seeds["duplicate_inside"] = whole(0, b'{"t":{"dtype":"F32","dtype":"I64","shape":[2]}}')
    seeds["list"] = whole(0, b"[{}]")
    seeds["text"] = whole(0, b'"x"')
    seeds["cut"] = whole(0, b'{"t":{"dtype":"F3')
    seeds["behind"] = whole(0, b"{} {}")
    seeds["no_utf8"] = whole(0, b'{"\xff\xc0\x80":1}')
    seeds["surrogates"] = whole(0, b'{"\\ud834\\udd1e":1,"\\ud834":2}')
    seeds["real"] = whole(0, b'{"a":1e400,"b":-0.0}')
    seeds["many_small"] = whole(0, b"{" + b",".join(b'"%x":1' % i for i in range(300)) + b"}")
    for name, depth in (("deep", 2000), ("too_deep", 5000)):
        seeds[name] = whole(0, b'{"a":' + b"[" * depth + b"]" * depth + b"}")
        seeds[f"{name}_objects"] = whole(0, b'{"a":' * depth + b"1" + b"}" * depth)

    # as much memory and time as the longest header can take: these are run once and not changed
    most = (1 << 17) - 20
    for name, piece in (("objects", b"{},"), ("lists", b"[],"), ("pairs", b'{"":0},'),
                        ("numbers", b"1,"), ("reals", b"1e9,")):
        seeds[f"worst_{name}"] = whole(0, b'{"a":[' + piece * (most // len(piece)) + b"0]}")
    seeds["worst_entries"] = whole(0, text_of({f"{i:x}": {} for i in range(11000)}))
    seeds["worst_digits"] = whole(0, b'{"a":1.' + b"3" * most + b"}")
    seeds["worst_texts"] = whole(0, text_of({"__metadata__": {f"{i:x}": "" for i in range(10000)}}))
    seeds["worst_tensors"] = whole(0, text_of({
        f"{i:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(2200)}))

    for name, content in seeds.items():
        write("checkpoint", name, content)
    words = (["{}", "[]", "{", "}", "[", "]", ",", ":", '":{', '"},"', '":"', "null", "true", "1e308",
              "-1", "0", "9223372036854775807", "-9223372036854775808", "4294967296", "00000000",
              '"dtype":"F32"', '"shape":[', '"data_offsets":[', '"__metadata__":{', '"crc32":"',
              '"program":"', "dtype", "shape", "data_offsets", "\\u0000", "\\u009b", "run.", "run.best.",
              "run.exp_avg.", "run.exp_avg_sq.", "float32", "tf32", "auto"] +
             list(SIZES) + [name for name, _, _ in NETWORK] +
             [f"run.{name}" for name, _, _ in NUMBERS] + [f'"{key}":"' for key in SETTINGS])
    write_dictionary("checkpoint", words)


# ---- the data set: the input's form is told in batches_fuzz.c ----

TEST_PART, KIND_AT = 1, 1
FILES, LABELS, NAMES, FOLDER = (kind << KIND_AT for kind in range(4))
RECORD = 3073
OFFICIAL = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n"


def batches_seeds():
    def record(label):
        return bytes([label]) + bytes(range(256)) * 12

    def seed(name, kind, content, missing=0):
        write("batches", name, bytes([kind, missing]) + content)

    seed("test_one", TEST_PART | FILES, record(9))
    seed("test_two", TEST_PART | FILES, record(0) + record(3))
    seed("test_label", TEST_PART | FILES, record(10))
    seed("test_cut", TEST_PART | FILES, record(1) + record(2)[:-1])
    seed("test_longer", TEST_PART | FILES, record(1) + b"\n")
    seed("test_empty", TEST_PART | FILES, b"")
    seed("test_byte", TEST_PART | FILES, b"\1")
    seed("test_missing", TEST_PART | FILES, record(9), 1 << 5)
    seed("test_cifar100", TEST_PART | FILES, b"\1" + record(50))
    seed("train", FILES, b"".join(record(label) for label in range(5)))
    seed("train_limited", FILES, b"".join(record(label) for label in (0, 1, 255, 3, 4)), 1 << 7)
    seed("train_label", FILES, b"".join(record(label) for label in (1, 2, 3, 4, 255)))
    for file in range(5):
        seed(f"train_missing_{file}", FILES, b"".join(map(record, range(5))), 1 << file)
    seed("labels_test", TEST_PART | LABELS, bytes([0, 0, 9, 5]))
    seed("labels_test_10", TEST_PART | LABELS, bytes([0, 0, 9, 10]))
    seed("labels_test_8", TEST_PART | LABELS, bytes([0, 1, 2, 3, 4, 5, 6, 7, 8]))
    seed("labels_test_longer", TEST_PART | LABELS, bytes([1, 0, 9]))
    seed("labels_test_shorter", TEST_PART | LABELS, bytes([255, 0, 9]))
    seed("labels_train", LABELS, bytes([0, 1, 2]) * 5)
    seed("labels_train_200", LABELS, bytes([0, 1, 2]) * 4 + bytes([0, 1, 200]))
    seed("labels_train_empty", LABELS, bytes([0, 1]) * 4 + bytes([0]))
    seed("labels_train_longer", LABELS, bytes([0, 1]) * 4 + bytes([1, 1]))
    seed("labels_train_missing", LABELS, bytes([0, 1, 2]) * 5, 1 << 2)

    seed("names", NAMES, OFFICIAL)
    seed("names_original", NAMES, OFFICIAL + b"\n")
    seed("names_windows", NAMES, OFFICIAL.replace(b"\n", b"\r\n"))
    seed("names_missing", NAMES, b"", 1 << 6)
    seed("names_none", NAMES, b"")
    seed("names_nine", NAMES, OFFICIAL[:-6])
    seed("names_eleven", NAMES, OFFICIAL + b"cloud\n")
    seed("names_31", NAMES, OFFICIAL.replace(b"dog", b"d" * 31))
    seed("names_32", NAMES, OFFICIAL.replace(b"dog", b"d" * 32))
    seed("names_zero", NAMES, OFFICIAL.replace(b"dog", b"d\0g"))
    seed("names_control", NAMES, OFFICIAL.replace(b"dog", b"\x1b[2J"))
    seed("names_utf8", NAMES, OFFICIAL.replace(b"dog", "d\u009bg".encode()))
    seed("names_1024", NAMES, OFFICIAL + b"\n" * (1024 - len(OFFICIAL)))
    seed("names_1025", NAMES, OFFICIAL + b"\n" * (1025 - len(OFFICIAL)))
    seed("names_no_end", NAMES, OFFICIAL[:-1])

    seed("folder_empty", FOLDER, b"")
    seed("folder_here", FOLDER, b".")
    seed("folder_root", FOLDER, b"////")
    seed("folder_none", FOLDER, b"no/such")
    seed("folder_file", FOLDER, b"/dev/null")
    for length in (3977, 3999, 4000, 5000):
        seed(f"folder_{length}", FOLDER, b"/" + b"x/" * (length // 2) + b"y" * (length % 2))
    seed("folder_slashes", FOLDER, b"/" * 4500)
    seed("folder_control", FOLDER, "\x1b[2J\u009b31m".encode())
    write_dictionary("batches", OFFICIAL.decode().split() + ["\n", "\r\n", "../", "/", "./"])


# ---- command lines: the input's form is told in settings_fuzz.c ----

PROGRAMS = ["cifar", "cifar-train", "cifar-test", "cifar-classes", "cifar-synth", "unknown", "",
            None, "cifar-verify", "cifar-predict", "cifar-export", "cifar-import"]


def settings_seeds():
    lines = {
        "cifar": [[], ["--help"], ["-h"], ["--version"], ["train"], ["test", "--json"], ["synth", "d"],
                  ["classes", "--confusion"], ["tran"], ["--hel"], [""], ["train", "--help"],
                  ["train", "--epochs=5", "-xy"], ["--", "train"]],
        "cifar-train": [
            [], ["--epochs", "5"], ["--epochs=5", "--batch=128", "--lr=1e-3", "--weight-decay", "0"],
            ["--epochs", "0"], ["--epochs", "1000001"], ["--epochs", "5x"], ["--epochs", ""],
            ["--epochs"], ["--epoch", "5"], ["--e"], ["--seed", "9223372036854775807"],
            ["--seed", "9223372036854775808"], ["--seed=-1"], ["--seed", "0x10"], ["--seed", " +7"],
            ["--lr", "nan"], ["--lr", "inf"], ["--lr", "-0"], ["--lr", "1e-400"], ["--lr", "1e400"],
            ["--lr", "0x1p-3"], ["--lr", "1e30"], ["--lr", "1.0000000000000002"],
            ["--device", "cpu"], ["--device="], ["--precision=tf32"], ["--precision", "float64"],
            ["--threads", "1024"], ["--threads=0"], ["--limit=10", "--log-every=1", "--save-every=3"],
            ["--model", "m", "--last", "l", "--log", "o", "--data", "d"], ["--resume", "x"],
            ["--resume", "x", "--overwrite"], ["--resume=x", "--last=y"], ["--overwrite", "--quiet"],
            ["--recipe", "best"], ["--recipe=best", "--validation=500", "--average=ema", "--average-decay=0.99"],
            ["--recipe=best", "--select=best", "--no-decoupled", "--border=zero", "--shift=31"], ["--recipe", "worst"],
            ["--optimizer=sgd", "--momentum=0.9", "--weight-decay=5e-4", "--schedule=cosine", "--warmup=0.1"],
            ["--optimizer=muon", "--muon-lr=0.02", "--flip=random", "--label-smoothing=0.1", "--init=b.ckpt"],
            ["--schedule=linear", "--final-lr=0.1", "--flip", "alternating", "--decoupled", "--select", "last"],
            ["--optimizer=sgd", "--decoupled"], ["--momentum=1", "--optimizer=sgd"], ["--resume=x", "--init=y"],
            ["--final-lr=0.5"], ["--border=reflect"], ["--average-decay=1", "--average=ema"], ["--shift=32"],
            ["--keep=3", "--stop-if-unsaved"], ["--keep=0"],
            ["--quiet=1"], ["--help"], ["--version"], ["--help", "--wrong"], ["-h"], ["-x"], ["-hx"],
            ["-xh"], ["-"], ["--"], ["--", "--epochs"], ["--="], ["--=5"], ["---"], ["word"],
            ["word", "--epochs", "7", "other"], ["--epochs=1", "--epochs=2"], ["--json"],
            ["--epochs", "--batch"], ["--log", "\x1b[2J\u009b"], ["--\u009b31m"], ["-\x1b"],
            ["--device", "d" * 1100], ["x" * 3000], ["--epochs=5", "-xy"], ["a"] * 70],
        "cifar-test": [[], ["--grid="], ["--grid", ""], ["--grid", "g.png", "--json"],
                       ["--batch=20", "--model=m"], ["--epochs=5"]],
        "cifar-classes": [[], ["--confusion", "--json"], ["--grid=x"]],
        "cifar-synth": [["dir"], [], [""], ["dir", "other"], ["--train=5", "--test=1", "dir"],
                        ["--train=4", "dir"], ["--seed=3", "--", "--dir"], ["--help"]],
        "cifar-verify": [[], ["last.ckpt"], ["--model=m", "--log", "l", "s"], ["--epochs=5"], ["a", "b"]],
        "cifar-predict": [[], ["a.png"], ["-", "b", "--top=10"], ["x", "--top=11"], [""], ["a", ""], ["--", "--json"],
                          ["p", "--crop", "squash", "--json", "--csv"], ["p", "--crop=c"], ["p", "--grid="]],
        "cifar-export": [[], ["--opset=7", "--softmax", "--pixels"], ["--opset=22"], ["--onnx="], ["word"],
                         ["--onnx", "o", "--model=m", "--bgr", "--keep-batchnorm"]],
        "cifar-import": [["a", "b"], ["a"], ["a", "b", "c"], ["a", ""], ["a", "b", "--test", "0.9", "--seed=1"],
                         ["a", "b", "--test=1"], ["a", "b", "--test=-0"], ["a", "b", "--crop=center"]],
        "unknown": [[], ["train", "--epochs=2"], ["--help"]],
        "": [[], ["train"]],
        None: [[]],
    }
    number = 0
    for program, all_words in lines.items():
        for words in all_words:
            text = "\0".join(words).encode()
            write("settings", f"{number:03}", bytes([PROGRAMS.index(program)]) + text)
            number += 1
    names = ["recipe", "optimizer", "decoupled", "no-decoupled", "muon-lr", "momentum", "schedule", "warmup",
             "final-lr", "flip", "shift", "border", "label-smoothing", "average", "average-decay", "select",
             "validation", "init", "data", "epochs", "batch", "lr", "weight-decay", "seed", "device", "precision",
             "threads", "model", "last", "save-every", "keep", "stop-if-unsaved", "state", "resume",
             "overwrite", "log", "log-every",
             "limit", "quiet", "grid", "confusion", "json", "train", "test", "help", "version", "top", "crop", "csv", "onnx", "opset",
             "keep-batchnorm", "softmax", "pixels", "bgr"]
    write_dictionary("settings", [f"--{name}" for name in names] + [f"--{name}=" for name in names] +
                     ["\0", "\n", "\0--", "-h", "train", "test", "classes", "predict", "export", "import", "synth",
                      "cpu", "auto", "center", "squash", "best", "tutorial", "adam", "sgd", "muon", "constant",
                      "linear", "cosine", "none", "random", "alternating", "zero", "reflect", "ema", "last",
                      "tf32", "float32", "1e30", "nan", "inf", "0x", "1e-320", "1000000",
                      "1000000000", "9223372036854775807"])


# ---- logs: the input's form is told in log_fuzz.c ----

def log_seeds():
    def seed(name, *lines, at=(2, 5), hole=0, end=b"\n"):
        texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        write("log", name, bytes([*at, hole]) + b"\n".join(texts) + end)

    start = {"event": "start", "version": "0.1.0", "epochs": 5, "run": "0123abcd"}
    resume = {"event": "resume", "from": "last.ckpt", "epoch": 2, "step": 5, "run": "0123abcd"}
    warning, end = {"event": "warning", "text": "t"}, {"event": "end", "finished": True}
    test = {"event": "test", "test_loss": 1.5, "test_accuracy": 50.0}

    def step(epoch, number):
        return {"event": "step", "epoch": epoch, "step": number, "loss": 2.5}

    def epoch(number):
        return {"event": "epoch", "epoch": number, "train_loss": 1.5, "best": True}

    whole = [start, step(1, 5), epoch(1), step(2, 5), epoch(2), test, end]
    for position in ((0, 0), (1, 0), (1, 5), (1, 9), (2, 0), (2, 5), (3, 0), (255, 255)):
        seed(f"at_{position[0]}_{position[1]}", *whole, at=position)
    seed("empty", end=b"")
    seed("hole", hole=3, end=b"")
    seed("start", start)
    seed("no_line_feed", start, end=b"")
    seed("torn", *whole[:3], b'{"event":"st', end=b"")
    seed("torn_by_a_hole", *whole[:3], hole=1)
    seed("resumed", *whole[:4], resume, epoch(2))
    seed("begun_by_a_resume", resume, warning, step(2, 9))
    seed("warning", warning, start)
    seed("other_run", start | {"run": "fedcba98"}, step(1, 5))
    for name, run in (("none", None), ("empty", ""), ("39", "r" * 39), ("40", "r" * 40), ("zero", "a\0b"),
                      ("number", 1)):
        seed(f"run_{name}", start | {"run": run}, step(1, 5))
    for number in (0, -1, 1 << 31, (1 << 31) + 1, (1 << 53) + 1, (1 << 63) - 1, 1 << 63, -(1 << 63), 1.5, "1"):
        seed(f"epoch_{number}", start, epoch(number), step(1, 5), at=(255, 255))
        seed(f"step_{number}", start, step(1, number), epoch(1), at=(255, 255))
        seed(f"resume_{number}", resume | {"epoch": number}, step(1, 5), at=(255, 255))
    seed("end_inside", start, end, *whole)
    seed("foreign", start, b"", b"no record", [], {}, {"event": 7}, {"event": "other"}, step(2, 5))
    seed("zeros", start, b"\0\0", step(1, 5) | {"event": "step\0"}, b'{"event":"end"}\0')
    seed("no_utf8", start, b'{"event":"\xff\xc0\x80"}')
    seed("duplicates", start, b'{"event":"end","event":"step","epoch":9,"epoch":1}')
    seed("windows", *(text_of(line) + b"\r" for line in whole))
    for name, depth in (("deep", 2000), ("too_deep", 50000)):
        seed(name, start, b"[" * depth + b"]" * depth, b'{"event":' * depth, step(1, 5))
    most = 1 << 17
    for name, length in (("longest", most), ("too_long", most + 1)):
        for first in (b"", text_of(start) + b"\n"):
            seed(f"{name}_{len(first)}", first + text_of(start).ljust(length - 1), step(1, 5))
    for name, piece in (("objects", b"{},"), ("lists", b"[],"), ("pairs", b'{"":0},'), ("reals", b"1e9,")):
        seed(f"worst_{name}", start, b"[" + piece * ((most - 10) // len(piece)) + b"0]")
    write_dictionary("log", ["\n", "\0", "{", "}", '":', ',"', '"event":"', '"epoch":', '"step":', '"run":"', "start",
                             "resume", "warning", "step", "epoch", "end", "0123abcd", "2147483648",
                             "9223372036854775807", "-9223372036854775808", "9007199254740992"])


# ---- pictures: the input is a file ----

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(width, height, depth, colour, *chunks, interlaced=False):
    """chunks: what stands between the header and the pixels"""
    def chunk(name, data=b""):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b""
    for left, top, right, down in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        across, rest = -(-(width - left) // right), -(-(height - top) // down)
        size = (across * depth * CHANNELS[colour] + 7) // 8
        if across > 0:
            rows += b"".join(bytes([y % 5]) + bytes((x * 37 + y) % 256 for x in range(size)) for y in range(rest))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    if colour == 3:
        chunks = (b"PLTE", bytes(range(3 << depth if depth < 8 else 255))), *chunks
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*c) for c in chunks) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND"))


def jpeg(width, height, sampling, blocks, *segments, frame=0xc0, adobe=None, spectrum=(0, 63)):
    """One grey, in blocks of two bits: no difference to the one before, no more coefficients."""
    def segment(marker, data):
        return bytes([0xff, marker]) + struct.pack(">H", 2 + len(data)) + data

    count = len(sampling)
    all_segments = list(segments) + [(0xdb, b"\0" + b"\1" * 64)]
    all_segments += [(0xc4, bytes([table, 1]) + bytes(16)) for table in (0, 0x10)]
    if adobe is not None:
        all_segments.insert(0, (0xee, b"Adobe\0\x64\0\0\0\0" + bytes([adobe])))
    all_segments += [(frame, struct.pack(">BHHB", 8, height, width, count) +
                      b"".join(bytes([i, s, 0]) for i, s in enumerate(sampling))),
                     (0xda, bytes([count]) + b"".join(bytes([i, 0]) for i in range(count)) +
                      bytes([*spectrum, 0]))]
    return b"\xff\xd8" + b"".join(segment(*s) for s in all_segments) + bytes(blocks // 4 + 1) + b"\xff\xd9"


def exif(order, orientation):
    return order + struct.pack({b"II": "<", b"MM": ">"}[order] + "HIHHHIHHI", 42, 8, 1, 0x112, 3, 1, orientation, 0, 0)


def picture_seeds():
    pictures = {"empty": b"", "gif": b"GIF89a", "webp": b"RIFF\0\0\0\0WEBPVP8 ", "text": b"hello\x1b[2J"}
    clear = {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\0\x80"}
    for colour, depths in DEPTHS.items():
        for depth in depths:
            for interlaced in (False, True):
                name = f"png_{colour}_{depth}_{int(interlaced)}"
                pictures[name] = png(9, 5, depth, colour, interlaced=interlaced)
                if colour in clear:
                    pictures[name + "_clear"] = png(7, 10, depth, colour, (b"tRNS", clear[colour]), interlaced=interlaced)
    for order in (b"II", b"MM"):
        for orientation in range(10):
            pictures[f"png_exif_{order.decode()}_{orientation}"] = png(3, 2, 8, 2, (b"eXIf", exif(order, orientation)))
            pictures[f"jpeg_exif_{order.decode()}_{orientation}"] = jpeg(
                9, 5, [0x11], 2, (0xe1, b"Exif\0\0" + exif(order, orientation)))
    pictures["png_chunks"] = png(3, 2, 8, 2, (b"gAMA", b"\0\0\xb1\x8f"), (b"iCCP", b"p\0\0" + zlib.compress(bytes(999))),
                                 (b"zTXt", b"t\0\0" + zlib.compress(bytes(99999))), (b"tEXt", b"k\0v"), (b"xxxx", b"?"))
    pictures["png_wide"] = png(4000, 1, 1, 0)
    pictures["png_high"] = png(1, 4000, 8, 2)
    pictures["png_32"] = png(32, 32, 8, 2)
    pictures["png_large"] = png(3, 2, 8, 2).replace(struct.pack(">II", 3, 2), struct.pack(">II", 60000, 60000))
    for name, sampling, blocks in (("grey", [0x11], 8), ("444", [0x11] * 3, 24), ("422", [0x21, 0x11, 0x11], 16),
                                   ("420", [0x22, 0x11, 0x11], 12), ("410", [0x42, 0x11, 0x11], 10),
                                   ("cmyk", [0x11] * 4, 32)):
        pictures[f"jpeg_{name}"] = jpeg(32, 16, sampling, blocks)
        pictures[f"jpeg_{name}_adobe"] = jpeg(32, 16, sampling, blocks, adobe=2 if name == "cmyk" else 0)
        pictures[f"jpeg_{name}_arithmetic"] = jpeg(32, 16, sampling, blocks, frame=0xc9)
        pictures[f"jpeg_{name}_progressive"] = jpeg(32, 16, sampling, blocks, frame=0xc2, spectrum=(0, 0))
    pictures["jpeg_restart"] = jpeg(32, 16, [0x11], 8, (0xdd, b"\0\2"))
    pictures["jpeg_lossless"] = jpeg(32, 16, [0x11], 8, frame=0xc3)
    pictures["jpeg_short"] = jpeg(320, 160, [0x11], 8)
    pictures["jpeg_large"] = jpeg(65500, 65500, [0x11], 8)
    for name, content in pictures.items():
        write("picture", name, content)
    write_dictionary("picture", [name for name in (
        "IHDR", "PLTE", "tRNS", "IDAT", "IEND", "eXIf", "iCCP", "zTXt", "Exif\0\0", "II*\0", "MM\0*", "Adobe", "JFIF\0",
        "\x01\x12\0\x03\0\0\0\x01", "\x12\x01\x03\0\x01\0\0\0")] +
        [f"\xff{chr(marker)}" for marker in (*range(0xc0, 0xcc), *range(0xd0, 0xe0), 0xe1, 0xee)])


checkpoint_seeds()
batches_seeds()
settings_seeds()
log_seeds()
picture_seeds()
