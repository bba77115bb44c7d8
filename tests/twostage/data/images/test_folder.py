"""A folder of images: labels from sub-folders, splits from names, and one sentence for everything that is wrong."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from threading import get_ident

import numpy as np
import pytest
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, load_dataset
from twostage.data.images import folder
from twostage.data.images.decode import Fit
from twostage.errors import DataError, UsageError


def save(path: Path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2, 3)).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def fill(root: Path, count: int, *, suffix: str = ".png") -> None:
    """`count` images, the one named i filled with the red level i."""
    for index in range(count):
        save(root / f"{index:03d}{suffix}", index)


def load(root: Path, **settings: object) -> ImageDataset:
    config = {"image_size": 4, "fit": "exact", **settings}
    return load_dataset(DataConfig(name="images", path=str(root), **config))  # type: ignore[arg-type]


def refusal(root: Path, **settings: object) -> str:
    with pytest.raises(DataError) as raised:
        load(root, **settings)
    assert str(raised.value).startswith("expected ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def values(dataset: ImageDataset) -> dict[str, list[int]]:
    """Red level of every image, by split."""
    return {name: dataset.split(name).images[:, 0, 0, 0].tolist() for name in ("train", "validation", "test")}


def everything(dataset: ImageDataset) -> list[int]:
    """Red levels of all images, sorted."""
    return sorted(chain.from_iterable(values(dataset).values()))


class TestSplits:
    def test_a_tenth_is_test_and_a_tenth_validation_and_nothing_is_dropped_or_doubled(self, tmp_path: Path) -> None:
        fill(tmp_path, 57)
        dataset = load(tmp_path)
        parts = values(dataset)
        assert [len(part) for part in parts.values()] == [47, 5, 5]
        assert everything(dataset) == list(range(57))
        assert all(part == sorted(part) for part in parts.values())
        assert dataset.levels == 256
        assert dataset.shape == (3, 4, 4)

    def test_the_split_never_moves(self, tmp_path: Path) -> None:
        """Scores of different versions are comparable only if these names stay where they are."""
        fill(tmp_path, 30)
        parts = values(load(tmp_path))
        assert (parts["test"], parts["validation"]) == ([4, 13, 18], [16, 25, 29])

    def test_a_folder_for_testing_is_test_and_a_tenth_of_the_other_is_validation(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit", 30)
        for index in range(100, 107):
            save(tmp_path / "later" / "deep" / f"{index}.png", index)
        fill(tmp_path / "unused", 3)
        dataset = load(tmp_path, train_folder="fit", test_folder="later/deep")
        parts = values(dataset)
        assert parts["test"] == list(range(100, 107))
        assert len(parts["validation"]) == 3
        assert sorted(parts["train"] + parts["validation"]) == list(range(30))
        # The same names as in the test above: what was held out first there is validation here.
        assert parts["validation"] == [4, 13, 18]

    def test_a_train_folder_alone_is_split_in_three(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit", 30)
        fill(tmp_path / "unused", 3)
        assert values(load(tmp_path, train_folder="fit")) == values(load(tmp_path / "fit"))

    @pytest.mark.parametrize(("count", "sizes"), [(3, [1, 1, 1]), (9, [7, 1, 1]), (20, [16, 2, 2])])
    def test_every_split_gets_an_image(self, tmp_path: Path, count: int, sizes: list[int]) -> None:
        fill(tmp_path, count)
        assert [len(part) for part in values(load(tmp_path)).values()] == sizes

    def test_too_few_images(self, tmp_path: Path) -> None:
        fill(tmp_path, 2)
        assert "at least 3 images" in refusal(tmp_path)
        fill(tmp_path / "a", 1)
        fill(tmp_path / "b", 1)
        assert "at least 2 images" in refusal(tmp_path, train_folder="a", test_folder="b")

    @pytest.mark.parametrize(
        ("train", "test"), [(".", "test"), ("a", "a"), ("a", "a/b"), ("a/b", "a"), ("../a", "b"), ("a", "/b")]
    )
    def test_folders_that_share_images_or_lead_out_are_wrong_use(self, tmp_path: Path, train: str, test: str) -> None:
        fill(tmp_path / "a" / "b", 3)
        fill(tmp_path / "test", 3)
        with pytest.raises(UsageError, match=r"share images|inside"):
            load(tmp_path, train_folder=train, test_folder=test)

    def test_a_test_folder_alone_is_wrong_use(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"data\.train_folder"):
            load(tmp_path, test_folder="test")


class TestLabels:
    def test_the_first_sub_folder_is_the_label_at_any_depth_and_in_any_spelling(self, tmp_path: Path) -> None:
        for index in range(12):
            save(tmp_path / "dog" / "x" / "y" / f"{index}.PNG", index)
            save(tmp_path / "cat" / f"{100 + index}.webp", 100 + index)
        dataset = load(tmp_path)
        assert dataset.classes == ("cat", "dog")
        for name, part in values(dataset).items():
            assert dataset.split(name).labels.tolist() == [int(value < 100) for value in part]
            assert dataset.split(name).labels.dtype == np.int64
        assert sum(map(len, values(dataset).values())) == 24

    def test_classes_of_both_folders_count(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit" / "b", 4)
        fill(tmp_path / "fit" / "c", 4)
        fill(tmp_path / "try" / "a", 1)
        fill(tmp_path / "try" / "c", 1)
        dataset = load(tmp_path, train_folder="fit", test_folder="try")
        assert dataset.classes == ("a", "b", "c")
        assert dataset.test.labels.tolist() == [0, 2]
        assert set(dataset.train.labels.tolist()) <= {1, 2}

    @pytest.mark.parametrize("sub_folder", [".", "all", "all/of/them"])
    def test_one_sub_folder_or_none_is_no_label(self, tmp_path: Path, sub_folder: str) -> None:
        fill(tmp_path / sub_folder, 10)
        dataset = load(tmp_path)
        assert dataset.classes == ()
        assert dataset.train.labels.tolist() == [0] * 8

    def test_images_beside_labelled_ones_are_refused(self, tmp_path: Path) -> None:
        fill(tmp_path / "cat", 3)
        fill(tmp_path, 2)
        message = refusal(tmp_path)
        assert "'cat/000.png'" in message
        assert "move the 2 images" in message

    def test_labels_in_one_of_the_two_folders_only_are_refused(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit" / "a", 3)
        fill(tmp_path / "try", 3)
        assert f"only {tmp_path / 'fit'} has them" in refusal(tmp_path, train_folder="fit", test_folder="try")

    def test_a_label_that_cannot_be_printed_is_refused(self, tmp_path: Path) -> None:
        fill(tmp_path / "a\nb", 3)
        fill(tmp_path / "c", 3)
        assert r"'a\nb'" in refusal(tmp_path)


class TestFiles:
    def test_every_kind_that_pillow_reads_is_read_and_the_others_are_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        read = (".png", ".jpg", ".JPEG", ".webp", ".Jpg", ".jfif", ".tif", ".TIFF", ".bmp", ".gif", ".avif")
        for index, suffix in enumerate(read):
            save(tmp_path / f"{index}{suffix}", 20 * index)
        for name in ("a.heic", "b.HEIC", "c.svg", "d.psd", "e.nef", "readme.txt", "odd.\x1b[2J", "LICENSE"):
            (tmp_path / name).write_bytes(b"")
        (tmp_path / ".hidden.png").write_bytes(b"")
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache" / "x.png").write_bytes(b"")
        got = np.sort(np.concatenate([np.array(part) for part in values(load(tmp_path)).values()]))
        assert np.abs(got - np.arange(0, 220, 20)).max() <= 4
        assert (
            f"passed over 8 files in {tmp_path} that do not have names of images that are read: .heic (2), .nef (1), "
            ".psd (1), .svg (1), no suffix (1), '.\\x1b[2j' (1), .txt (1); convert the 5 images among them to PNG or "
            "JPEG to have them read\n"
        ) in capsys.readouterr().err
        fill(tmp_path / "only", 3)
        load(tmp_path / "only")
        assert "passed over" not in capsys.readouterr().err

    def test_grey_and_rgb(self, tmp_path: Path) -> None:
        fill(tmp_path, 10)
        assert load(tmp_path, colour="grey").shape == (1, 4, 4)
        assert load(tmp_path, colour="rgb").train.images[0, :, 0, 0].tolist()[1:] == [2, 3]

    def test_threads_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where a later file is done before an earlier one."""
        fill(tmp_path, 60)
        for index in (3, 30, 31):
            os.truncate(tmp_path / f"{index:03d}.png", 0)
        one = load(tmp_path, skip_unreadable=3)
        decode, threads = folder.decode_image, set()

        def late(path: Path, pixels: np.ndarray, *, fit: Fit) -> tuple[str, ...]:
            threads.add(get_ident())
            time.sleep(0.003 * (int(path.stem) % 3))
            return decode(path, pixels, fit=fit)

        monkeypatch.setattr(folder, "decode_image", late)
        monkeypatch.setattr(folder, "_SMALL_FILE_BYTES", 0)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
        several = load(tmp_path, skip_unreadable=3)
        assert len(threads) > 1
        assert several.skipped == one.skipped
        assert several.sha256 == one.sha256

    def test_images_are_in_memory_once(self, tmp_path: Path) -> None:
        """Loaded, compared with each other and digested, with a gap where a file is left out."""
        fill(tmp_path, 60)
        os.truncate(tmp_path / "020.png", 0)
        load(tmp_path, skip_unreadable=1, fit="resize")  # what is imported and kept stays out of the measurement
        tracemalloc.start()
        dataset = load(tmp_path, skip_unreadable=1, fit="resize", image_size=256)
        _ = dataset.sha256
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.15 * 60 * 3 * 256 * 256
        assert dataset.train.images.base is dataset.test.images.base
        assert everything(dataset) == [index for index in range(60) if index != 20]

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "x.heic").write_bytes(b"")
        message = refusal(tmp_path)
        assert "none of its 1 files (.heic (1))" in message
        assert ".png, .jpg, " in message
        assert message.endswith("; convert the 1 images among them to PNG or JPEG to have them read")

    def test_no_folder(self, tmp_path: Path) -> None:
        assert "not there" in refusal(tmp_path / "absent")
        (tmp_path / "file").write_bytes(b"")
        assert "is a file" in refusal(tmp_path / "file")
        fill(tmp_path / "fit", 3)
        assert "not there" in refusal(tmp_path, train_folder="fit", test_folder="absent")
        with pytest.raises(UsageError, match=r"--data\.path"):
            load_dataset(DataConfig(name="images"))

    def test_a_folder_that_may_not_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path, 3)
        (tmp_path / "locked").mkdir()
        scandir = os.scandir

        def refuse(path: Path) -> Iterator[os.DirEntry[str]]:
            if Path(path).name == "locked":
                raise PermissionError(13, "Permission denied")
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        message = refusal(tmp_path)
        assert "locked" in message
        assert "could not be listed (Permission denied)" in message

    def test_names_that_are_no_text_do_not_break_anything(self, tmp_path: Path) -> None:
        fill(tmp_path, 9)
        odd = tmp_path / os.fsdecode(b"\xff\xfe.png")
        (tmp_path / "000.png").rename(odd)
        (tmp_path / "001.png").rename(tmp_path / "line\nbreak.png")
        assert sum(map(len, values(load(tmp_path)).values())) == 9
        os.truncate(odd, 0)
        os.truncate(tmp_path / "line\nbreak.png", 0)
        message = refusal(tmp_path)
        assert r"'line\nbreak.png' is empty, '\udcff\udcfe.png' is empty" in message

    def test_more_than_the_memory_holds_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"4096x4096 pixels take .* GiB"):
            folder._allocate(1 << 30, (3, 4096, 4096), np.uint8)


