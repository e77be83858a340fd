"""Speed of PyTorch's training step on a GPU, in the ways that PyTorch offers to make it fast.

    gpu_bench.py [--batches 10,128,32,512,2048] [--variants eager,...] [--json FILE]

The tutorial's network trains on 50,000 random images, which lie on the GPU, normalised, and are picked
by a permutation that lies there too; nothing is read back in between. The variants:

    eager                  as the tutorial is, NCHW
    channels_last          that layout for images and weights
    fused                  eager with Adam(fused=True, capturable=True)
    graph                  the whole step, fused Adam too, in one torch.cuda.CUDAGraph, with
                           torch.backends.cudnn.benchmark
    graph_channels_last    the same in that layout
    reduce_overhead        torch.compile(mode="reduce-overhead") of network and loss, fused Adam
    max_autotune           torch.compile(mode="max-autotune") likewise

each with TF32 off ("float32") and allowed ("tf32") in convolutions and products; PyTorch's own default
is told first. A step's time is measured as tests/bench/step_bench.c does it: over runs of a few steps,
here between two CUDA events, after a warm-up. An epoch is images/batch steps, timed over all of them or
as many as fit in half a second, with no wait in between, the better of two. What matters most comes first;
every result is written at once, so that whoever stops this program has all that was measured. What fails
says so and the rest goes on. Needs torch and numpy.
"""

import argparse
import gc
import json
import os
import signal
import statistics
import sys
import time
import warnings

import tutorial  # first: it says what is missing

import torch
import torch.nn.functional as F

VARIANTS = ("eager", "channels_last", "fused", "graph", "graph_channels_last", "reduce_overhead", "max_autotune")
FIRST_BATCHES = (10, 128)
PRECISIONS = ("float32", "tf32")
RUNS, LONGEST_RUN, RUN_IMAGES = 60, 32, 1024  # as in step_bench.c, but for
FEWEST_RUNS, LONGEST_SECONDS = 20, 1.5  # where steps are slow
LEAST_SECONDS = 5  # that a measurement takes, about
WARM_UP_SECONDS, RUN_SECONDS, EPOCH_SECONDS = 0.5, 0.5, 0.5


class Late(Exception):
    """The time for a variant is over."""


def jobs(variants, batches):
    """(variant, batch, precision) of all that is measured, what matters most first."""
    first = [b for b in batches if b in FIRST_BATCHES]
    other = [b for b in batches if b not in FIRST_BATCHES]
    plain, quick = ("eager", "channels_last"), ("fused", "graph", "graph_channels_last")
    compiled, tuned = ("reduce_overhead",), ("max_autotune",)  # each takes as long as many of the others
    order = ((plain, first, PRECISIONS), (quick, first, PRECISIONS), (plain, other, PRECISIONS),
             (compiled, first, ("float32",)), (quick, other, PRECISIONS), (compiled, first, ("tf32",)),
             (tuned, first, PRECISIONS), (compiled + tuned, other, PRECISIONS))
    return [(v, b, p) for group, sizes, precisions in order for p in precisions for b in sizes for v in group
            if v in variants]


class Training:
    """A network in training: step(chosen) queues a step on the images of these numbers."""

    def __init__(self, variant, batch, images, labels):
        device = images.device
        layout = torch.channels_last if "channels_last" in variant else torch.contiguous_format
        torch.manual_seed(0)
        network = tutorial.Network().to(device=device, memory_format=layout)
        fused = {} if variant in ("eager", "channels_last") else {"fused": True, "capturable": True}
        optimizer = tutorial.adam(network, **fused)

        def loss_of(x, y):
            return F.cross_entropy(network(x), y)

        if variant in ("reduce_overhead", "max_autotune"):
            loss_of = torch.compile(loss_of, mode=variant.replace("_", "-"), dynamic=False)

        def step(chosen):
            x = images[chosen].contiguous(memory_format=layout)
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, labels[chosen]).backward()
            optimizer.step()

        self.batch = batch
        self.device = device
        self.order = torch.randperm(len(labels), device=device)
        self.next = 0
        self.step = step
        if variant.startswith("graph"):
            self.record()

    def record(self):
        """Puts the whole step into a graph that reads its numbers from one place."""
        eager, graph, stream = self.step, torch.cuda.CUDAGraph(), torch.cuda.Stream()
        place = torch.zeros(self.batch, dtype=torch.int64, device=self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                eager(place)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            eager(place)

        def step(chosen):
            place.copy_(chosen)
            graph.replay()

        self.step = step

    def run(self, steps):
        """Queues the next steps, all of whole batches."""
        for _ in range(steps):
            if self.next + self.batch > len(self.order):
                self.next = 0
            self.step(self.order[self.next:self.next + self.batch])
            self.next += self.batch

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, steps):
        """Wall clock, waited for at the end."""
        self.wait()
        began = time.perf_counter()
        self.run(steps)
        self.wait()
        return time.perf_counter() - began

    def event_seconds(self, steps):
        """Between two events on the GPU, around the steps."""
        if self.device.type != "cuda":
            return self.seconds(steps)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.run(steps)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000


