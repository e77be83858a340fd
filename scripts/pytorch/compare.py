"""Compare the trainer with PyTorch on a data set: the first losses, and checkpoints both ways.

    compare.py CIFAR FOLDER [SEED]...     CIFAR: the program (build/release/cifar); FOLDER: the batches

Needs torch, numpy and safetensors from PyPI. For every seed (default 0 1 2 7) the first losses at
batch 10 must agree with PyTorch's within 1e-4 (steps 1 to 10) and 2e-3 (to 20): with those of its
convolutions from oneDNN, the default, or of its own. Where a gradient is all but zero, Adam's first
steps turn its rounding into a whole step, so that with some seeds PyTorch differs from itself by more.
So must the first losses of the recipe `best`, of an epoch of its own, all of whose draws PyTorch makes, too.
Then a checkpoint of each program must give the same logits (within 1e-4), loss and accuracy in both.
"""

import json
import os
import subprocess
import sys
import tempfile

import tutorial  # first: it says what is missing

import make_golden

import torch
from safetensors.torch import load_file, save_file

STEPS, BATCH = 20, 10
RECIPE = ("--recipe best --batch 64 --optimizer muon --lr 0.01 --weight-decay 0.01 --decoupled --muon-lr 0.01 "
          "--momentum 0.95 --schedule linear --warmup 0.2 --final-lr 0 --flip alternating --shift 2 --border reflect "
          "--label-smoothing 0")
failures = 0


def check(what, good):
    global failures
    failures += not good
    print(f"{'ok    ' if good else 'FAILED'} {what}", flush=True)


def run(cifar, *arguments):
    return subprocess.run([cifar, *arguments], check=True, capture_output=True, text=True).stdout


def expected_losses(images, labels, seed, onednn):
    """PyTorch's first losses, with oneDNN's convolutions (its default) or its own."""
    torch.backends.mkldnn.enabled = onednn
    torch.manual_seed(seed)
    network = tutorial.Network()
    order = torch.randperm(len(labels))
    optimizer = tutorial.adam(network)
    batches = [order[i:i + BATCH] for i in range(0, STEPS * BATCH, BATCH)]
    return [tutorial.step(network, optimizer, tutorial.normalise(images[b]), labels[b]) for b in batches]