class TestUnreadable:
    def spoil(self, root: Path) -> None:
        """Thirty images, of which five are then not whole, and a link."""
        fill(root, 30)
        (root / "003.png").write_bytes(b"")
        (root / "004.png").write_bytes((root / "005.png").read_bytes()[:-30])
        (root / "006.png").write_bytes(b"no image")
        Image.new("I;16", (4, 4)).save(root / "007.png")
        frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 99)]
        frames[0].save(root / "008.png", save_all=True, append_images=frames[1:])
        (root / "030.png").symlink_to(root / "010.png")

    def test_all_are_named_and_counted_at_once(self, tmp_path: Path) -> None:
        self.spoil(tmp_path)
        message = refusal(tmp_path)
        assert "6 of 31 files" in message
        for part in (
            "'003.png' is empty",
            "'004.png' is damaged",
            "'006.png' is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image",
            "'007.png' has 16 bits per channel",
            "'008.png' is animated (2 frames)",
            "'030.png' is a symbolic link",
            "data.skip_unreadable 6",
        ):
            assert part in message

    def test_after_ten_names_the_others_are_counted(self, tmp_path: Path) -> None:
        fill(tmp_path, 30)
        for index in range(13):
            os.truncate(tmp_path / f"{index:03d}.png", 0)
        message = refusal(tmp_path)
        assert "13 of 30 files" in message
        assert "'009.png' is empty and 3 more" in message
        assert "010.png" not in message

    def test_skipping_is_asked_for_capped_and_recorded(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(tmp_path / "whole", 30)
        before = values(load(tmp_path / "whole"))
        spoilt = tmp_path / "spoilt"
        self.spoil(spoilt)
        assert "data.skip_unreadable admits 5" in refusal(spoilt, skip_unreadable=5)
        dataset = load(spoilt, skip_unreadable=6)
        assert dataset.skipped == tuple(f"{index:03d}.png" for index in (3, 4, 6, 7, 8, 30))
        assert "left out 6 of 31 files" in capsys.readouterr().err
        gone = {3, 4, 6, 7, 8}
        # Every other image is where it was.
        after = values(dataset)
        assert everything(dataset) == [value for value in range(30) if value not in gone]
        for name, part in before.items():
            assert after[name] == [value for value in part if value not in gone]

    def test_names_stand_below_the_data_folder(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit", 10)
        fill(tmp_path / "try" / "x", 4)
        (tmp_path / "try" / "x" / "002.png").write_bytes(b"")
        settings = {"train_folder": "fit", "test_folder": "try/x"}
        assert "'try/x/002.png' is empty" in refusal(tmp_path, **settings)
        dataset = load(tmp_path, skip_unreadable=1, **settings)
        assert dataset.skipped == ("try/x/002.png",)
        assert values(dataset)["test"] == [0, 1, 3]
        assert len(dataset.test.labels) == 3

    def test_nothing_left_of_a_split(self, tmp_path: Path) -> None:
        fill(tmp_path / "fit", 10)
        fill(tmp_path / "try", 1)
        os.truncate(tmp_path / "try" / "000.png", 0)
        message = refusal(tmp_path, train_folder="fit", test_folder="try", skip_unreadable=5)
        assert "a readable image for test" in message

    def test_links_out_of_the_folder_in_circles_or_to_nothing_are_not_followed(self, tmp_path: Path) -> None:
        fill(tmp_path / "secret", 3)
        root = tmp_path / "data"
        fill(root, 5)
        (root / "out.png").symlink_to(tmp_path / "secret" / "000.png")
        (root / "outside").symlink_to(tmp_path / "secret")
        (root / "circle").symlink_to(root)
        (root / "nothing.png").symlink_to(root / "absent.png")
        (root / "notes").symlink_to(root / "absent.txt")
        message = refusal(root)
        assert "4 of 9 files" in message
        for name in ("out.png", "outside", "circle", "nothing.png"):
            assert f"'{name}' is a symbolic link" in message

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
    def test_a_pipe_with_the_name_of_an_image_is_not_waited_for(self, tmp_path: Path) -> None:
        fill(tmp_path, 4)
        os.mkfifo(tmp_path / "pipe.png")
        assert "'pipe.png' is no regular file" in refusal(tmp_path)

    def test_links_only(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").symlink_to("/nowhere")
        assert "'x.png' (is a symbolic link)" in refusal(tmp_path)

    def test_absurd_sizes(self, tmp_path: Path) -> None:
        fill(tmp_path, 4)
        data = bytearray((tmp_path / "000.png").read_bytes())
        data[16:24] = (60_000).to_bytes(4, "big") * 2
        (tmp_path / "000.png").write_bytes(data)  # its checksum is wrong, too: pillow looks at it before the size
        assert "1 of 4 files" in refusal(tmp_path)


class TestSizes:
    def test_mixed_sizes_name_two_files(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        save(tmp_path / "a.png", 0, (7, 4))
        message = refusal(tmp_path)
        assert "mixed sizes: 'a.png' with 4x7 pixels (height x width) and '000.png' with 4x4 pixels;" in message
        assert "data.fit to resize or crop" in message

    def test_two_wrong_sizes_are_mixed_as_well(self, tmp_path: Path) -> None:
        for index, size in enumerate(((5, 5), (5, 5), (6, 6))):
            save(tmp_path / f"{index}.png", 0, size)
        assert "'0.png' with 5x5 pixels and '2.png' with 6x6 pixels" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("size", "said", "setting"), [((6, 6), "6x6 pixels", "6"), ((6, 5), "5x6 pixels (height x width)", "5x6")]
    )
    def test_one_other_size_has_one_remedy(
        self, tmp_path: Path, size: tuple[int, int], said: str, setting: str
    ) -> None:
        for index in range(4):
            save(tmp_path / f"{index}.png", 0, size)
        message = refusal(tmp_path)
        assert f"have {said}: set data.fit to resize or crop, or data.image_size to {setting}" in message

    def test_smaller_than_the_crop_is_named_and_counted(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        save(tmp_path / "a.png", 0, (3, 9))
        save(tmp_path / "b.png", 0, (9, 9))
        message = refusal(tmp_path, fit="crop", skip_unreadable=9)
        assert "1 of 7" in message
        assert "'a.png' with 9x3" in message

    def test_crop_and_resize_take_every_size(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        save(tmp_path / "b.png", 77, (9, 5))
        for fit in ("crop", "resize"):
            assert 77 in everything(load(tmp_path, fit=fit))

    def test_unreadable_files_come_first(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        save(tmp_path / "a.png", 0, (7, 4))
        (tmp_path / "b.png").write_bytes(b"")
        assert "'b.png' is empty" in refusal(tmp_path)
        assert "mixed sizes" in refusal(tmp_path, skip_unreadable=1)


def test_conversions_are_said_once_with_their_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, 5)
    for name in ("c1.jpg", "c2.jpg"):
        Image.new("CMYK", (4, 4)).save(tmp_path / name, format="JPEG")
    Image.new("P", (4, 4)).save(tmp_path / "p.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "t.png")
    load(tmp_path)
    said = capsys.readouterr().err
    assert "2 of 9 images: in CMYK and converted without its colour profile (first: 'c1.jpg')" in said
    assert "1 of 9 images: with a palette, whose colours are looked up (first: 'p.png')" in said
    assert "1 of 9 images: transparent and laid on white (first: 't.png')" in said


@pytest.mark.parametrize(
    "setting", [{"image_size": 8}, {"fit": "crop"}, {"colour": "grey"}, {"train_folder": "x"}, {"skip_unreadable": 1}]
)
def test_settings_of_folders_are_refused_where_they_would_do_nothing(setting: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"data.{next(iter(setting))} is for folders"):
        load_dataset(DataConfig(name="digits", **setting))  # type: ignore[arg-type]


def test_labels_and_files_have_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files with one name in two sub-folders: the path read is the one whose label is kept."""
    for index in range(10):
        save(tmp_path / "a" / f"{index}.png", 10)
        save(tmp_path / "b" / f"{index}.png", 20)
    read: list[Path] = []
    decode = folder.decode_image
    monkeypatch.setattr(folder, "decode_image", lambda path, *a, **k: (read.append(path), decode(path, *a, **k))[1])
    dataset = load(tmp_path)
    assert len(read) == 20
    for name, part in values(dataset).items():
        assert [10 + 10 * label for label in dataset.split(name).labels.tolist()] == part


def test_natural32() -> None:
    root = os.environ.get("TWOSTAGE_DATA")
    if not root or not (Path(root) / "natural32").is_dir():
        pytest.skip("TWOSTAGE_DATA names no folder with natural32/")
    path = Path(root) / "natural32"
    dataset = load(path, image_size=32, train_folder="train", test_folder="val")
    assert dataset.shape == (3, 32, 32)
    assert dataset.classes == ()
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [14400, 1600, 2000]
    with Image.open(path / "val" / "00007.webp") as picture:
        np.testing.assert_array_equal(np.moveaxis(dataset.test.images[7], 0, -1), np.asarray(picture))
    assert dataset.sha256[:12] == "6ec6888fb210"


def test_sub_folders_named_like_splits_are_labels_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "train", 15)
    fill(tmp_path / "val", 15)
    assert load(tmp_path).classes == ("train", "val")
    assert "taken for labels" in capsys.readouterr().err
    fill(tmp_path / "cat", 15)
    assert load(tmp_path).classes == ("cat", "train", "val")
    assert "taken for labels" not in capsys.readouterr().err
