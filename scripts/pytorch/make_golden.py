"""Write the golden files of the tests: what PyTorch computes on a few synthetic images, and how
torchvision resizes pictures.

    make_golden.py CIFAR_SYNTH      CIFAR_SYNTH: the program, such as build/release/cifar-synth

Needs torch, torchvision, numpy and safetensors from PyPI. Of tensors with more than 1,024 elements the golden
files hold every 7th (recipes.safetensors: every 29th), which keeps them small and still meets every channel and
kernel position.
"""

import math
import os
import subprocess
import sys
import tempfile
from unittest import mock

import tutorial  # first: it says what is missing

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.optim import lr_scheduler, swa_utils
from torchvision import transforms

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden")
IMAGES, BATCH, ORDER = 32, 10, 1000
RESIZED = [(1, 1), (2, 3), (31, 33), (66, 64), (64, 70), (100, 64), (500, 333), (1, 200), (1500, 1000)]


def sample(tensor, stride=7):
    flat = tensor.detach().reshape(-1)
    return (flat[::stride] if flat.numel() > 1024 else flat).clone()


def initial(seed):
    """The weights of a new network, and the order of two epochs drawn behind them."""
    torch.manual_seed(seed)
    network = tutorial.Network()
    tensors = {name: sample(p) for name, p in network.named_parameters()}
    for epoch in (1, 2):
        tensors[f"order{epoch}"] = torch.randperm(ORDER).to(torch.int32)
    save_file(tensors, f"{GOLDEN}/seed{seed}.safetensors")


def steps(images, labels):
    """The first step in detail, then the state after three."""
    torch.manual_seed(0)
    network = tutorial.Network()
    optimizer = tutorial.adam(network)
    first, first_labels = images[:BATCH], labels[:BATCH]

    network.eval()
    tensors = {"logits_evaluation": network(first).detach().clone()}
    network.train()
    logits = network(first)
    loss = torch.nn.functional.cross_entropy(logits, first_labels)
    loss.backward()
    tensors |= {"logits_training": logits.detach().clone(), "loss": loss.detach().reshape(1)}
    tensors |= {f"gradient.{name}": sample(p.grad) for name, p in network.named_parameters()}
    tensors |= {name: b.clone() for name, b in network.named_buffers() if b.is_floating_point()}

    torch.manual_seed(0)
    network = tutorial.Network()
    optimizer = tutorial.adam(network)
    losses = [tutorial.step(network, optimizer, images[i:i + BATCH], labels[i:i + BATCH])
              for i in range(0, 3 * BATCH, BATCH)]
    tensors["losses"] = torch.tensor(losses)
    network.eval()
    tensors["logits_after"] = network(first).detach().clone()
    save_file(tensors, f"{GOLDEN}/step.safetensors")
    save_file(network.state_dict(), f"{GOLDEN}/after3.safetensors")  # a checkpoint as a PyTorch user saves it


def resize():
    """Pictures of many sizes, drawn by a formula that tests/data/resize_test.c has, too."""
    bilinear = transforms.InterpolationMode.BILINEAR
    crops = {"center": [transforms.Resize(32, bilinear), transforms.CenterCrop(32)],
             "squash": [transforms.Resize((32, 32), bilinear)]}
    tensors = {}
    for width, height in RESIZED:
        y, x, channel = numpy.indices((height, width, 3), numpy.uint32)
        pixels = (x * 7 + y * 13 + channel * 29 + 1) * numpy.uint32(2654435761) >> 24
        image = Image.fromarray(pixels.astype(numpy.uint8))
        for crop, (scale, *rest) in crops.items():
            # across, then down, as Pillow did in one call before version 13
            across = image.resize((scale(image).width, height), Image.Resampling.BILINEAR)
            ours, theirs = (numpy.asarray(transforms.Compose(rest)(picture)) for picture in (
                across.resize(scale(image).size, Image.Resampling.BILINEAR), scale(image)))
            assert numpy.abs(ours.astype(int) - theirs).max() <= 1
            tensors[f"{width}x{height}.{crop}"] = torch.tensor(ours).permute(2, 0, 1).contiguous()
    save_file(tensors, f"{GOLDEN}/resize.safetensors")