def expected_recipe(images, labels, seed):
    """The same by RECIPE, in a run of one epoch."""
    batch, lr, shift = 64, 0.01, 2
    torch.backends.mkldnn.enabled = False
    begins = torch.randint(0, 2, (len(labels),), generator=torch.Generator().manual_seed(~seed & 2**64 - 1))
    torch.manual_seed(seed)
    network = tutorial.Network()
    order = torch.randperm(len(labels))
    moved = torch.randint(0, 2 * shift + 1, (len(labels), 2)) - shift
    views = [(i, *move, 1 - begins[i], True) for i, move in zip(order, moved.tolist())]
    convolutions = [p for p in network.parameters() if p.dim() == 4]
    muon = make_golden.Muon(convolutions, 0.01, 0.95)
    adamw = torch.optim.AdamW([p for p in network.parameters() if p.dim() != 4], lr=lr, weight_decay=0.01)
    factors, losses = make_golden.rates("linear", -(-len(labels) // batch), 0.2, 0), []
    for k in range(STEPS):
        seen = torch.stack([make_golden.seen(images, view) for view in views[k * batch:(k + 1) * batch]])
        network.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(tutorial.normalise(seen)),
                                                 labels[order[k * batch:(k + 1) * batch]])
        loss.backward()
        muon.step(factors[k].item())
        adamw.param_groups[0]["lr"] = lr * factors[k].item()
        adamw.step()
        losses.append(loss.item())
    torch.backends.mkldnn.enabled = True
    return losses


def found_losses(cifar, folder, seed, work, *more):
    log = f"{work}/seed{seed}{''.join(more)}.jsonl"
    training = subprocess.Popen([cifar, "train", "--quiet", "--data", folder, "--seed", str(seed), "--epochs", "1",
                                 "--log-every", "1", "--log", log, "--model", f"{work}/unused.ckpt", "--overwrite",
                                 *more])
    found = []
    while len(found) < STEPS and training.poll() is None:  # a whole epoch is not needed
        if os.path.exists(log):
            with open(log) as lines:
                records = [json.loads(line) for line in lines if line.endswith("\n")]
            found = [r["loss"] for r in records if r["event"] == "step"]
    training.kill()
    training.wait()
    return found[:STEPS]


def worst(found, expected):
    return max(abs(f - e) / e for f, e in zip(found, expected, strict=True))


def first_losses(cifar, folder, images, labels, seed, work):
    found = found_losses(cifar, folder, seed, work)
    own, onednn = (expected_losses(images, labels, seed, onednn=which) for which in (False, True))
    for first, last, tolerance in ((0, 10, 1e-4), (10, 20, 2e-3)):
        part = slice(first, last)
        error, other = worst(found[part], onednn[part]), worst(found[part], own[part])
        check(f"seed {seed}: losses {first + 1} to {last} within {tolerance:.0e}: worst {error:.1e} with oneDNN, "
              f"{other:.1e} without; PyTorch's two differ by {worst(own[part], onednn[part]):.1e}",
              min(error, other) < tolerance)


def recipe_losses(cifar, folder, images, labels, seed, work):
    found, expected = (found_losses(cifar, folder, seed, work, *RECIPE.split()),
                       expected_recipe(images, labels, seed))
    for first, last, tolerance in ((0, 10, 1e-4), (10, 20, 2e-3)):
        error = worst(found[first:last], expected[first:last])
        check(f"seed {seed}, recipe best: losses {first + 1} to {last} within {tolerance:.0e}: worst {error:.1e}",
              error < tolerance)


def logits(state, images):
    network = tutorial.Network()
    network.load_state_dict(state)  # strict
    network.eval()
    with torch.no_grad():
        return torch.cat([network(tutorial.normalise(images[i:i + 500])) for i in range(0, len(images), 500)])


def checkpoints(cifar, folder, work):
    images, labels = tutorial.load(folder, "test")
    ours, theirs = f"{work}/ours.ckpt", f"{work}/theirs.ckpt"
    run(cifar, "train", "--quiet", "--data", folder, "--epochs", "1", "--limit", "2000", "--model", ours, "--overwrite")
    state = load_file(ours)
    save_file(state, theirs)
    for name, path in (("the trainer's", ours), ("PyTorch's", theirs)):
        report = json.loads(run(cifar, "test", "--json", "--grid", "", "--data", folder, "--model", path))
        y = logits(load_file(path), images)
        first = (torch.tensor(report["logits"]) - y[:BATCH]).abs().max().item()
        check(f"{name} checkpoint: logits are PyTorch's within 1e-4 (worst {first:.1e})", first < 1e-4)
        loss = torch.nn.functional.cross_entropy(y, labels).item()
        accuracy = 100 * (y.argmax(1) == labels).float().mean().item()
        check(f"{name} checkpoint: loss {report['loss']:.6f} is PyTorch's {loss:.6f} within 1e-5",
              abs(report["loss"] - loss) < 1e-5 * loss)
        check(f"{name} checkpoint: accuracy {report['accuracy']:.2f} is PyTorch's {accuracy:.2f} within 0.02",
              abs(report["accuracy"] - accuracy) < 0.021)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    cifar, folder, seeds = sys.argv[1], sys.argv[2], [int(s) for s in sys.argv[3:]] or [0, 1, 2, 7]
    images, labels = tutorial.load(folder, "train")
    print("torch", torch.__version__)
    with tempfile.TemporaryDirectory() as work:
        for seed in seeds:
            first_losses(cifar, folder, images, labels, seed, work)
            recipe_losses(cifar, folder, images, labels, seed, work)
        checkpoints(cifar, folder, work)
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
