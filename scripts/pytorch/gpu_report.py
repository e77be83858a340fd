"""What scripts/gpu_check.sh makes of its results, which lie in a folder. Standard library only.

    gpu_report.py kernels DOT         counts the kernels in a graph as cuGraphDebugDotPrint writes it
    gpu_report.py accuracy FOLDER     the mean of the last accuracies in seed*.jsonl is PyTorch's
    gpu_report.py epoch FOLDER        an epoch at batch 10 takes at most 1.0 s
    gpu_report.py ratio FOLDER        a step at batch 10 takes at most a tenth of PyTorch's
    gpu_report.py speed FOLDER        the last line of step_bench.jsonl, in words
    gpu_report.py recipe FOLDER       how much longer a step takes in recipe.best.jsonl than in recipe.tutorial.jsonl
    gpu_report.py pytorch FOLDER      how many measurements gpu_bench.jsonl has; one at least
    gpu_report.py report FOLDER       report.md: facts, stages and the table for BENCHMARKS.md with its caption

All but the last print one line and have status 1 if it is not so. The files in the folder: facts.txt,
stages.tsv, step_bench.jsonl, recipe.*.jsonl, gpu_bench.jsonl, step.PRECISION.BATCH.dot, seed*.jsonl; each may be
missing or end in the middle of a line.
"""

import glob
import json
import os
import re
import statistics
import sys

ACCURACY, ALLOWED = 70.24, 1.0  # PyTorch's mean over seeds 0 to 2, see BENCHMARKS.md; per cent
EPOCH_SECONDS, RATIO, BATCH = 1.0, 10, 10


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path, errors="replace") as file:
        return file.read().splitlines()


def records(path):
    """The JSON objects of a file, one a line; what is cut off is left out."""
    found = []
    for line in lines(path):
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return [r for r in found if isinstance(r, dict)]


def kernels(path):
    """(kernels, nodes) of a graph, None if there is none. A node's label may have several lines."""
    text = "\n".join(lines(path))
    nodes = re.findall(r'^\s*"?[\w.]+"?\s*\[((?:[^"\]]|"[^"]*")*)\]', text, re.MULTILINE)
    nodes = [node for node in nodes if "label" in node]
    if not nodes:
        return None
    drawn = sum('shape="octagon"' in node for node in nodes)  # as the driver draws a kernel
    other = re.compile(r"MEMCPY|MEMSET|MEM_ALLOC|MEM_FREE|EMPTY|HOST|EVENT|cuMem", re.IGNORECASE)
    return drawn or sum(other.search(node) is None for node in nodes), len(nodes)


def ours(folder):
    """The measurements of this program by (batch, precision), the last of each."""
    return {(r["batch"], r["precision"]): r for r in records(f"{folder}/step_bench.jsonl") if "us_median" in r}


def theirs(folder):
    """The measurements of PyTorch by (batch, precision, variant)."""
    return {(r["batch"], r["precision"], r["variant"]): r for r in records(f"{folder}/gpu_bench.jsonl")
            if r.get("event") == "measured"}


def tell_kernels(path):
    counted = kernels(path)
    if counted is None:
        return False, "no graph was written"
    return True, f"{counted[0]} kernels of {counted[1]} nodes in a step"


def accuracy(folder):
    last, seconds = [], []
    for path in sorted(glob.glob(f"{folder}/seed*.jsonl")):
        epochs = [r for r in records(path) if r.get("event") == "epoch"]
        if len(epochs) != 5:
            return False, f"{os.path.basename(path)}: {len(epochs)} epochs instead of 5"
        last.append(epochs[-1]["test_accuracy"])
        seconds += [r["train_seconds"] for r in epochs]
    if len(last) != 3:
        return False, f"{len(last)} runs instead of 3"
    mean = statistics.mean(last)
    return (abs(mean - ACCURACY) <= ALLOWED,
            f"{' '.join(f'{a:.2f}' for a in last)}, mean {mean:.2f} (PyTorch {ACCURACY:.2f}, {ALLOWED:.1f} allowed); "
            f"cifar-train took {statistics.median(seconds):.3f} s an epoch")


def epoch(folder):
    measured = ours(folder).get((BATCH, "float32"))
    if measured is None:
        return False, f"no measurement at batch {BATCH}"
    seconds = measured["epoch_seconds"]
    return seconds <= EPOCH_SECONDS, f"{seconds:.3f} s an epoch at batch {BATCH}, at most {EPOCH_SECONDS:.1f} s"


def ratio(folder):
    mine, eager = ours(folder).get((BATCH, "float32")), theirs(folder).get((BATCH, "float32", "eager"))
    if mine is None or eager is None:
        return False, f"no measurement of {'this program' if mine is None else 'PyTorch eager'} at batch {BATCH}"
    times = eager["us_median"] / mine["us_median"]
    return times >= RATIO, (f"{mine['us_median']:.1f} us a step, PyTorch eager {eager['us_median']:.1f} us: "
                            f"{times:.1f} times as fast, at least {RATIO}")


def speed(folder):
    measured = records(f"{folder}/step_bench.jsonl")
    if not measured:
        return False, "no measurement"
    r = measured[-1]
    return True, (f"{r['us_median']:.1f} us/step, p95 {r['us_p95']:.1f}, {r['epoch_seconds']:.3f} s/epoch, "
                  f"{r['images_per_second']:.0f} images/s, {r['memory_bytes'] / 1e6:.0f} MB")


def recipe(folder):
    times = [[r["us_median"] for r in records(f"{folder}/recipe.{name}.jsonl")] for name in ("tutorial", "best")]
    if not all(times):
        return False, "no measurement"
    tutorial, best = map(statistics.median, times)
    return True, (f"{best:.1f} us a step at batch 64 with everything, {tutorial:.1f} us of the tutorial's: "
                  f"{best / tutorial:.3f}")