# ---- recipes ----

# of six steps: what learning rates are multiplied by
SCHEDULE = [0.5, 1, 0.8, 0.6, 0.4, 0.2]
# schedule, steps, warm-up and final rate as parts
SCHEDULES = [("constant", 7, 0, 0), ("constant", 10, 0.25, 0), ("linear", 1, 0, 0), ("linear", 12, 0, 0.1),
             ("linear", 50, 0.2, 0), ("linear", 9, 0.5, 0.3), ("linear", 6, 1, 0), ("cosine", 1, 0, 0),
             ("cosine", 12, 0, 0.1), ("cosine", 50, 0.2, 0), ("cosine", 33, 0.05, 1), ("cosine", 6, 1, 0)]


def rates(schedule, steps, warmup, final):
    """What a learning rate is multiplied by in each step."""
    rising = math.floor(warmup * steps + 0.5)
    falling = max(steps - rising, 1)  # after a warm-up of all steps there is none
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1)
    parts = [] if rising == 0 else [lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), 1, rising)]
    parts.append({"constant": lambda: lr_scheduler.ConstantLR(optimizer, 1, 0),
                  "linear": lambda: lr_scheduler.LinearLR(optimizer, 1, final, falling),
                  "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, falling, final)}[schedule]())
    scheduler = lr_scheduler.SequentialLR(optimizer, parts, [rising][:len(parts) - 1])
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return torch.tensor(found, dtype=torch.float64)


def views():
    """Image, pixels down, pixels right, mirrored, reflected: of each image that the six steps see."""
    far = {3: (31, -31), 9: (-31, 0), 17: (0, 31)}
    return [(i * 7 % 30, *far.get(i, (i * 5 % 7 - 3, i * 11 % 7 - 3)), i // 3 % 2, int(i % 4 != 0)) for i in range(60)]


def seen(images, view):
    image, down, right, mirrored, reflected = view
    wide = [abs(right)] * 2 + [abs(down)] * 2
    padded = torch.nn.functional.pad(images[image].float(), wide, "reflect" if reflected else "constant")
    moved = padded[:, wide[2] - down:, wide[0] - right:][:, :32, :32]
    return (moved.flip(2) if mirrored else moved).to(torch.uint8)


class Muon:
    """As include/device/device.h defines it, of the convolutions' weights."""

    def __init__(self, weights, lr, momentum):
        self.weights, self.lr, self.momentum = weights, lr, momentum
        self.m = [torch.zeros_like(w) for w in weights]

    def step(self, factor):
        for w, m in zip(self.weights, self.m):
            g = w.grad
            w.data *= math.sqrt(len(w)) / w.data.norm()
            m += (1 - self.momentum) * (g - m)
            x = (g + self.momentum * (m - g)).flatten(1)
            x = x / x.norm().clamp(min=1e-7)
            for _ in range(5):
                a = x @ x.T
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            w.data -= self.lr * factor * x.view_as(w)


def muon_is_pytorchs():
    """torch.optim.Muon computes in bfloat16. In float64 instead it is the Muon above."""
    torch.manual_seed(0)
    ours, theirs = ([torch.randn(12, 75, dtype=torch.float64)] for _ in range(2))
    theirs[0] = torch.nn.Parameter(ours[0].clone())
    optimizer = torch.optim.Muon(theirs, lr=0.01, momentum=0.95, weight_decay=0)
    own = Muon(ours, 0.01, 0.95)
    for _ in range(5):
        ours[0].grad = torch.randn_like(ours[0])
        theirs[0].grad = ours[0].grad.clone()
        theirs[0].data *= math.sqrt(12) / theirs[0].data.norm()
        own.step(1)
        with mock.patch.object(torch, "bfloat16", torch.float64):
            optimizer.step()
    assert (ours[0] - theirs[0]).abs().max() < 1e-12


def optimisers(name, network):
    """Functions that take a step with what the learning rate is multiplied by."""
    convolutions = [p for p in network.parameters() if p.dim() == 4]
    rest = [p for p in network.parameters() if p.dim() != 4]
    made = []
    if name == "muon":
        made.append(Muon(convolutions, 0.01, 0.95).step)
    base = 0.001 if name == "sgd" else 0.0005
    optimizer = torch.optim.SGD(network.parameters(), lr=base, momentum=0.9, weight_decay=2, nesterov=True) \
        if name == "sgd" else torch.optim.AdamW(rest if name == "muon" else network.parameters(), lr=base,
                                                weight_decay=20)

    def step(factor):
        optimizer.param_groups[0]["lr"] = base * factor
        optimizer.step()

    return made + [step]


def train(name, images, labels, dtype):
    """Losses, the network, and the average of its parameters, of six steps."""
    torch.manual_seed(0)
    network = tutorial.Network().to(dtype)
    average = swa_utils.AveragedModel(network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    steps, losses = optimisers(name, network), []
    for i, factor in enumerate(SCHEDULE):
        batch = views()[i * BATCH:(i + 1) * BATCH]
        x = tutorial.normalise(torch.stack([seen(images, view) for view in batch])).to(dtype)
        network.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), labels[[view[0] for view in batch]], label_smoothing=0.1)
        loss.backward()
        for step in steps:
            step(factor)
        average.update_parameters(network)
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64), network.state_dict(), dict(average.module.named_parameters())


def vectors(result):
    """What is compared: losses, and of the network and of its average the parameters, and the statistics. A
    convolution's bias is left out, which batch normalisation takes off again: its gradient is rounding alone."""
    losses, *states = result
    found = {"losses": losses}
    for what, state in zip(("network", "average"), states):
        for key, tensor in state.items():
            if tensor.is_floating_point() and not (key.startswith("conv") and key.endswith("bias")):
                kind = "statistics" if "running" in key else "parameters"
                found.setdefault(f"{what}.{kind}", []).append(sample(tensor.double(), 29))
    return {key: torch.cat(parts) if isinstance(parts, list) else parts for key, parts in found.items()}


def recipes():
    """Six steps of each optimiser in float64. How far float32 is off, as a part of what the steps have changed, says
    how far a program may be."""
    muon_is_pytorchs()
    # noise: where an image has two equal spots, the largest of them is a matter of rounding
    torch.manual_seed(1)
    records = torch.randint(0, 256, (30, 3073))
    images, labels = records[:, 1:].to(torch.uint8).view(-1, 3, 32, 32), records[:, 0] % 10
    torch.backends.mkldnn.enabled = False  # oneDNN's convolutions are a thousand times as far off
    tensors = {"views": torch.tensor(views(), dtype=torch.int32),
               "schedule": torch.tensor(SCHEDULE, dtype=torch.float64)}
    for i, (schedule, *numbers) in enumerate(SCHEDULES):
        kind = ["constant", "linear", "cosine"].index(schedule)
        tensors[f"rates{i}"] = torch.cat([torch.tensor([kind, *numbers], dtype=torch.float64),
                                          rates(schedule, *numbers)])
    torch.manual_seed(0)
    initial = tutorial.Network()
    for name in ("adamw", "sgd", "muon"):
        exact, rounded = (vectors(train(name, images, labels, dtype)) for dtype in (torch.float64, torch.float32))
        before = vectors((torch.zeros(len(SCHEDULE)), initial.state_dict(), dict(initial.named_parameters())))
        for key, e in exact.items():
            off = ((rounded[key] - e).norm() / (e - before[key]).norm()).reshape(1).float()
            tensors |= {f"{name}.{key}": e.float(), f"{name}.{key}.rounding": off}
            print(f"{name}.{key}: float32 is off by {off.item():.1e}")
    torch.backends.mkldnn.enabled = True
    save_file(tensors, f"{GOLDEN}/recipes.safetensors")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder, "--train", str(IMAGES), "--test", "10"], check=True)
        images, labels = tutorial.load(folder, "train")
    initial(0)
    initial(7)
    steps(tutorial.normalise(images), labels)
    recipes()
    resize()
    print("torch", torch.__version__)


if __name__ == "__main__":
    main()
