"""The tutorial's network and training step in PyTorch: what the scripts beside this one compare with."""

import os
import sys

try:
    import numpy as np
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
except ImportError as missing:
    sys.exit(f"{type(missing).__name__}: {missing}\n"
             "An environment that has all that these scripts need (on Debian after apt-get install python3-venv):\n"
             "    python3 -m venv ~/venv && ~/venv/bin/pip install torch torchvision numpy safetensors\n"
             "Run this again with ~/venv/bin/python.")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels=3, out_channels=12, kernel_size=5, stride=1, padding=1)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(in_channels=12, out_channels=12, kernel_size=5, stride=1, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv4 = nn.Conv2d(in_channels=12, out_channels=24, kernel_size=5, stride=1, padding=1)
        self.bn4 = nn.BatchNorm2d(24)
        self.conv5 = nn.Conv2d(in_channels=24, out_channels=24, kernel_size=5, stride=1, padding=1)
        self.bn5 = nn.BatchNorm2d(24)
        self.fc1 = nn.Linear(24 * 10 * 10, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.pool(x)
        x = F.relu(self.bn4(self.conv4(x)))
        x = F.relu(self.bn5(self.conv5(x)))
        return self.fc1(x.reshape(-1, 24 * 10 * 10))


def load(folder, part):
    """The images (uint8, [n, 3, 32, 32]) and labels of a folder's "train" or "test" part."""
    files = [f"{folder}/data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else [f"{folder}/test_batch.bin"]
    images = torch.empty((sum(os.path.getsize(f) for f in files) // 3073, 3, 32, 32), dtype=torch.uint8)
    labels = torch.empty(len(images), dtype=torch.int64)
    first = 0
    for file in files:
        records = torch.from_numpy(np.fromfile(file, np.uint8).reshape(-1, 3073))
        images[first:first + len(records)] = records[:, 1:].view(-1, 3, 32, 32)
        labels[first:first + len(records)] = records[:, 0]
        first += len(records)
    return images, labels


def normalise(images):
    """As ToTensor() and Normalize(0.5, 0.5)."""
    return (images.float() / 255 - 0.5) / 0.5


def adam(network, **options):
    return torch.optim.Adam(network.parameters(), lr=0.001, weight_decay=0.0001, **options)


def step(network, optimizer, images, labels):
    """One training step; its loss."""
    optimizer.zero_grad()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()
