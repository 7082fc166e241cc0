import gzip
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from autodistill.core.errors import DataError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec
from autodistill.training.data import datasets
from autodistill.training.data.sources.image_folder import list_images
from autodistill.training.data.sources.splits import choose_rows, hold_out


def write_idx(path, array):
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_folder(root, classes=("cat", "dog"), count=6, size=(20, 12)):
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 100, (size[1], size[0], 3), dtype=np.uint8) + np.uint8(100 * label)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_digits_splits_are_disjoint_and_cover_the_set():
    data = datasets.load_images(DataSpec("digits"))
    test = datasets.load_test(DataSpec("digits"))
    assert len(data.train) + len(data.val) + len(test) == 1797
    assert not set(data.train.ids) & set(data.val.ids)
    assert set(data.train.ids) | set(data.val.ids) == set(range(data.pool_size))
    rows = {split.images[i].tobytes() for split in (data.train, data.val) for i in range(len(split))}
    assert sum(image.tobytes() in rows for image in test.images) == 0


def test_every_class_keeps_its_share_in_validation():
    data = datasets.load_images(DataSpec("digits", val_fraction=0.25))
    train, val = np.bincount(data.train.labels), np.bincount(data.val.labels)
    assert np.all(abs(val / (train + val) - 0.25) < 0.01)


def test_the_split_depends_on_the_seed_and_the_test_set_does_not():
    first, second = (datasets.load_images(DataSpec("digits", seed=seed)) for seed in (0, 1))
    assert set(first.val.ids) != set(second.val.ids)
    assert first.fingerprint == second.fingerprint
    same = datasets.load_test(DataSpec("digits", seed=1)).images
    assert np.array_equal(datasets.load_test(DataSpec("digits")).images, same)


def test_a_subset_is_stratified_and_leaves_validation_alone():
    whole, part = (datasets.load_images(DataSpec("digits", train_size=size)) for size in (None, 100))
    assert np.bincount(part.train.labels).tolist() == pytest.approx([10] * 10, abs=1)
    assert len(part.train) == 100
    assert set(part.train.ids) <= set(whole.train.ids)
    assert np.array_equal(part.val.ids, whole.val.ids)


def test_a_subset_larger_than_the_set_is_refused():
    with pytest.raises(UsageError, match=r"train_size is 99999; allowed: up to 1222"):
        datasets.load_images(DataSpec("digits", train_size=99_999))


def test_statistics_equal_those_of_the_pixels():
    data = datasets.load_images(DataSpec("synthetic", options={"count": 80, "size": 8}))
    pixels = data.train.images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert data.mean == pytest.approx(pixels.mean(axis=1), abs=1e-12)
    assert data.std == pytest.approx(pixels.std(axis=1), abs=1e-12)


def test_images_are_scaled_to_the_asked_size():
    data = datasets.load_images(DataSpec("digits", image_size=16))
    assert data.train.images.shape[1:] == (1, 16, 16)
    small = datasets.load_images(DataSpec("digits")).train.images.mean()
    assert data.train.images.mean() == pytest.approx(small, rel=0.03)


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown data source 'digit'; did you mean 'digits'"):
        datasets.load_images(DataSpec("digit"))


def test_a_folder_given_as_source_is_refused_with_the_right_key(tmp_path):
    with pytest.raises(UnknownNameError, match=rf"--data image_folder --data-root {tmp_path}"):
        datasets.check_source(DataSpec(str(tmp_path)))


def test_a_folder_that_does_not_exist_names_the_nearest_beside_it(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo").write_text("a file")
    with pytest.raises(DataError, match=rf"photo' is not a folder; did you mean '{tmp_path}/photos'\? Expected class"):
        datasets.load_images(DataSpec("image_folder", root=str(tmp_path / "photo"), image_size=8))
    with pytest.raises(DataError, match=r"x' is not a folder; expected the files of data source 'image_folder'\."):
        datasets.check_source(DataSpec("image_folder", root=str(tmp_path / "no" / "x")))
    datasets.check_source(DataSpec("image_folder", root=str(tmp_path / "photos")))


def test_a_function_of_the_users_own_is_not_imported_to_be_checked():
    datasets.check_source(DataSpec("nowhere.module:function"))


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"option of data source 'synthetic' 'clases'; did you mean 'classes'"):
        datasets.load_images(DataSpec("synthetic", options={"clases": 3}))