def pytorch(folder):
    events = [r.get("event") for r in records(f"{folder}/gpu_bench.jsonl")]
    measured, failed = events.count("measured"), events.count("failed")
    return measured > 0, f"{measured} measured, {failed} failed"


def caption(folder):
    """Where the table comes from, in one line, since it is copied without the rest."""
    facts = dict(line.split(": ", 1) for line in lines(f"{folder}/facts.txt") if ": " in line)
    described = ([""] + [r["description"] for r in records(f"{folder}/step_bench.jsonl") if "description" in r])[-1]
    started = next((r for r in records(f"{folder}/gpu_bench.jsonl") if r.get("event") == "start"), {})

    def told(pattern):
        """What the program says of itself."""
        found = re.search(pattern, described)
        return found and found[1]

    def known(*texts):
        return next((str(text) for text in texts if text not in (None, "", "unknown")), "unknown")

    cudnn = started.get("cudnn")
    if isinstance(cudnn, int):
        cudnn = f"{cudnn // 10000}.{cudnn % 10000 // 100}.{cudnn % 100}"
    gpu = known(told("^(.+?), "), started.get("gpu"), facts.get("GPU"))  # the one that was used of several
    driver = known(facts.get("driver")).split("; ")[0]
    return (f"{known(facts.get('date'))}, GPU {gpu}, driver {driver} for CUDA "
            f"{known(told(r'driver for CUDA ([0-9.]+)'))}; "
            f"this program at commit {known(facts.get('commit'))}, built with CUDA "
            f"{known(told(r'built with CUDA ([0-9.]+)'))}, cuDNN {known(told(r'cuDNN ([0-9.]+)'))}"
            f"{', without graphs' if 'without graphs' in described else ''}; "
            f"PyTorch {known(started.get('torch'))} with CUDA {known(started.get('cuda'))}, cuDNN {known(cudnn)}; "
            f"`{known(facts.get('command'))}`")


def table(folder):
    """Ratios are PyTorch's time over the row's, at the same batch and precision."""
    mine, pytorch = ours(folder), theirs(folder)
    yield caption(folder)
    yield ""
    yield ("| batch | program | precision | us/step median | p95 | s/epoch | images/s | kernels/step "
           "| ratio to PyTorch eager | ratio to PyTorch's best |")
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for batch, precision in sorted({(k[0], k[1]) for k in (*mine, *pytorch)}):
        others = {k[2]: r for k, r in pytorch.items() if k[:2] == (batch, precision)}
        eager = others.get("eager")
        best = min(others.values(), key=lambda r: r["us_median"], default=None)
        rows = [("this program", mine[batch, precision])] if (batch, precision) in mine else []
        rows += [(f"PyTorch {variant}{' (best)' if r is best else ''}", r) for variant, r in others.items()]
        counted = kernels(f"{folder}/step.{precision}.{batch}.dot")
        for i, (program, r) in enumerate(rows):
            ratios = [f"{other['us_median'] / r['us_median']:.2f}" if other else "" for other in (eager, best)]
            count = str(counted[0]) if counted and program == "this program" else ""
            yield (f"| {batch} | {program} | {precision} | {r['us_median']:.1f} | {r['us_p95']:.1f} "
                   f"| {r['epoch_seconds']:.3f} | {r['images_per_second']:.0f} | {count} | {ratios[0]} | {ratios[1]} |")


def report(folder):
    stages = sorted((line.split("\t") for line in lines(f"{folder}/stages.tsv") if line.count("\t") == 4),
                    key=lambda fields: int(fields[0]))
    failed = [fields[2] for fields in stages if fields[1] != "pass"]
    summary = f"{len(stages) - len(failed)} passed, {len(failed)} failed{': ' if failed else ''}{'; '.join(failed)}"
    text = ["# Check on a GPU", "", *(f"- {line}" for line in lines(f"{folder}/facts.txt"))]
    described = {r["description"] for r in records(f"{folder}/step_bench.jsonl") if "description" in r}
    text += [f"- this program: {description}" for description in sorted(described)]
    for r in records(f"{folder}/gpu_bench.jsonl"):
        if r.get("event") == "start":
            on = {True: "on", False: "off"}
            text.append(f"- PyTorch {r['torch']} on {r['gpu']}, CUDA {r['cuda']}, cuDNN {r['cudnn']}; by default TF32 "
                        f"is {on[r['default_tf32_convolutions']]} in convolutions and "
                        f"{on[r['default_tf32_products']]} in products")
    text += ["", "## Stages", "", "| | stage | seconds | |", "|---|---|---|---|"]
    text += [f"| {verdict} | {name} | {seconds} | {detail} |" for _, verdict, name, seconds, detail in stages]
    text += ["", "## Training speed", "", *table(folder), ""]
    text += [f"- PyTorch {r['variant']}, batch {r['batch']}, {r['precision']}: not measured: {r['error']}"
             for r in records(f"{folder}/gpu_bench.jsonl") if r.get("event") == "failed"]
    text += ["", summary, ""]
    with open(f"{folder}/report.md", "w") as file:
        file.write("\n".join(text))
    print("\n".join(text), end="")
    return not failed and bool(stages)


def main():
    told = {"kernels": tell_kernels, "accuracy": accuracy, "epoch": epoch, "ratio": ratio, "speed": speed,
            "recipe": recipe, "pytorch": pytorch}
    if len(sys.argv) != 3 or sys.argv[1] not in (*told, "report"):
        sys.exit(__doc__)
    what, path = sys.argv[1:]
    if what == "report":
        sys.exit(not report(path))
    good, text = told[what](path)
    print(f"detail: {text}")
    sys.exit(not good)


if __name__ == "__main__":
    main()
