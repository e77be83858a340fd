"""Training speed and peak memory of the trainer and of PyTorch, side by side on this machine.

    bench.py CIFAR FOLDER [--batches 10,128] [--threads N] [--rounds 5] [--images 5000]

CIFAR: the program (build/release/cifar); FOLDER: the batches of CIFAR-10. Every round runs each
candidate once, one after the other, as a process of its own; the table gives medians. PyTorch trains
the same network on the same batches with its data in memory and no data loader, after a warm-up, once
in its usual layout (NCHW) and once in channels_last; what it is compared with is the better one. Needs
torch and numpy from PyPI.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

LAYOUTS = ("NCHW", "channels_last")
ALL = 50000


def worker(folder, layout, batch, threads, count):
    """Trains on `count` images in this process and prints the images a second."""
    import torch

    import tutorial

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images, labels = tutorial.load(folder, "train")
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    network = tutorial.Network().to(memory_format=memory_format)
    optimizer = tutorial.adam(network)
    order = torch.randperm(len(labels))

    def train(first, steps):
        for i in range(first, first + steps * batch, batch):
            chosen = order[i:i + batch]
            x = tutorial.normalise(images[chosen]).contiguous(memory_format=memory_format)
            tutorial.step(network, optimizer, x, labels[chosen])

    warm_up, steps = 5, count // batch
    train(0, warm_up)
    began = time.perf_counter()
    train(warm_up * batch, steps)
    print(steps * batch / (time.perf_counter() - began))


def run(command, environment):
    """Runs a command; its standard output and its peak memory in MB (which can't be less than this
    process's own, since the system counts from the fork on: nothing large is imported here)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed")
    return output, usage.ru_maxrss / 1000


def run_ours(options, batch, images, work):
    log = f"{work}/log.jsonl"
    _, memory = run([options.cifar, "train", "--quiet", "--data", options.folder, "--epochs", "1", "--device", "openblas",
                     "--batch", str(batch), "--limit", str(images), "--threads", str(options.threads),
                     "--model", f"{work}/model.ckpt", "--log", log], os.environ)
    with open(log) as lines:
        epoch = [r for r in map(json.loads, lines) if r["event"] == "epoch"][0]
    return epoch["images_per_second"], memory


def run_theirs(options, batch, layout):
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    output, memory = run([sys.executable, __file__, "--worker", options.folder, layout, str(batch), str(options.threads),
                          str(options.images)], environment)
    return float(output), memory


def processor():
    with open("/proc/cpuinfo") as info:
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    if sys.argv[1:2] == ["--worker"]:
        folder, layout, batch, threads, count = sys.argv[2:]
        worker(folder, layout, int(batch), int(threads), int(count))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("folder")
    parser.add_argument("--batches", default="10,128")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5000, help="in a run")
    options = parser.parse_args()

    version = subprocess.run([options.cifar, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}, {options.threads} threads; {version[0]} with {version[1]}; "
          f"PyTorch {importlib.metadata.version('torch')}; medians of {options.rounds} interleaved runs of {options.images} images\n")
    print("| batch | this program, images/s | PyTorch NCHW | PyTorch channels_last | ratio to its best "
          "| peak memory, MB | PyTorch's |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        for batch in map(int, options.batches.split(",")):
            ours, theirs = [], {layout: [] for layout in LAYOUTS}
            for _ in range(options.rounds):
                ours.append(run_ours(options, batch, options.images, work))
                for layout in LAYOUTS:
                    theirs[layout].append(run_theirs(options, batch, layout))
            speed = [statistics.median(r[0] for r in runs) for runs in (ours, *theirs.values())]
            # with --limit the trainer gives the memory of the other images back, so this needs a whole epoch
            memory = run_ours(options, batch, ALL, work)[1], min(max(r[1] for r in runs) for runs in theirs.values())
            print(f"| {batch} | {speed[0]:.0f} | {speed[1]:.0f} | {speed[2]:.0f} | {speed[0] / max(speed[1:]):.2f} "
                  f"| {memory[0]:.0f} | {memory[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