def measure(training, images, limit):
    """The figures of a variant; takes up to about three quarters of `limit` seconds where steps are slow."""
    k = min(LONGEST_RUN, max(1, RUN_IMAGES // training.batch))
    began = time.perf_counter()
    training.seconds(5)  # compiles, chooses, records
    while time.perf_counter() - began < WARM_UP_SECONDS:
        training.seconds(k)
    times, began = [], time.perf_counter()
    while len(times) < RUNS or time.perf_counter() - began < RUN_SECONDS:
        times.append(training.event_seconds(k) / k)
        taken = time.perf_counter() - began
        if (taken > LONGEST_SECONDS and len(times) >= FEWEST_RUNS) or (taken > limit / 4 and len(times) >= 3):
            break
    times.sort()
    median, steps = statistics.median(times), images / training.batch
    timed = max(1, min(int(steps), int(min(EPOCH_SECONDS, limit / 4) / median)))
    epoch = min(training.seconds(timed) for _ in range(2)) * steps / timed
    return {"us_median": round(1e6 * median, 2), "us_p95": round(1e6 * times[(len(times) * 95 - 1) // 100], 2),
            "runs": len(times), "steps_a_run": k, "epoch_seconds": round(epoch, 4), "epoch_steps_timed": timed,
            "images_per_second": round(images / epoch, 1)}


def allow_tf32(allowed):
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def facts(device):
    on_gpu = device.type == "cuda"
    return {"event": "start", "torch": torch.__version__, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "gpu": torch.cuda.get_device_name() if on_gpu else None,
            "default_tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "default_tf32_products": torch.backends.cuda.matmul.allow_tf32}


def usable(device):
    """Whether the device still works: after some failures it no longer does in this process."""
    try:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return bool((torch.ones(8, device=device) + 1).sum().item() == 16)
    except RuntimeError:
        return False


def late(*_):
    raise Late("took longer than the time for a variant")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="10,128,32,512,2048")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--json", metavar="FILE", help="adds a JSON object a line")
    parser.add_argument("--seconds-per-variant", type=int, default=40, help="each measurement's limit")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="starts nothing after so many")
    parser.add_argument("--device", default="cuda", help="cpu: to try this program")
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--skip", type=int, default=0, help="measurements to leave out, from the first")
    options = parser.parse_args()
    until = time.monotonic() + options.seconds
    variants = options.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"unknown variants: {', '.join(sorted(unknown))}")
    work = jobs(variants, [int(b) for b in options.batches.split(",")])
    warnings.filterwarnings("ignore")
    signal.signal(signal.SIGALRM, late)

    def tell(record):
        line = json.dumps(record)
        print(line, flush=True)
        if options.json:
            with open(options.json, "a") as file:
                file.write(line + "\n")

    device = torch.device(options.device)
    if options.skip == 0:
        tell(facts(device))
    pixels = torch.randint(256, (options.images, 3, 32, 32), dtype=torch.uint8)
    images = tutorial.normalise(pixels.to(device))
    labels = torch.randint(10, (options.images,)).to(device)
    del pixels

    for number, (variant, batch, precision) in enumerate(work[options.skip:], options.skip):
        left = until - time.monotonic()
        if left < LEAST_SECONDS:
            break
        limit = int(min(left, options.seconds_per_variant))
        job = {"variant": variant, "batch": batch, "precision": precision}
        allow_tf32(precision == "tf32")
        torch.backends.cudnn.benchmark = variant.startswith("graph")
        training = None
        signal.alarm(limit)
        try:
            training = Training(variant, batch, images, labels)
            record = {"event": "measured", **job, **measure(training, options.images, limit)}
        except Exception as error:  # whatever it is, the next one is tried
            reason = str(error).strip().splitlines() or [""]
            record = {"event": "failed", **job, "error": f"{type(error).__name__}: {reason[0][:300]}"}
        signal.alarm(0)
        tell(record)
        del training
        gc.collect()
        if record["event"] == "failed" and not usable(device):
            # A new process has a working device again, and goes on behind the one that failed.
            skip = ["--skip", str(number + 1), "--seconds", str(until - time.monotonic())]
            os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:], *skip])
        if variant in ("reduce_overhead", "max_autotune"):
            torch.compiler.reset()


if __name__ == "__main__":
    main()