@pytest.mark.parametrize("options", [{"classes": 1}, {"noise": "much"}, {"size": 12.5}, {"count": True}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match="data option"):
        datasets.load_images(DataSpec("synthetic", options=options))


def test_synthetic_classes_are_separable_by_a_linear_rule_on_two_hues():
    data = datasets.load_images(DataSpec("synthetic", options={"classes": 20, "count": 400, "size": 16, "noise": 0.02}))
    assert len(data.classes) == 20
    assert data.classes[8] == "disc-1"
    again = datasets.load_images(
        DataSpec("synthetic", options={"classes": 20, "count": 400, "size": 16, "noise": 0.02})
    )
    assert np.array_equal(data.train.images, again.train.images)


def test_fashion_mnist_reads_its_files_and_the_search_never_opens_test_files(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 10
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels)
    spec = DataSpec("fashion_mnist", root=str(tmp_path), val_fraction=0.25)
    data = datasets.load_images(spec)
    assert np.array_equal(data.train.images[:, 0], images[data.train.ids])
    assert data.classes[9] == "Ankle boot"
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz"):
        datasets.load_test(spec)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images[:20])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", labels[:20])
    test = datasets.load_test(spec)
    assert np.array_equal(test.images[:, 0], images[:20])
    assert test.images.flags.writeable


def test_a_truncated_idx_file_is_named(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\x00\x00\x08\x03" + struct.pack(">3I", 9, 28, 28) + b"x")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte announces shape \(9, 28, 28\) but holds 1 values"):
        datasets.load_images(DataSpec("fashion_mnist", root=str(tmp_path)))


def test_fashion_mnist_without_files_says_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        datasets.load_images(DataSpec("fashion_mnist", root=str(tmp_path)))


def test_cifar10_binary_files_are_read_in_plane_order(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(100) % 10).astype(np.uint8)
    records = np.concatenate([labels[:, None], pixels.reshape(100, -1)], axis=1)
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(records[number * 20 : number * 20 + 20].tobytes())
    data = datasets.load_images(DataSpec("cifar10", root=str(tmp_path)))
    assert np.array_equal(data.val.images, pixels[data.val.ids])
    assert np.array_equal(data.val.labels, labels[data.val.ids])


def test_pickled_cifar_is_refused_unopened(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(DataError, match="python version, whose pickles are not opened"):
        datasets.load_images(DataSpec("cifar10", root=str(tmp_path)))


def test_an_image_folder_is_decoded_once_and_memory_mapped(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "images")
    spec = DataSpec("image_folder", root=str(root), image_size=8, val_fraction=0.25)
    first = datasets.load_images(spec, tmp_path / "cache")
    assert isinstance(first.train.images, np.memmap)
    assert first.classes == ("cat", "dog")
    assert first.train.images.shape[1:] == (3, 8, 8)
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("decoded again"))
    again = datasets.load_images(spec, tmp_path / "cache")
    assert np.array_equal(first.train.images, again.train.images)
    assert first.fingerprint == again.fingerprint


def test_a_changed_image_changes_the_fingerprint(tmp_path):
    root = write_folder(tmp_path / "images")
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    before = datasets.load_images(spec, tmp_path / "cache").fingerprint
    for path in root.rglob("*.png"):
        Image.new("RGB", (20, 12), "red").save(path)
    assert datasets.load_images(spec, tmp_path / "cache").fingerprint != before


def test_a_changed_label_changes_the_fingerprint(tmp_path):
    prints = []
    for boundary in (20, 25):  # the same files in the same order; five of them are of the other class
        root = tmp_path / str(boundary)
        for number in range(40):
            folder = root / ("cat" if number < boundary else "dog")
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number:02d}.png")
        (root / "test").mkdir()
        for name in ("cat", "dog"):
            (root / "test" / name).mkdir()
            Image.new("RGB", (8, 8), "red").save(root / "test" / name / "0.png")
        (root / "train").mkdir()
        for name in ("cat", "dog"):
            (root / name).rename(root / "train" / name)
        prints.append(
            datasets.load_images(DataSpec("image_folder", root=str(root), image_size=8), tmp_path / "cache").fingerprint
        )
    assert prints[0] != prints[1]


