#!/usr/bin/env python3
"""Predictions for pictures, and data sets made of them, as a user has them. Takes the programs from $BIN."""
import csv
import io
import json
import os
import random
import re
import struct
import subprocess
import unittest
import zlib

from commands_test import RECORD, contents, enter_folder, on_terminal, pixels, read, run, run_json, start, write

FEWER = ["a cat", 'b,"dog', "猫"]


def png(path, width, height, rgb):
    """A PNG file of these bytes, three a pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + rgb[at : at + 3 * width] for at in range(0, len(rgb), 3 * width))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write(path, b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
          chunk(b"IDAT", zlib.compress(rgb and rows)) + chunk(b"IEND", b""))


def image(path, record):
    """A record of a batch as a PNG file."""
    planes = record[1:1025], record[1025:2049], record[2049:]
    png(path, 32, 32, bytes(byte for pixel in zip(*planes) for byte in pixel))


def records(path):
    content = read(path)
    return [content[at : at + RECORD] for at in range(0, len(content), RECORD)]


def noise(width, height, seed=0):
    return random.Random(seed).randbytes(3 * width * height)


def failing(command, **options):
    """Standard output, and the lines of complaint, of a command line that must end with 3."""
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = (text.decode() for text in process.communicate())
    assert process.returncode == 3, (process.returncode, out, err)
    name = command.split()[0]
    lines = err.splitlines()
    assert all(line.startswith(f"{name}: ") for line in lines) and not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", err), err
    return out, [line.removeprefix(f"{name}: ").removeprefix("warning: ") for line in lines]


def setUpModule():
    """A model, its test images as PNG files, and a folder for each of three classes."""
    enter_folder()
    run("cifar-synth data --train 1000 --test 700 --seed 3")
    run("cifar-train --epochs 1 --quiet")
    for i, record in enumerate(records("data/test_batch.bin")):
        image(f"test/{i:04}.png", record)
    for i, record in enumerate(records("data/data_batch_1.bin")):
        if record[0] < 3:
            image(f"own/{FEWER[record[0]]}/{i}.png", record)


class Predict(unittest.TestCase):
    maxDiff = None

    def predict(self, words, **options):
        return [json.loads(line) for line in run(f"cifar-predict --json {words}", **options).splitlines()]

    def test_predictions_are_those_of_the_test(self):
        test = run_json("cifar-test --json --batch 700 --grid=")
        found = self.predict("test")  # more than are read at once
        self.assertEqual([p["picture"] for p in found], [f"test/{i:04}.png" for i in range(700)])
        self.assertEqual([p["class"] for p in found], test["predicted"])
        self.assertEqual(self.predict("test --threads 1"), found)
        for p in found:
            top = p["top"]
            self.assertEqual(top[0], {"class": p["class"], "probability": p["probability"]})
            self.assertEqual(len({t["class"] for t in top}), 3)
            self.assertTrue(1 >= top[0]["probability"] >= top[1]["probability"] >= top[2]["probability"] >= 0)

    def test_all_probabilities_are_1(self):
        (p,) = self.predict("test/0000.png --top 10")
        self.assertEqual(len({t["class"] for t in p["top"]}), 10)
        self.assertAlmostEqual(sum(t["probability"] for t in p["top"]), 1, places=6)
        (fewer,) = self.predict("test/0000.png --top 2")
        self.assertEqual(fewer["top"], p["top"][:2])

    def test_lines(self):
        one, two = run("cifar-predict test/0000.png test/0001.png").splitlines()
        self.assertRegex(one, r"^test/0000.png: [a-z]+ \d+\.\d\d %, [a-z]+ \d+\.\d\d %, [a-z]+ \d+\.\d\d %$")
        self.assertRegex(two, r"^test/0001.png: ")

    def test_bars_on_a_terminal(self):
        for place, block in ("C.UTF-8", "█"), ("C", "#"):
            lines = on_terminal("cifar-predict test/0000.png --top 10", LC_ALL=place).split("\r\n")
            self.assertEqual(lines[0], "test/0000.png")
            for line in lines[1:11]:
                name, share, bar = re.fullmatch(rf"  ([a-z]+) +([0-9.]+) %  ({block}*) *", line).groups()
                self.assertAlmostEqual(len(bar), float(share) / 4, delta=0.51, msg=name)

    def test_csv(self):
        os.makedirs("odd", exist_ok=True)
        for name in "a,b.png", 'a"b.png', "ab.png", "a\nb\x07.png":
            write(f"odd/{name}", read("test/0000.png"))
        rows = list(csv.reader(io.StringIO(run("cifar-predict --csv --top 2 odd"), newline="")))
        self.assertEqual(rows[0], ["picture", "class_1", "probability_1", "class_2", "probability_2"])
        self.assertEqual([row[0] for row in rows[1:]], ["odd/a\nb\x07.png", 'odd/a"b.png', "odd/a,b.png", "odd/ab.png"])
        (p,) = self.predict("test/0000.png --top 2")
        for row in rows[1:]:
            self.assertEqual(row[1::2], [t["class"] for t in p["top"]])
            self.assertEqual([float(x) for x in row[2::2]], [t["probability"] for t in p["top"]])

    def test_grid(self):
        out = run("cifar-predict test/0003.png test/0001.png --grid seen.png")
        self.assertIn("2 of the 2 pictures, as the network sees them, are in seen.png", out)
        seen, images = pixels("seen.png"), records("data/test_batch.bin")
        for picture, number in enumerate((3, 1)):  # each pixel is 4 x 4
            for y in range(0, 32, 7):
                for x in range(32):
                    at = 3 * (8 + 8 + picture * (128 + 24) + 4 * x)
                    self.assertEqual(list(seen[16 + 4 * y][at : at + 3]),
                                     [images[number][1 + 1024 * c + 32 * y + x] for c in range(3)])
        self.assertEqual({bytes(seen[10][at : at + 3]) for at in range(0, len(seen[10]), 3)}, {b"\xff" * 3})  # no frame

    def test_a_grid_goes_over_grids_only(self):
        run("cifar-predict test/0003.png --grid again.png")
        run("cifar-predict test/0001.png --grid again.png")
        photo = read("test/0002.png")
        write("photo.png", photo)
        os.symlink("photo.png", "link.png")
        for name in "photo.png", "link.png":
            process = start(f"cifar-predict photo.png --grid {name}", stderr=subprocess.PIPE)
            self.assertIn(b"is there already and is no grid", process.communicate()[1])
            self.assertEqual((process.returncode, read("photo.png")), (2, photo))

    def test_names_as_long_as_a_path(self):
        os.makedirs("deep")
        write("deep/p.png", read("test/0000.png"))
        for length in range(4085, 4098):
            folder = "deep" + "/" * (length - 4)
            if length + len("p.png") < 4096:
                self.assertEqual(self.predict(folder)[0]["picture"], folder + "p.png")
            else:
                self.assertRegex(failing(f"cifar-predict {folder}")[1][0], "the name is longer than 4095 bytes$")

    def test_which_pictures(self):
        image = read("test/0000.png")
        for name in "b.png", "a/z.PNG", "a/y.jpeg", "B.png", ".hidden.png", ".git/x.png", "a.png", "c/d/e.png", "n.txt":
            os.makedirs(os.path.dirname(f"walk/{name}"), exist_ok=True)
            write(f"walk/{name}", image)
        os.symlink("../test/0001.png", "walk/link.png")
        os.symlink("../odd-folder", "walk/further")
        png("odd-folder/p.png", 2, 3, noise(2, 3))
        found = self.predict("walk", warning=r"^cifar-predict: warning: files in the folders that have no picture's name and were left out: 1$")
        self.assertEqual([p["picture"] for p in found],
                         [f"walk/{name}" for name in ("B.png", "a/y.jpeg", "a/z.PNG", "a.png", "b.png", "c/d/e.png",
                                                      "further/p.png", "link.png")])
        self.assertEqual([p["picture"] for p in self.predict("walk/n.txt test/0002.png walk/c walk/.git/x.png")],
                         ["walk/n.txt", "test/0002.png", "walk/c/d/e.png", "walk/.git/x.png"])

    def test_standard_input(self):
        (p,) = self.predict("test/0005.png")
        out = subprocess.run(["cifar-predict", "--json", "-"], input=read("test/0005.png"), stdout=subprocess.PIPE, check=True)
        self.assertEqual(json.loads(out.stdout), p | {"picture": "-"})

    def test_what_becomes_of_the_sides(self):
        """Of a picture twice as wide as high its middle is taken, or all of it."""
        one, two = noise(32, 32, 1), noise(32, 32, 2)
        rows = [(one[at : at + 48], two[at : at + 96], one[at + 48 : at + 96]) for at in range(0, 3072, 96)]
        png("wide.png", 64, 32, b"".join(b"".join(row) for row in rows))
        png("middle.png", 32, 32, two)
        for p in self.predict("wide.png") + self.predict("--crop center wide.png"):
            self.assertEqual(p["top"], self.predict("middle.png")[0]["top"])
        self.assertNotEqual(self.predict("--crop squash wide.png")[0]["top"], self.predict("middle.png")[0]["top"])

    # --- Hostile ones: each is named, the others go on.

    def test_pictures_that_cannot_be_read(self):
        good = read("test/0000.png")
        cuts = range(0, len(good), 50)
        os.makedirs("bad")
        for cut in cuts:
            write(f"bad/cut{cut:05}.png", good[:cut])
        write("bad/web.png", b"RIFF\x10\0\0\0WEBPVP8 ")
        write("bad/text.jpg", b"Hello there")
        write("bad/wrong-ending.jpg", good)
        os.mkfifo("bad/pipe.png")
        os.symlink("round.png", "bad/round.png")
        os.symlink("nowhere", "bad/nowhere.png")
        out, lines = failing("cifar-predict bad --json")
        self.assertEqual([json.loads(line)["picture"] for line in out.splitlines()], ["bad/wrong-ending.jpg"])
        self.assertEqual([re.match(r"bad/cut(\d+)", line)[1] for line in lines if "/cut" in line],
                         [f"{cut:05}" for cut in cuts])
        self.assertEqual(sum("is a PNG picture that is cut short" in line for line in lines), len(cuts) - 1)
        for line in ("bad/cut00000.png: is empty; pictures that are read are PNG and JPEG",
                     "bad/web.png: is a WebP picture; pictures that are read are PNG and JPEG",
                     "bad/text.jpg: begins with 'Hello th' and is no picture; pictures that are read are PNG and JPEG",
                     "bad/pipe.png: is a pipe; a regular file is expected here",
                     "bad/round.png: cannot be opened: Too many levels of symbolic links",
                     "bad/nowhere.png: cannot be opened: No such file or directory"):
            self.assertIn(line, lines)
        self.assertEqual(lines[-1], f"{len(lines) - 1} of {len(lines)} pictures could not be read, as was said of each")

    def test_a_folder_that_holds_itself(self):
        png("circle/down/p.png", 3, 3, noise(3, 3))
        os.symlink("..", "circle/down/up")
        out, lines = failing("cifar-predict circle")
        self.assertRegex(out, r"\Acircle/down/p.png: .*\n\Z")
        self.assertEqual(lines[0], "circle/down/up: is a link to a folder that it lies in itself, and is not followed")

    def test_a_folder_without_rights(self):
        png("closed/in/p.png", 3, 3, noise(3, 3))
        png("closed/p.png", 3, 3, noise(3, 3))
        os.chmod("closed/in", 0)
        nobody = {"user": 65534} if os.geteuid() == 0 else {}  # root may do anything
        os.chmod(".", 0o755)
        try:
            out, lines = failing("cifar-predict closed", **nobody)
        except PermissionError:
            self.skipTest("nobody may not run the program where it lies")
        finally:
            os.chmod("closed/in", 0o700)
        self.assertRegex(out, r"\Aclosed/p.png: .*\n\Z")
        self.assertEqual(lines[0], "closed/in: cannot be read: Permission denied")

    def test_names_with_control_characters(self):
        write("rude\n\x1b[31m.png", b"no picture")
        write("rude-\x07.png", read("test/0000.png"))
        out, lines = failing("cifar-predict rude-\x07.png 'rude\n\x1b[31m.png'")
        self.assertTrue(out.startswith("rude-?.png: "), out)
        self.assertIn("rude??[31m.png: begins with 'no pictu'", lines[0])
        self.assertEqual(json.loads(run("cifar-predict --json rude-\x07.png"))["picture"], "rude-\x07.png")

    def test_a_bomb_is_refused_before_it_is_unpacked(self):
        png("bomb.png", 60000, 60000, b"")
        process = start("cifar-predict bomb.png --threads 1", stderr=subprocess.PIPE)
        with process.stderr:
            said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 3)
        self.assertIn("bomb.png: has 60000 x 60000 pixels; at most 178956970 in all are read", said)
        if "asan" not in os.environ["BIN"]:  # whose own memory is more
            self.assertLess(usage.ru_maxrss, 50 * 1024)

    def test_nothing_to_be_seen(self):
        os.makedirs("empty/below")
        _, lines = failing("cifar-predict empty")
        self.assertEqual(lines, ["there is no picture: nothing in the folders has a name like .png or .jpg (name a file itself to have it tried)"])


class Import(unittest.TestCase):
    def test_a_data_set_of_ones_own(self):
        write("own/a cat/notes.txt", b"")
        write("own/a cat/broken.png", b"\x89PNG\r\n\x1a\n")
        write("own/readme", b"")
        self.addCleanup(lambda: [os.remove(f"own/{name}") for name in ("a cat/notes.txt", "a cat/broken.png", "readme")])
        out = run("cifar-import own set", warning=r"\A.*own: files that lie in no class's folder and were left out: 1\n"
                                                  r".*own/a cat/broken.png: is a PNG picture that is cut short.*\n"
                                                  r".*own/a cat: files that have no picture's name and were left out: 1\n\Z")
        self.assertRegex(out, r"(?m)^a cat +17 +3 +2$")
        self.assertRegex(out, r'(?m)^b,"dog +17 +3 +0$')
        self.assertRegex(out, r"(?m)^set: 51 training and 9 test images of 3 classes$")
        self.assertEqual(read("set/batches.meta.txt").decode().splitlines(), FEWER)
        train = [r for i in range(1, 6) for r in records(f"set/data_batch_{i}.bin")]
        made = sorted(train + records("set/test_batch.bin"))
        self.assertEqual(made, sorted(r for r in records("data/data_batch_1.bin") if r[0] < 3))
        self.assertGreater(len({tuple(r[0] for r in train[at : at + 17]) for at in (0, 17, 34)}), 1)  # in mixed order

    def test_the_seed_decides_the_split(self):
        for name, options in ("one", ""), ("again", "--threads 1"), ("other", "--seed 1"), ("half", "--test 0.5"):
            run(f"cifar-import own {name} {options}")
        self.assertEqual(contents("one"), contents("again"))
        self.assertNotEqual(read("one/test_batch.bin"), read("other/test_batch.bin"))
        self.assertEqual(len(records("half/test_batch.bin")), 30)

    def test_training_on_fewer_classes(self):
        run("cifar-import own fewer --test 0.3")
        run("cifar-train --data fewer --model fewer.ckpt --last fewer.last --epochs 4 --quiet")
        self.assertEqual(run_json("cifar-classes --data fewer --model fewer.ckpt --json --confusion").keys(),
                         run_json("cifar-classes --json --confusion").keys())
        report = run_json("cifar-classes --data fewer --model fewer.ckpt --json --confusion")
        self.assertEqual([c["class"] for c in report["classes"]], FEWER)
        self.assertEqual([len(row) for row in report["confusion"]], [3, 3, 3])
        self.assertEqual(sum(map(sum, report["confusion"])), report["images"])
        text = run("cifar-classes --data fewer --model fewer.ckpt --confusion")
        self.assertEqual(len(text.splitlines()), len(run("cifar-classes --confusion").splitlines()) - 2 * 7)
        shown = on_terminal("cifar-classes --data fewer --model fewer.ckpt --confusion", LC_ALL="C.UTF-8")
        self.assertRegex(shown, r"(?m)^猫 {11} .* %")  # which takes two columns
        self.assertRegex(shown, r'(?m)^ {12}   a cat  b,"dog      猫\r?$')
        test = run_json("cifar-test --data fewer --model fewer.ckpt --json --grid=")
        self.assertEqual({len(row) for row in test["logits"]}, {3})
        self.assertLessEqual(set(test["predicted"]), set(FEWER))
        predicted = [json.loads(line) for line in run("cifar-predict own --json --top 10 --model fewer.ckpt").splitlines()]
        for p in predicted:
            self.assertEqual({t["class"] for t in p["top"]}, set(FEWER))
            self.assertAlmostEqual(sum(t["probability"] for t in p["top"]), 1, places=6)
        rows = list(csv.reader(io.StringIO(run("cifar-predict own --csv --model fewer.ckpt"))))
        self.assertEqual([row[1] for row in rows[1:]], [p["class"] for p in predicted])
        run("cifar-train --resume fewer.last --epochs 5 --quiet")

    def test_sides(self):
        png("sides/a/wide.png", 64, 32, noise(64, 32))
        for i in range(8):
            png(f"sides/{'ab'[i % 2]}/{i}.png", 32, 32, noise(32, 32, i))
        run("cifar-import sides middle")
        run("cifar-import sides squashed --crop squash")
        self.assertNotEqual(contents("middle"), contents("squashed"))


if __name__ == "__main__":
    unittest.main()
