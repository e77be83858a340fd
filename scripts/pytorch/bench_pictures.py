"""Measure predictions for pictures: the test images as 10,000 PNG files, and as larger JPEGs.

    bench_pictures.py CIFAR FOLDER [ROUNDS]     CIFAR: the program (build/test/cifar); FOLDER: the batches

Needs torch, torchvision and numpy from PyPI. Compares, in turn: reading and decoding alone, by the program's own
code on all threads and on one (tests/bench/picture_bench.c); cifar-predict; and what people write in Python: PIL,
torchvision's transforms and the network, in one process. Prints a table in Markdown.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import tutorial  # first: it says what is missing

import torch
from PIL import Image
from torchvision import transforms

BATCH = 32


def make(folder, images, size, ending, **options):
    os.makedirs(folder)
    for i, image in enumerate(images):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture.resize(size, Image.BICUBIC).save(f"{folder}/{i:05}.{ending}", **options)


def in_python(folder, network, prepare):
    began = time.perf_counter()
    predicted = []
    names = sorted(os.listdir(folder))
    with torch.no_grad():
        for at in range(0, len(names), BATCH):
            pictures = [prepare(Image.open(f"{folder}/{name}").convert("RGB")) for name in names[at : at + BATCH]]
            predicted += network(torch.stack(pictures)).argmax(1).tolist()
    return time.perf_counter() - began


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    cifar, data, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5
    bench = f"{os.path.dirname(cifar)}/tests/picture_bench"
    images, _ = tutorial.load(data, "test")
    network = tutorial.Network().eval()
    prepare = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.ToTensor(),
                                  transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    threads = str(torch.get_num_threads())
    print(f"torch {torch.__version__}, {threads} threads, medians of {rounds} rounds, pictures a second\n")
    print("| pictures | decoding alone | on one thread | cifar-predict | of decoding | PIL and PyTorch |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        model = f"{work}/model.ckpt"
        subprocess.run([cifar, "train", "--quiet", "--data", data, "--epochs", "1", "--limit", "1000", "--model", model],
                       check=True)
        make(f"{work}/png", images, (32, 32), "png")
        make(f"{work}/jpeg", images[:1000], (640, 480), "jpg", quality=90)
        for kind, what in ("png", "10,000 PNG, 32 x 32"), ("jpeg", "1,000 JPEG, 640 x 480"):
            folder, seconds = f"{work}/{kind}", {}

            def measure(name, run):
                began = time.perf_counter()
                run()
                seconds.setdefault(name, []).append(time.perf_counter() - began)

            for _ in range(rounds):
                for name, command in (("all", [bench, threads, folder]), ("one", [bench, "1", folder]),
                                      ("predict", [cifar, "predict", "--threads", threads, "--model", model, folder])):
                    measure(name, lambda c=command: subprocess.run(c, check=True, stdout=subprocess.DEVNULL))
                measure("python", lambda: in_python(folder, network, prepare))
            count = len(os.listdir(folder))
            speed = {name: count / statistics.median(values) for name, values in seconds.items()}
            print(f"| {what} | {speed['all']:,.0f} | {speed['one']:,.0f} | {speed['predict']:,.0f} | "
                  f"{100 * speed['predict'] / speed['all']:.0f} % | {speed['python']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