def test_image_folder_without_splits_holds_out_test_images(tmp_path):
    root = write_folder(tmp_path / "images", count=10)
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    data, test = datasets.load_images(spec, tmp_path / "cache"), datasets.load_test(spec, tmp_path / "cache")
    assert (len(data.train) + len(data.val), len(test)) == (16, 4)
    seen = {image.tobytes() for split in (data.train, data.val) for image in split.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_image_folder_uses_the_given_splits(tmp_path):
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        write_folder(tmp_path / "images" / split, count=count)
    spec = DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8)
    data = datasets.load_images(spec, tmp_path / "cache")
    assert (len(data.train), len(data.val)) == (10, 4)
    assert len(datasets.load_test(spec, tmp_path / "cache")) == 6


@pytest.mark.parametrize(
    "names", [("Train", "Valid", "Test"), ("TRAINING", "VAL", "TESTING"), ("train", "val", "Test")]
)
def test_the_folders_of_splits_are_known_in_capitals(tmp_path, names):
    for split, count in zip(names, (5, 2, 3), strict=True):
        write_folder(tmp_path / "images" / split, count=count)
    spec = DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8)
    data = datasets.load_images(spec, tmp_path / "cache")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(datasets.load_test(spec, tmp_path / "cache"))) == (10, 4, 6)


def test_a_test_folder_in_capitals_beside_the_classes_is_no_class(tmp_path):
    root = write_folder(tmp_path / "images")
    write_folder(root / "Test", count=3)
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    assert datasets.load_images(spec, tmp_path / "cache").classes == ("cat", "dog")
    assert len(datasets.load_test(spec, tmp_path / "cache")) == 6


def test_two_folders_of_one_split_and_a_class_called_like_one_are_refused(tmp_path):
    for split in ("train", "val", "Validation"):
        write_folder(tmp_path / "both" / split)
    with pytest.raises(DataError, match="has the folders 'Validation' and 'val', which mean the same split; keep one"):
        list_images(tmp_path / "both", "train")
    root = write_folder(tmp_path / "vehicles", classes=("Car", "Train"))
    with pytest.raises(DataError, match="'Train' is taken as a split; rename it if it is a class"):
        list_images(root, "train")


def test_an_unreadable_image_is_named(tmp_path):
    root = write_folder(tmp_path / "images")
    (root / "cat" / "broken.png").write_text("no image")
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be read(.|\n)*broken.png"):
        datasets.load_images(DataSpec("image_folder", root=str(root), image_size=8, seed=1), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("images.npy"))


def test_broken_files_of_all_parts_are_named_at_once_before_a_study_begins(tmp_path):
    root = write_folder(tmp_path / "images", count=10)
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    tested = list_images(root, "test").files
    searched = [path for path in list_images(root, "train").files if path not in tested]
    tested[0].write_text("no image")
    searched[0].unlink()
    searched[0].symlink_to(tmp_path / "nowhere.png")
    message = r"2 of 20 images cannot be read; repair or remove them:"
    with pytest.raises(DataError, match=message) as refused:
        datasets.check_files(spec, tmp_path / "cache")
    assert all(str(path) in str(refused.value) for path in (tested[0], searched[0]))


def test_the_check_of_files_decodes_each_once_for_the_search_and_for_verify(tmp_path, monkeypatch):
    spec = DataSpec("image_folder", root=str(write_folder(tmp_path / "images")), image_size=8)
    datasets.check_files(spec, tmp_path / "cache")
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("decoded again"))
    datasets.load_images(spec, tmp_path / "cache")
    datasets.load_test(spec, tmp_path / "cache")


def test_the_check_of_files_hands_on_nothing_of_the_test_part(tmp_path):
    spec = DataSpec("image_folder", root=str(write_folder(tmp_path / "images")), image_size=8)
    before = datasets.load_images(spec, tmp_path / "first").fingerprint
    for path in list_images(tmp_path / "images", "test").files:
        Image.new("RGB", (20, 12), "red").save(path)
    assert datasets.check_files(spec, tmp_path / "second") is None
    assert datasets.load_images(spec, tmp_path / "second").fingerprint == before


