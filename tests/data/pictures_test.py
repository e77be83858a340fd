#!/usr/bin/python3
"""Pictures as Pillow reads, turns and resizes them, beside what picture.h makes of the same files.

Takes picture_dump from $DUMP. By the system's own Python, for which Debian's python3-pil is. Status 77: it is
not here.
"""
import io
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import PIL
    from PIL import Image, ImageChops, ImageFile, ImageOps
except ImportError:
    print("SKIPPED: there is no Pillow here (python3-pil)")
    sys.exit(77)

SIZES, BILINEAR, SIDE = 200, Image.Resampling.BILINEAR, 32
OTHER_ORDER = int(PIL.__version__.split(".")[0]) >= 13  # it may go down first, then across
ImageFile.MAXBLOCK = 1 << 20  # where it saves a JPEG, which noise makes large
worst = {}  # the greatest difference, by what was compared


def dump(path):
    """The picture, in its middle and squashed, as picture.h has them."""
    found = subprocess.run([os.environ["DUMP"], path], stdout=subprocess.PIPE, check=True).stdout
    size = struct.unpack("2i", found[:8])
    pixels, *fitted = found[8:-2 * 3 * SIDE**2], found[-2 * 3 * SIDE**2:-3 * SIDE**2], found[-3 * SIDE**2:]
    planes = [[Image.frombytes("L", (SIDE, SIDE), f[i:i + SIDE**2]) for i in range(0, 3 * SIDE**2, SIDE**2)]
              for f in fitted]
    return [Image.frombytes("RGB", size, pixels)] + [Image.merge("RGB", p) for p in planes]


def center(image):
    """transforms.Resize(32), then CenterCrop(32)"""
    short = min(image.size)
    image = image.resize([int(SIDE * side / short) for side in image.size], BILINEAR)
    left, top = (int(round((side - SIDE) / 2.0)) for side in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def difference(a, b):
    assert a.size == b.size, (a.size, b.size)
    return max(high for _, high in ImageChops.difference(a, b).getextrema())


def noise(mode, size):
    """A picture of that mode: a gradient with noise, so that both edges and planes are there."""
    channels = len(mode) if mode in ("RGB", "RGBA", "LA") else 1
    count = size[0] * size[1] * channels
    if random.random() < 0.5:
        return Image.frombytes(mode, size, random.randbytes(count))
    small = Image.frombytes(mode, (3, 3), random.randbytes(9 * channels))
    return small.resize(size, Image.Resampling.BICUBIC)


def on_white(image):
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


class Pictures(unittest.TestCase):
    def compare(self, name, image, expected=None, most=0, **how):
        """Saves it, and has it read by both."""
        path = os.path.join(self.folder, name)
        image.save(path, **how)
        expected = expected or ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found, middle, squashed = dump(path)
        kind = path.rsplit(".", 1)[1]
        for what, a, b in ((kind, found, expected), ("center", middle, center(found)),
                           ("squash", squashed, found.resize((SIDE, SIDE), BILINEAR))):
            off = difference(a, b)
            worst[what] = max(off, worst.get(what, 0))
            self.assertLessEqual(off, most if what == kind else OTHER_ORDER, f"{what} of {name}, {image.size}, {how}")

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.folder = temporary.name
        self.addCleanup(temporary.cleanup)
        random.seed(1)

    def test_modes_of_png(self):
        for size in ((1, 1), (7, 5), (64, 48), (33, 100)):
            for mode in ("L", "RGB"):
                self.compare("a.png", noise(mode, size))
            for mode in ("LA", "RGBA"):
                image = noise(mode, size)
                self.compare("a.png", image, on_white(image))
            grey = noise("L", size)
            self.compare("a.png", grey.convert("1"))
            for colours in (2, 4, 16, 200):  # 1, 2, 4 and 8 bits
                palette = noise("RGB", size).quantize(colours)
                self.compare("a.png", palette)
                self.compare("a.png", palette, on_white(palette_with(palette, 1)), transparency=1)
                several = bytes(random.randrange(256) for _ in range(colours))
                self.compare("a.png", palette, on_white(palette_with(palette, several)), transparency=several)
            some = grey.getpixel((0, 0))
            self.compare("a.png", grey, on_white(palette_with(grey, some)), transparency=some)
            colour = noise("RGB", size)
            some = colour.getpixel((0, 0))
            self.compare("a.png", colour, on_white(palette_with(colour, some)), transparency=some)
            deep = Image.frombytes("I;16", size, random.randbytes(2 * size[0] * size[1]))
            high = Image.frombytes("L", size, deep.tobytes()[1::2])  # rounded down
            self.compare("a.png", deep, high.convert("RGB"), most=1)

    def test_jpeg(self):
        for size in ((1, 1), (7, 5), (8, 8), (17, 16), (64, 48), (333, 100)):
            for mode in ("RGB", "L"):
                for quality in (5, 50, 75, 95, 100):
                    for sampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1"):
                        self.compare("a.jpg", noise(mode, size), most=1, quality=quality, subsampling=sampling,
                                     progressive=random.random() < 0.5, optimize=random.random() < 0.5)

    def test_exif(self):
        for orientation in range(10):
            for order in ("<", ">"):
                for name in ("a.jpg", "a.png"):
                    exif = Image.Exif()
                    exif.endian = order
                    exif[0x010f] = "maker"
                    exif[0x0112] = orientation
                    self.compare(name, noise("RGB", (23, 40)), most=name == "a.jpg", exif=exif.tobytes())

    def test_sizes(self):
        for i in range(SIZES):
            longest = [random.choice((3000, 100)), random.choice((2000, 100))]
            spread = random.choice((lambda most: random.randint(1, most), lambda most: round(most**random.random())))
            self.compare("a.png", noise("RGB", [spread(most) for most in longest]), compress_level=1)
        for size in ((3000, 2000), (2000, 3000), (32, 32), (32, 31), (1, 32), (32, 64), (1, 3000), (3000, 1)):
            self.compare("a.png", noise("RGB", size), compress_level=1)


def palette_with(image, transparency):
    """As saved and read again with that transparency."""
    file = io.BytesIO()
    image.save(file, "PNG", transparency=transparency)
    return Image.open(file)


if __name__ == "__main__":
    program = unittest.main(exit=False)
    print("the greatest differences, in 1/255:", ", ".join(f"{what} {off}" for what, off in sorted(worst.items())))
    sys.exit(not program.result.wasSuccessful())
