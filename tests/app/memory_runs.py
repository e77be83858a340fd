"""Judges the runs of a command whose allocations failed, one a run (fakes/failing_memory.c): memory_runs.py RUNS OWN
PRINTED, with the folder of the runs, that of the undisturbed run, and what it printed. Prints how many runs there
are and how they ended, then a run, one a line, for each different state in which files were left."""
import collections
import os
import re
import sys

runs, own, printed = sys.argv[1:]
MESSAGE = re.compile(rb"cifar(-[a-z]+)?: [^\n]+\n")
# Where no code of ours is called: OpenMP's own memory, and OpenBLAS and its libraries while they are loaded.
OTHERS = {
    "libgomp's word": ((1,), rb"\nlibgomp: Out of memory allocating \d+ bytes\n"),
    "OpenBLAS not loaded": ((5,), rb"cifar-[a-z]+: --device openblas: OpenBLAS cannot be loaded [^\n]+\n"),
    "libgfortran's word": ((1, 139), rb"Operating system error: Cannot allocate memory\n[A-Z][a-z ]+ failed(\n|\0)*"),
}
RECORD = re.compile(rb'{"event":"(step|epoch)"')
TIMES = re.compile(rb'"(train|test|validation|images_per)_seconds?":[^,]+,')
contents = {}


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def state(folder):
    """What each file holds; of a log, the records of steps and epochs without times."""
    files = {}
    for entry in os.scandir(folder):
        # a lock stays where the end comes at once, and hinders nobody
        if entry.name in ("out", "err", "status") or entry.name.endswith(".lock"):
            continue
        if entry.inode() not in contents: # the same file stands in many folders
            contents[entry.inode()] = read(entry)
        files[entry.name] = contents[entry.inode()]
        if entry.name.endswith(".jsonl"):
            lines = files[entry.name].split(b"\n")
            files[entry.name] = TIMES.sub(b"", b"\n".join(line for line in lines if RECORD.match(line)))
    return files


def end_of(folder, files, final):
    """How a run ended, None if it should not have ended so."""
    status, out, err = int(read(folder, "status")), read(folder, "out"), read(folder, "err")
    if any(name.endswith(".tmp") for name in files):
        return None
    if any(files[name] != final[name] for name in files if not name.endswith((".ckpt", ".jsonl"))):
        return None # checkpoints and logs are looked into by whoever called
    if status == 0 and err == b"" and out == read(printed) and files == final:
        return "did without"
    if status == 1 and MESSAGE.fullmatch(err):
        return "status 1 and one message"
    for name, (statuses, text) in OTHERS.items():
        if status in statuses and re.fullmatch(text, err):
            return name
    return None


final = state(own)
ends, states, wrong = collections.Counter(), {}, []
for number in sorted((name for name in os.listdir(runs) if name != "count"), key=int):
    files = state(os.path.join(runs, number))
    end = end_of(os.path.join(runs, number), files, final)
    ends[end] += 1
    states.setdefault(frozenset(files.items()), number)
    if end is None:
        wrong.append(number)
count = len(os.listdir(runs)) - 1
assert count == int(read(runs, "count")), f"{count} runs of {int(read(runs, 'count'))}"
print(f"{count} allocations failed:",
      ", ".join(f"{count} {end}" for end, count in ends.most_common()) + f"; {len(states)} states of the files")
print(*states.values(), sep="\n")
for number in wrong[:20]:
    print(f"run {number}: status {int(read(runs, number, 'status'))}, files {os.listdir(os.path.join(runs, number))}:",
          read(runs, number, "err").decode(errors="replace"), file=sys.stderr)
sys.exit(bool(wrong))