def test_a_test_file_that_breaks_later_is_to_be_replaced_and_not_removed(tmp_path):
    root = write_folder(tmp_path / "images")
    list_images(root, "test").files[0].write_text("no image")
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    datasets.load_images(spec, tmp_path / "cache")  # the search does not open test files
    with pytest.raises(DataError, match="replace each by a readable file; removing one changes the split"):
        datasets.load_test(spec, tmp_path / "cache")
    with pytest.raises(DataError, match="replace each by a readable file; removing one changes the split"):
        datasets.check_files(spec, tmp_path / "cache", begun=True)


def test_a_class_that_only_the_test_folder_has_is_found_before_a_study_begins(tmp_path):
    write_folder(tmp_path / "images" / "train")
    write_folder(tmp_path / "images" / "test", classes=("cat", "cow"))
    spec = DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8)
    with pytest.raises(DataError, match="test has classes without training images: cow"):
        datasets.check_files(spec, tmp_path / "cache")


def test_validation_images_of_one_class_are_refused(tmp_path):
    write_folder(tmp_path / "images" / "train")
    write_folder(tmp_path / "images" / "val", classes=("dog",))
    spec = DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8)
    with pytest.raises(DataError, match=r"all validation images \(6\) are of class 'dog'; at least 2 of 2 classes"):
        datasets.load_images(spec, tmp_path / "cache")


def test_a_class_too_small_for_its_splits_is_named_with_the_reason(tmp_path):
    root = write_folder(tmp_path / "images")
    write_folder(root, classes=("cow",), count=2)
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    message = r"'cow' \(2\); at least 3 are needed, one each for training, validation and the test split \(a fifth"
    with pytest.raises(DataError, match=message):
        datasets.load_images(spec, tmp_path / "cache")


def test_hidden_folders_hold_no_images(tmp_path):
    root = write_folder(tmp_path / "images")
    write_folder(root / "cat", classes=(".ipynb_checkpoints",))
    write_folder(root / "dog", classes=("brown",), count=3)
    listing = list_images(root, "train")
    assert not [path for path in listing.files if ".ipynb_checkpoints" in path.parts]
    every = (*listing.files, *list_images(root, "test").files)
    assert sorted(path.relative_to(root).parts[0] for path in every) == ["cat"] * 6 + ["dog"] * 9


def test_files_are_images_by_every_suffix_that_is_read_and_others_are_counted(tmp_path):
    root = write_folder(tmp_path / "images")
    for path in (root / "cat").iterdir():
        picture = Image.open(path)
        for suffix, kind in ((".TIFF", "TIFF"), (".tif", "TIFF"), (".jfif", "JPEG"), (".jpe", "JPEG")):
            picture.save(path.with_suffix(suffix), format=kind)
        picture.save(path.with_suffix(".gif"))
    (root / "dog" / "labels.txt").touch()
    (root / "dog" / ".hidden").touch()
    (root / "readme.md").touch()
    spec = DataSpec("image_folder", root=str(root), image_size=8)
    with pytest.warns(
        UserWarning, match=r"left out by their suffix: 6 \.gif, 1 \.txt\. Allowed suffixes: \.bmp, .*\.tiff"
    ) as caught:
        datasets.check_files(spec, tmp_path / "cache")
    assert len(caught) == 1
    assert np.bincount(list_images(root, "train").labels).tolist() == [24, 5]


def test_a_class_folder_of_other_files_is_refused_with_the_formats_that_are_read(tmp_path):
    root = write_folder(tmp_path / "images")
    (root / "emu").mkdir()
    (root / "emu" / "0.gif").touch()
    with pytest.raises(
        DataError, match=r"images: emu \(left out: 1 \.gif\)\. Expected .* Allowed suffixes: \.bmp, .*\.webp\."
    ):
        list_images(root, "train")


