"""Training and evaluation speed and peak memory of the trainer and of PyTorch, side by side on this machine.

    bench.py CIFAR FOLDER [--batches 10,32,128,1024] [--threads 1,2] [--rounds 3] [--images 5000]

CIFAR: the program (build/release/cifar); FOLDER: the batches of CIFAR-10. Every round runs each candidate
once, one after the other, as a process of its own; the tables give medians. PyTorch trains the same network
on the same batches with its data in memory and no data loader, after five steps (the trainer: after a first
epoch), as it is in its usual layout (NCHW) and in channels_last, and through torch.compile; what it is compared
with is the best of them. The evaluation times the pass over the 10,000 test images alone. Needs torch and numpy
from PyPI, and a C++ compiler for torch.compile.
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

FORMS = ("NCHW", "channels_last", "compiled")
DEVICES = ("cpu", "openblas")
ALL, TEST = 50000, 10000
TEST_BATCH = 100  # the trainer's own (src/train/trainer.c)


def worker(folder, form, batch, threads, count):
    """Trains on `count` images in this process, or with a count of 0 evaluates; prints the images a second."""
    import torch

    import tutorial

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images, labels = tutorial.load(folder, "train" if count > 0 else "test")
    memory_format = torch.channels_last if form == "channels_last" else torch.contiguous_format
    network = tutorial.Network().to(memory_format=memory_format)
    optimizer = tutorial.adam(network)
    forward = torch.compile(network) if form == "compiled" else network
    order = torch.randperm(len(labels))

    def chosen(first):
        at = order[torch.arange(first, first + batch) % len(order)]
        return tutorial.normalise(images[at]).contiguous(memory_format=memory_format), labels[at]

    def train(first, steps):
        for i in range(first, first + steps * batch, batch):
            tutorial.step(forward, optimizer, *chosen(i))

    @torch.no_grad()
    def evaluate(count):
        for i in range(0, count, batch):
            x, y = chosen(i)
            (forward(x).argmax(1) == y).sum().item()

    if count > 0:
        warm_up, steps = 5, max(count // batch, 2)
        train(0, warm_up)
        began = time.perf_counter()
        train(warm_up * batch, steps)
        print(steps * batch / (time.perf_counter() - began))
    else:
        network.eval()
        evaluate(5 * batch)
        began = time.perf_counter()
        evaluate(TEST)
        print(TEST / (time.perf_counter() - began))


def run(command, environment):
    """Runs a command; its standard output and its peak memory in MB (which can't be less than this
    process's own, since the system counts from the fork on: nothing large is imported here)."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed")
    return output, usage.ru_maxrss * 1024 / 1e6


def run_ours(options, device, batch, threads, images, work):
    """Trains two epochs of `images` images; the images a second of the second one, those of its evaluation, and
    the peak memory in MB."""
    log = f"{work}/log.jsonl"
    _, memory = run([options.cifar, "train", "--quiet", "--data", options.folder, "--epochs", "2", "--device", device,
                     "--batch", str(batch), "--limit", str(images), "--threads", str(threads),
                     "--model", f"{work}/model.ckpt", "--log", log, "--overwrite"], os.environ)
    with open(log) as lines:
        epoch = [r for r in map(json.loads, lines) if r["event"] == "epoch"][1]
    return epoch["images_per_second"], TEST / epoch["test_seconds"], memory


def run_theirs(options, form, batch, threads, images):
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    output, memory = run([sys.executable, __file__, "--worker", options.folder, form, str(batch), str(threads),
                          str(images)], environment)
    return float(output), memory


def row(label, ours, theirs):
    """A row of a table: ours and theirs are images a second, by candidate."""
    speed = [statistics.median(ours[d]) for d in DEVICES] + [statistics.median(theirs[f]) for f in FORMS]
    best = max(speed[len(DEVICES):])
    return f"| {label} | " + " | ".join(f"{s:.0f}" for s in speed) + f" | {speed[0] / best:.2f} | {speed[0] / speed[1]:.2f} |"


def processor():
    with open("/proc/cpuinfo") as info:
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    if sys.argv[1:2] == ["--worker"]:
        folder, form, batch, threads, count = sys.argv[2:]
        worker(folder, form, int(batch), int(threads), int(count))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("folder")
    parser.add_argument("--batches", default="10,32,128,1024")
    parser.add_argument("--threads", default=",".join(sorted({"1", str(len(os.sched_getaffinity(0)))})))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000, help="in a run")
    options = parser.parse_args()
    batches, all_threads = ([int(n) for n in text.split(",")] for text in (options.batches, options.threads))

    version = subprocess.run([options.cifar, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()
    print(f"{time.strftime('%Y-%m-%d')}, {processor()}; {version[0]}; "
          + "; ".join(line.removeprefix("device ") for line in version if line.startswith(("device cpu", "device openblas")))
          + f"; PyTorch {importlib.metadata.version('torch')}; medians of {options.rounds} interleaved runs of "
          f"{options.images} images\n")
    columns = "cpu, images/s | openblas | PyTorch NCHW | channels_last | compiled | cpu / PyTorch's best | cpu / openblas"
    with tempfile.TemporaryDirectory() as work:
        memory = {}
        for name, tables, images in (("training", batches, options.images), ("evaluation", [TEST_BATCH], 0)):
            print(f"| {name}: batch | threads | {columns} |\n|---|---|---|---|---|---|---|---|---|")
            for threads in all_threads:
                for batch in tables:
                    ours, theirs = {d: [] for d in DEVICES}, {f: [] for f in FORMS}
                    for _ in range(options.rounds):
                        for device in DEVICES:
                            train, test, _ = run_ours(options, device, batch, threads, images or 10, work)
                            ours[device].append(train if images > 0 else test)
                        for form in FORMS:
                            speed, used = run_theirs(options, form, batch, threads, images)
                            theirs[form].append(speed)
                            if images > 0:
                                memory[batch] = min(used, memory.get(batch, used))
                    print(row(f"{batch} | {threads}", ours, theirs), flush=True)
            print()
        print("| batch | peak memory, MB | PyTorch's least |\n|---|---|---|")
        for batch in batches:
            # with --limit the trainer gives the memory of the other images back, so this needs whole epochs
            used = run_ours(options, "cpu", batch, all_threads[-1], ALL, work)[2]
            print(f"| {batch} | {used:.0f} | {memory[batch]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
