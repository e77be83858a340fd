#!/usr/bin/env python3
"""Whether two builds of the program train alike, to the bit: 300 steps of seeds 0 and 7 with each
device, the tensors of both files and the losses of each step compared.

    scripts/same_bits.py OLD_BUILD NEW_BUILD [--data DIR] [--devices cpu,openblas] [--batch 10] [--more OPTIONS]

--more "--recipe best": these options of cifar-train, too.

With LD_LIBRARY_PATH=build/test/tests/fakes and --devices cudnn on the fake GPU. Exit status 1 if they
differ; what a change of the order of sums on purpose comes to is told in the same table."""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

STEPS, SEEDS = 300, (0, 7)


def tensors(path):
    """The bytes of each tensor of a safetensors file, by name."""
    file = path.read_bytes()
    end = 8 + struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8:end])
    header.pop("__metadata__", None)
    return {name: file[end + t["data_offsets"][0] : end + t["data_offsets"][1]] for name, t in header.items()}


def train(build, folder, device, seed, options):
    folder.mkdir()
    log = folder / "run.jsonl"
    data = ["--data", options.data] if options.data else []
    subprocess.run(
        [pathlib.Path(build) / "cifar-train", "--device", device, "--seed", str(seed), "--batch", str(options.batch),
         "--limit", str(STEPS * options.batch), "--epochs", "1", "--log-every", "1", "--log", log, "--quiet",
         "--model", folder / "best.ckpt", "--last", folder / "last.ckpt", *data, *options.more.split()], check=True)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    found = {name: tensors(folder / name) for name in ("best.ckpt", "last.ckpt")}
    losses = [r["loss"] for r in records if r["event"] == "step"]
    return found, losses, [r["test_accuracy"] for r in records if "test_accuracy" in r and r["event"] != "end"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--data")
    parser.add_argument("--devices", default="cpu,openblas")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--more", default="")
    options = parser.parse_args()
    all_same = True
    for device in options.devices.split(","):
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as work:
                (old, was, before), (new, now, after) = (
                    train(build, pathlib.Path(work) / name, device, seed, options)
                    for name, build in (("old", options.old), ("new", options.new)))
            differ = [f"{file}: {name}" for file in old for name in old[file] if old[file][name] != new[file].get(name)]
            apart = max(abs(a - b) / a for a, b in zip(was[:10], now[:10]))
            same = not differ and was == now
            all_same &= same
            print(f"{device}, seed {seed}, {len(was)} steps: " + ("the same bits" if same else
                  f"{len(differ)} tensors differ; the first ten losses by {apart:.1e}; accuracy {before[0]} and {after[0]}"))
    sys.exit(not all_same)


if __name__ == "__main__":
    main()