def test_files_of_sixteen_bits_with_eight_bit_values_are_reported(tmp_path):
    root = write_folder(tmp_path / "images")
    for path in root.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16)).save(path)
    with pytest.warns(UserWarning, match="no pixel is brighter than 16 of 255"):
        datasets.check_files(DataSpec("image_folder", root=str(root), image_size=8), tmp_path / "cache")


def test_postscript_called_png_and_giant_images_are_refused(tmp_path):
    root = write_folder(tmp_path / "images" / "train")
    write_folder(tmp_path / "images" / "test")
    (root / "cat" / "evil.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("1", (9000, 9000)).save(root / "dog" / "bomb.png")
    with pytest.raises(
        DataError, match=r"evil.png \(not an image that Pillow can read\)(.|\n)*bomb.png .*9000 x 9000 pix"
    ):
        datasets.load_images(DataSpec("image_folder", root=str(tmp_path / "images"), image_size=8), tmp_path / "cache")


def test_one_class_and_empty_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        datasets.load_images(DataSpec("image_folder", root=str(tmp_path / "empty"), image_size=8))
    write_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(DataError, match="has one class"):
        datasets.load_images(DataSpec("image_folder", root=str(tmp_path / "one"), image_size=8))
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folders without images .*: dog"):
        datasets.load_images(DataSpec("image_folder", root=str(tmp_path / "one"), image_size=8))


def test_image_folder_says_which_size_it_chose(tmp_path):
    root = write_folder(tmp_path / "images")
    with pytest.warns(UserWarning, match="scaled to 64 x 64"):
        assert datasets.load_images(DataSpec("image_folder", root=str(root)), tmp_path / "cache").image_size == 64


def test_a_factory_gives_images(tmp_path, monkeypatch):
    code = (
        "import numpy as np\n"
        "def make(part, n=8):\n    return np.zeros((n, 1, 4, 4), np.uint8), np.arange(n) % 2, ('a', 'b')\n"
        "def floats(part):\n    return np.zeros((8, 1, 4, 4)), np.arange(8) % 2\n"
        "def fails(part):\n    raise RuntimeError('no disk')\n"
    )
    (tmp_path / "my_images.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert datasets.load_images(DataSpec("my_images:make", options={"n": 12})).classes == ("a", "b")
    with pytest.raises(DataError, match="float64; expected uint8"):
        datasets.load_images(DataSpec("my_images:floats"))
    with pytest.raises(DataError, match="RuntimeError: no disk"):
        datasets.load_images(DataSpec("my_images:fails"))
    with pytest.raises(UsageError, match="cannot import 'my_images:mak'"):
        datasets.load_images(DataSpec("my_images:mak"))


def test_files_mapped_by_a_factory_are_distinguished_by_their_content(tmp_path, monkeypatch):
    code = (
        "import numpy as np\n"
        "from autodistill.training.data.sources.base import LabelledImages\n"
        "def make(part, file):\n    images = np.load(file, mmap_mode='r')\n"
        "    return LabelledImages(images, np.arange(len(images)) % 2, ('a', 'b'))\n"
    )
    (tmp_path / "mapped_images.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    def loaded(level):
        np.save(tmp_path / f"{level}.npy", np.full((40, 1, 4, 4), level, np.uint8))
        spec = DataSpec("mapped_images:make", options={"file": str(tmp_path / f"{level}.npy")})
        return datasets.load_images(spec, tmp_path / "cache")

    first, second = loaded(10), loaded(200)
    assert isinstance(second.train.images, np.memmap)
    assert first.fingerprint != second.fingerprint
    for data, level in ((first, 10), (second, 200)):
        assert set(np.unique(data.train.images)) == set(np.unique(data.val.images)) == {level}
        assert data.mean == pytest.approx((level / 255,))


def test_shares_follow_the_largest_remainders():
    labels = np.repeat([0, 1, 2], [70, 20, 10]).astype(np.int64)
    mask = choose_rows(labels, 13, seed=0, stream="x")
    assert np.bincount(labels[mask]).tolist() == [9, 3, 1]


def test_holding_out_needs_two_images_per_class():
    with pytest.raises(DataError, match="class 1 has 1 image"):
        hold_out(np.array([0, 0, 1]), 0.5, seed=0, stream="validation")
