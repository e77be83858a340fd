"""Write the golden files of the tests: what PyTorch computes on a few synthetic images, and how
torchvision resizes pictures.

    make_golden.py CIFAR_SYNTH      CIFAR_SYNTH: the program, such as build/release/cifar-synth

Needs torch, torchvision, numpy and safetensors from PyPI. Of tensors with more than 1,024 elements the golden
files hold every 7th, which keeps them small and still meets every channel and kernel position.
"""

import os
import subprocess
import sys
import tempfile

import tutorial  # first: it says what is missing

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/golden")
IMAGES, BATCH, ORDER = 32, 10, 1000
RESIZED = [(1, 1), (2, 3), (31, 33), (66, 64), (64, 70), (100, 64), (500, 333), (1, 200), (1500, 1000)]


def sample(tensor):
    flat = tensor.detach().reshape(-1)
    return (flat[::7] if flat.numel() > 1024 else flat).clone()


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


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.argv[1], folder, "--train", str(IMAGES), "--test", "10"], check=True)
        images, labels = tutorial.load(folder, "train")
    initial(0)
    initial(7)
    steps(tutorial.normalise(images), labels)
    resize()
    print("torch", torch.__version__)


if __name__ == "__main__":
    main()
