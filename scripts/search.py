#!/usr/bin/env python3
"""Try recipes: train each with several seeds, several runs side by side, and tell what they come to.

    scripts/search.py CIFAR FOLDER [--data DIR] [--seeds 0,1,2] [--jobs N] [--validation N | --test] [--tell] < LINES

CIFAR: the program (build/release/cifar); FOLDER: where the logs go, by which a run that is there is
not run again. LINES: options of cifar-train to try, a set a line, such as

    --recipe best
    --recipe best --label-smoothing 0.1

A search judges the last epoch on held-out training images (--validation, 10,000), so that the test
images play no part in it; with --test, for the figures of what was found, nothing is held out, and the
last epoch is judged on the test images. Prints a table in Markdown; --tell: of the runs that are there.
The train loss is that of images as they were seen and labels as they were smoothed.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys

def records(log):
    """A log's records, as far as it is whole."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_epoch(log):
    """The last epoch's record and the run's seconds, or None if the run has not come to its end."""
    found = records(log)
    if not found or found[-1]["event"] != "end" or not found[-1]["finished"]:
        return None
    return [r for r in found if r["event"] == "epoch"][-1], found[-1]["seconds"]


def train(options, line, seed, log):
    """One run, with one thread, unless it has been there. Whether it went well."""
    if last_epoch(log) is not None:
        return True
    files = ["--model", log.with_suffix(".ckpt"), "--last", log.with_suffix(".last.ckpt"), "--log", log]
    command = [options.cifar, "train", "--quiet", "--overwrite", "--threads", "1", "--seed", str(seed),
               "--select", "last", *options.judged, *options.data, *files, *line.split()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"{line}, seed {seed}: {done.stderr.strip()}", file=sys.stderr)
    return done.returncode == 0


def name_of(line, options):
    """What tells a set of options apart: the recipes change with the program."""
    program = pathlib.Path(options.cifar).read_bytes()
    return hashlib.sha1(program + "\0".join([line, *options.judged, *options.data]).encode()).hexdigest()[:10]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--data", type=lambda text: ["--data", text], default=[])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--validation", type=int, default=10000)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--tell", action="store_true")
    options = parser.parse_args()
    options.judged = [] if options.test else ["--validation", str(options.validation)]
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [line.strip() for line in sys.stdin if line.strip() and not line.startswith("#")]
    kind = "test" if options.test else "validation"
    names = {line: name_of(line, options) for line in lines}
    logs = {(line, seed): options.folder / f"{names[line]}-{kind}-{seed}.jsonl"
            for seed in options.seeds for line in lines}
    good = [True]
    if not options.tell:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            good = list(pool.map(lambda of: train(options, *of[0], of[1]), logs.items()))

    print(f"| options | epochs | minutes | train loss | {kind} accuracy | deviation | runs |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        runs = [run for seed in options.seeds if (run := last_epoch(logs[line, seed])) is not None]
        if not runs:
            continue
        accuracies = [epoch[f"{kind}_accuracy"] for epoch, seconds in runs]
        deviation = f"{statistics.stdev(accuracies):.2f}" if len(runs) > 1 else ""
        print(f"| `{line}` | {runs[0][0]['epoch']} | {statistics.mean(s for e, s in runs) / 60:.1f} | "
              f"{statistics.mean(epoch['train_loss'] for epoch, s in runs):.3f} | "
              f"{statistics.mean(accuracies):.2f} | {deviation} | {len(runs)} |")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
