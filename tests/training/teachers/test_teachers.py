import json
import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from autodistill.core.errors import TeacherError, UnknownNameError, UsageError
from autodistill.core.records import DataSpec, TeacherSpec
from autodistill.training.data import datasets
from autodistill.training.teachers import load as teachers
from autodistill.training.teachers.checking.class_order import best_order
from autodistill.training.teachers.checking.preflight import preflight
from autodistill.training.teachers.folder import TEACHER_JSON
from autodistill.training.teachers.teacher import Preprocessing, Teacher, freeze
from autodistill.training.trials.teach import teach

CODE = '''
import torch
from torch import nn

def bright(scale=1.0):
    """Right wherever the class is the brightness; independent of timm."""
    class Bright(nn.Module):
        def forward(self, x):
            level = x.mean((1, 2, 3), keepdim=False)[:, None] * 4
            return -scale * (level - torch.tensor([[0.5, 1.5, 2.5, 3.5]])).abs()
    return Bright()

def shuffled():
    inner = bright()
    return lambda x: inner(x)[:, [2, 0, 3, 1]]

def constant():
    return lambda x: torch.tensor([[2.0, 0, 0, 0]]).expand(len(x), 4)

def three():
    return lambda x: torch.zeros(len(x), 3)

def nan():
    return lambda x: torch.full((len(x), 4), float("nan"))

def softmax(sharp=20.0):
    inner = bright(sharp)
    return lambda x: inner(x).softmax(1)

def more():  # probabilities of eight classes, of which the last four are ours
    inner = bright(20.0)
    return lambda x: torch.cat([inner(x) * 0, inner(x)], 1).softmax(1)

def brightness(images):
    return bright()(images)

def darker(mean=0.0):
    inner = bright()
    return lambda x: inner(x * 0.5 + 0.5 if x.min() < 0 else x * 0)

def fails():
    raise RuntimeError("no weights here")

def images(part, n=160):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 4
    noise = torch.randint(-20, 20, (n, 1, 8, 8), generator=generator)
    return (noise + 32 + 63 * labels[:, None, None, None]).clamp(0, 255).to(torch.uint8).numpy(), labels.numpy()
'''


@pytest.fixture(scope="module", autouse=True)
def own_code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "own_teachers.py").write_text(CODE)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def data(own_code):
    return datasets.load_images(DataSpec("own_teachers:images"))


@pytest.fixture(scope="module")
def taught(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "teacher"
    network = {"family": "resnetv2", "width": 4, "stages": 2}
    return teach(data, network, directory=folder, epochs=6, recipe={"lr": 0.03, "augment": "none", "ema": 0.9})


def test_a_factory_is_a_teacher_in_eval_mode_without_gradients(data):
    teacher = teachers.load_teacher(TeacherSpec("own_teachers:bright"), data)
    found = preflight(teacher, data)
    assert found.accuracy == 1.0
    assert (found.classes, found.image_size, found.chance, found.weak) == (4, 8, 0.25, False)
    assert not teacher(torch.rand(2, 1, 8, 8)).requires_grad


def test_no_caller_can_bring_the_network_into_training_mode():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4))
    teacher = Teacher("x", "0", Preprocessing(8, 1), network=freeze(network, torch.device("cpu")))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    teacher.network.train()
    teacher(torch.rand(16, 1, 8, 8) * 9)
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_its_own_normalization_channels_and_resolution_are_applied():
    seen = {}

    def network(images):
        seen["images"] = images
        return torch.zeros(len(images), 2)

    expects = Preprocessing(16, 3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    images = torch.rand(2, 1, 8, 8)
    Teacher("x", "0", expects, network=network)(images)
    large = F.interpolate(images, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    expected = torch.cat([(large - 0.1) / 0.5, (large - 0.2) / 0.25, (large - 0.3) / 0.125], dim=1)
    torch.testing.assert_close(seen["images"], expected)


def test_colour_becomes_grey_for_a_grey_teacher():
    teacher = Teacher("x", "0", Preprocessing(1, 1), network=lambda images: images.flatten(1))
    assert teacher(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)).item() == pytest.approx(0.299 + 0.2935)


def test_a_taught_folder_loads_with_its_accuracy(data, taught):
    teacher = teachers.load_teacher(taught, data)
    facts = json.loads((teachers.Path(taught.source) / TEACHER_JSON).read_text())
    assert preflight(teacher, data).accuracy == pytest.approx(facts["metrics"]["accuracy"], abs=1e-9)
    assert facts["metrics"]["accuracy"] > 0.6


def test_the_folder_of_a_study_is_the_teacher_that_it_taught(data, taught, tmp_path):
    study = tmp_path / "runs" / "a"
    study.mkdir(parents=True)
    (study / "study.yaml").write_text("teacher: {source: auto}\n")
    with pytest.raises(TeacherError, match=r"a holds no teacher of its own. It has not trained one yet: continue"):
        teachers.check_teacher(TeacherSpec(str(study)))
    shutil.copytree(taught.source, study / "teacher")
    own, within = (teachers.load_teacher(TeacherSpec(source), data) for source in (taught.source, str(study)))
    assert own.fingerprint == within.fingerprint
    teachers.check_teacher(TeacherSpec(str(study)))
    members = {"members": [str(study), {"source": taught.source}]}
    assert (
        teachers.load_teacher(TeacherSpec("ensemble", options=members), data).members[0][1].fingerprint
        == own.fingerprint
    )


def test_a_study_that_was_given_its_teacher_names_it(tmp_path):
    (tmp_path / "study.yaml").write_text("teacher: {source: resnet18, weights: own.safetensors}\n")
    with pytest.raises(TeacherError, match=r"that it uses: resnet18 with the weights own\.safetensors"):
        teachers.check_teacher(TeacherSpec(str(tmp_path)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TeacherSpec("EMPTY"), "holds no teacher"),
        (TeacherSpec("ensemble", options={"members": ["EMPTY"]}), "holds no teacher"),
        (TeacherSpec("resnet18", weights="nowhere.safetensors"), "weights nowhere.safetensors: that file does not"),
        (TeacherSpec("WEIGHTS"), "holds weights only; give the architecture"),
    ],
)
def test_what_cannot_be_a_teacher_is_refused_before_images_are_read(tmp_path, spec, message):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "WEIGHTS.pth").write_bytes(b"PK")
    places = {"EMPTY": str(tmp_path / "EMPTY"), "WEIGHTS": str(tmp_path / "WEIGHTS.pth")}
    members = [places.get(one, one) for one in spec.options.get("members", ())]
    options = {"members": members} if members else {}
    with pytest.raises(TeacherError, match=message):
        teachers.check_teacher(TeacherSpec(places.get(spec.source, spec.source), weights=spec.weights, options=options))


def test_a_damaged_teacher_is_refused(data, taught, tmp_path):
    for path in teachers.Path(taught.source).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / teachers.TEACHER_WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    with pytest.raises(TeacherError, match=r"teacher\.safetensors is damaged"):
        teachers.load_teacher(TeacherSpec(str(tmp_path)), data)


def test_taught_classes_are_matched_by_name(data, taught):
    teacher = teachers.load_teacher(taught, data)
    turned = datasets.ImageData(**{**vars(data), "classes": data.classes[::-1]})
    other = teachers.load_teacher(taught, turned)
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(other(images), teacher(images).flip(1))
    with pytest.raises(TeacherError, match="include 'zebra', which is not among them"):
        teachers.load_teacher(taught, datasets.ImageData(**{**vars(data), "classes": ("0", "1", "2", "zebra")}))


def timm_weights(tmp_path, suffix):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4, in_chans=1).eval()
    path = tmp_path / f"weights{suffix}"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    return network, path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_name_with_weights_equals_the_network(data, tmp_path, suffix):
    network, path = timm_weights(tmp_path, suffix)
    options = {"image_size": 32, "mean": [0.5], "std": [0.25]}
    teacher = teachers.load_teacher(TeacherSpec("test_resnet", weights=str(path), options=options), data)
    images = torch.rand(2, 1, 8, 8)
    large = F.interpolate(images, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(teacher(images), network((large - 0.5) / 0.25))
    assert teacher.embedding(images)[1].shape == (2, teacher.embedding_width())


def test_weights_for_other_classes_are_refused(data, tmp_path):
    _, path = timm_weights(tmp_path, ".safetensors")
    fewer = datasets.ImageData(**{**vars(data), "classes": ("a", "b")})
    with pytest.raises(TeacherError, match="does not fit its weights"):
        teachers.load_teacher(TeacherSpec("test_resnet", weights=str(path)), fewer)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pkl", ".ts", ".pt2", ".npz", ".safetensors", ".joblib"])
@pytest.mark.parametrize("force", ["0", "1"])
def test_a_hostile_file_is_refused_and_not_run(data, tmp_path, suffix, force, monkeypatch):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    path = tmp_path / f"weights{suffix}"
    if suffix in (".pth", ".pt"):
        torch.save({"state_dict": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    for spec in (TeacherSpec("test_resnet", weights=str(path)), TeacherSpec(str(path))):
        with pytest.raises(TeacherError):
            teachers.load_teacher(spec, data)
    assert not (tmp_path / "owned").exists()


def test_pretrained_weights_without_network_fail_within_seconds(data, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    start = time.monotonic()
    with pytest.raises(TeacherError, match="hub cannot be reached"):
        teachers.load_teacher(TeacherSpec("resnet18"), data)
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up_on(data, monkeypatch):
    import urllib.request

    from autodistill.training.weights import hub, source

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "cached", lambda repository: None)
    monkeypatch.setattr(hub, "_SECONDS", 0.1)
    monkeypatch.setattr(hub, "_asked", {})

    def hang(*args, **kwargs):
        time.sleep(1.0)
        raise OSError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(TeacherError, match="or give a file or folder as weights"):
        source.require([source.resolve("resnet18")])
    assert time.monotonic() - start < 0.9


def test_an_architecture_without_published_weights_says_so(data):
    with pytest.raises(TeacherError, match="no pretrained weights for seresnet18"):
        teachers.load_teacher(TeacherSpec("seresnet18"), data)


def test_an_unknown_teacher_names_the_nearest(data):
    with pytest.raises(UsageError, match=r"unknown teacher 'resnet81'; did you mean .*resnet18"):
        teachers.load_teacher(TeacherSpec("resnet81"), data)


@pytest.mark.parametrize("path", ["teachers/nope", "./nope", "~/nope", "/no/where/teacher"])
def test_a_path_that_does_not_exist_is_called_that(data, path):
    with pytest.raises(UsageError, match="that folder or file does not exist") as found:
        teachers.load_teacher(TeacherSpec(path), data)
    assert "resnet" not in str(found.value)


def linear_onnx(path, shape, kind="FLOAT", inputs=64):
    """A file that flattens images of ``shape`` and multiplies them with the matrix that is returned."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    weight = np.random.default_rng(0).normal(size=(inputs, 4)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["x"], ["float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Flatten", ["float"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [onnx.helper.make_tensor_value_info("x", getattr(onnx.TensorProto, kind), shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [shape[0], 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return torch.from_numpy(weight)


def test_an_onnx_file_gives_the_logits_of_its_network(data, tmp_path):
    weight = linear_onnx(tmp_path / "teacher.onnx", [2, 1, 8, 8])  # a fixed batch of 2
    teacher = teachers.load_teacher(TeacherSpec(str(tmp_path / "teacher.onnx")), data)
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(teacher(images), images.flatten(1) @ weight)


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_an_onnx_file_is_fed_in_the_precision_that_it_takes(data, tmp_path, kind):
    weight = linear_onnx(tmp_path / "teacher.onnx", ["batch", 1, 8, 8], kind)
    teacher = teachers.load_teacher(TeacherSpec(str(tmp_path / "teacher.onnx")), data)
    images = torch.rand(5, 1, 8, 8)
    fed = images.half().float() if kind == "FLOAT16" else images
    torch.testing.assert_close(teacher(images), fed.flatten(1) @ weight)


@pytest.mark.parametrize("shape", [[2, 4, 4, 3], ["batch", "height", "width", 3], ["batch", 4, "width", 3]])
def test_an_onnx_file_with_channels_last_is_fed_so(data, tmp_path, shape):
    weight = linear_onnx(tmp_path / "teacher.onnx", shape, inputs=48)
    teacher = teachers.load_teacher(TeacherSpec(str(tmp_path / "teacher.onnx"), options={"image_size": 4}), data)
    assert (teacher.preprocessing.channels, teacher.image_size) == (3, 4)
    images = torch.rand(5, 3, 4, 4)
    torch.testing.assert_close(teacher(images), images.permute(0, 2, 3, 1).flatten(1) @ weight)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        (
            ["b", 1, 8, 8],
            "UINT8",
            r"takes tensor\(uint8\) \['b', 1, 8, 8\]; expected floats: tensor\(float\), .*Export",
        ),
        (["b", 3, 32, 48], "FLOAT", r"takes tensor\(float\) \['b', 3, 32, 48\]; expected 1 or 3 channels and equal"),
        (["b", 4, 8, 8], "FLOAT", r"\['b', 4, 8, 8\]; expected 1 or 3 channels and equal"),
        (["b", 64], "FLOAT", r"\['b', 64\]; expected one input \(batch, channels, side, side\) or"),
    ],
)
def test_an_onnx_file_that_takes_no_square_images_of_floats_is_refused(data, tmp_path, shape, kind, message):
    linear_onnx(tmp_path / "teacher.onnx", shape, kind, inputs=int(np.prod(shape[1:])))
    with pytest.raises(TeacherError, match=message):
        teachers.load_teacher(TeacherSpec(str(tmp_path / "teacher.onnx")), data)


def test_errors_of_onnx_runtime_about_the_images_are_reported(data, tmp_path):
    linear_onnx(tmp_path / "teacher.onnx", ["b", 1, 8, 8])
    teacher = teachers.load_teacher(TeacherSpec(str(tmp_path / "teacher.onnx"), options={"image_size": 16}), data)
    with pytest.raises(
        TeacherError, match=r"fails on images of shape \(1, 16, 16\): .*Got: 16 Expected: 8.*image_size=N"
    ):
        preflight(teacher, data)


def test_stored_logits_are_found_by_id(data, tmp_path):
    logits = np.random.default_rng(0).normal(size=(data.pool_size, 4)).astype(np.float32)
    order = np.random.default_rng(1).permutation(data.pool_size)
    np.savez(tmp_path / "logits.npz", logits=logits[order], ids=order)
    teacher = teachers.load_teacher(TeacherSpec(str(tmp_path / "logits.npz")), data)
    assert np.array_equal(teacher.of_ids(torch.tensor([3, 0])).numpy(), logits[[3, 0]])
    with pytest.raises(TeacherError, match="cannot be run on images"):
        teacher(torch.rand(1, 1, 8, 8))
    np.savez(tmp_path / "few.npz", logits=logits[:3], ids=np.arange(3))
    few = teachers.load_teacher(TeacherSpec(str(tmp_path / "few.npz")), data)
    with pytest.raises(TeacherError, match=r"no finite logits for some images, e\.g\. id 7"):
        few.of_ids(torch.tensor([1, 7]))


def test_the_class_map_picks_columns_of_stored_logits(data, tmp_path):
    logits = np.random.default_rng(0).normal(size=(data.pool_size, 5)).astype(np.float32)
    np.savez(tmp_path / "logits.npz", logits=logits)
    plain, mapped = (
        teachers.load_teacher(TeacherSpec(str(tmp_path / "logits.npz"), options=options), data)
        for options in ({}, {"class_map": [4, 0, 2, 1]})
    )
    assert np.array_equal(mapped.of_ids(torch.tensor([3, 0])).numpy(), logits[[3, 0]][:, [4, 0, 2, 1]])
    assert mapped.fingerprint != plain.fingerprint
    for wrong, message in (([0, 1], "class_map has 2 entries; expected 4"), ([0, 1, 2, 5], "beyond the 5 of")):
        with pytest.raises(UsageError, match=message):
            teachers.load_teacher(TeacherSpec(str(tmp_path / "logits.npz"), options={"class_map": wrong}), data)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("x.onnx", {"imagesize": 64}, r"\(an ONNX file\) 'imagesize'; did you mean 'image_size'"),
        ("x.npz", {"classmap": [0]}, r"\(a file of logits\) 'classmap'; did you mean 'class_map'"),
        ("x.npz", {"image_size": 64}, r"\(a file of logits\) 'image_size'"),
        (".", {"imagesize": 64}, r"\(a folder\) 'imagesize'; did you mean 'image_size'"),
        ("ensemble", {"share": [1, 2]}, r"\(an ensemble\) 'share'; did you mean 'shares'"),
    ],
)
def test_options_without_effect_are_refused(data, tmp_path, source, options, message):
    spec = TeacherSpec(str(tmp_path / source) if source != "ensemble" else source, options=options)
    for use in (teachers.check_teacher, lambda spec: teachers.load_teacher(spec, data)):
        with pytest.raises(UnknownNameError, match=message):
            use(spec)


def test_weights_without_effect_are_refused(data, tmp_path):
    (tmp_path / "w.safetensors").touch()
    for source in ("x.onnx", "x.npz", "."):
        spec = TeacherSpec(str(tmp_path / source), weights=str(tmp_path / "w.safetensors"))
        for use in (teachers.check_teacher, lambda spec: teachers.load_teacher(spec, data)):
            with pytest.raises(
                UsageError, match=r"has the weights .*w\.safetensors, but .* needs none: leave them out"
            ):
                use(spec)
    with pytest.raises(UsageError, match="its factory returns a function, and only a module can load weights"):
        teachers.load_teacher(TeacherSpec("own_teachers:constant", weights=str(tmp_path / "w.safetensors")), data)


def test_an_ensemble_answers_with_the_mean_of_probabilities(data):
    members = [{"source": "own_teachers:bright", "options": {"scale": scale}} for scale in (1.0, 3.0)]
    options = {"members": members, "shares": [3, 1]}
    teacher = teachers.load_teacher(TeacherSpec("ensemble", options=options), data)
    images = torch.rand(5, 1, 8, 8)
    first, second = (teachers.load_teacher(TeacherSpec(**member), data)(images) for member in members)
    expected = 0.75 * first.softmax(1) + 0.25 * second.softmax(1)
    torch.testing.assert_close(teacher(images).softmax(1), expected)
    assert preflight(teacher, data).accuracy == 1.0


def test_fingerprints_differ_by_weights_and_by_preprocessing(data, tmp_path):
    _, path = timm_weights(tmp_path, ".safetensors")

    def print_of(**options):
        return teachers.load_teacher(TeacherSpec("test_resnet", weights=str(path), options=options), data).fingerprint

    assert print_of() == print_of()
    assert print_of() != print_of(mean=[0.1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", r"gives 3 logits per image; the data has 4 classes(.|\n)*class_map"),
        ("nan", r"not finite for 24 of 24 validation images"),
        ("constant", r"is right on 25.0% .* gives 25.0%(.|\n)*may be random"),
        ("constant", r"input was 8 px, 1 channel, mean \[0\], std \[1\]. Set .* --set teacher.options.image_size=N"),
        ("softmax", r"gives probabilities: .* --set teacher.options.outputs=probabilities to .* remove the softmax"),
        (
            "darker",
            r"input was 8 px.* With other input it is right on 100.0%: --set 'teacher.options.mean=\[0.5\]' --set",
        ),
        ("shuffled", r"in another order it is right on 100.0%: set the teacher option class_map to \[1, 3, 0, 2\]"),
    ],
)
def test_preflight_refuses_and_says_why(data, name, message):
    teacher = teachers.load_teacher(TeacherSpec(f"own_teachers:{name}"), data)
    with pytest.raises(TeacherError, match=message):
        preflight(teacher, data)


def test_the_logarithm_of_probabilities_is_distilled(data):
    spec = TeacherSpec("own_teachers:softmax", options={"outputs": "probabilities"})
    teacher, logits = (teachers.load_teacher(one, data) for one in (spec, TeacherSpec("own_teachers:bright")))
    assert preflight(teacher, data).accuracy == 1.0
    images = torch.rand(5, 1, 8, 8)
    for temperature in (1.0, 4.0):
        expected = (20 * logits(images) / temperature).softmax(1)
        torch.testing.assert_close((teacher(images) / temperature).softmax(1), expected)
    said = teachers.load_teacher(TeacherSpec("own_teachers:softmax", options={"outputs": "logits"}), data)
    torch.testing.assert_close(said(images), teacher(images).exp())
    assert len({one.fingerprint for one in (teacher, said)}) == 2


def test_stored_probabilities_and_those_of_some_classes_and_members_are_found_out(data, tmp_path):
    rows = np.random.default_rng(0).dirichlet([0.1] * 4, data.pool_size).round(5).astype(np.float32)
    rows[0] = [1, 0, 0, 0]
    np.savez(tmp_path / "shares.npz", logits=rows)
    specs = [
        TeacherSpec(str(tmp_path / "shares.npz")),
        TeacherSpec("own_teachers:more", options={"class_map": [4, 5, 6, 7]}),
        TeacherSpec("ensemble", options={"members": ["own_teachers:bright", "own_teachers:softmax"]}),
    ]
    for spec in specs:
        with pytest.raises(TeacherError, match="gives probabilities"):
            preflight(teachers.load_teacher(spec, data), data, accept_weak=True)
    stored = teachers.load_teacher(TeacherSpec(specs[0].source, options={"outputs": "probabilities"}), data)
    assert stored.fingerprint != teachers.load_teacher(specs[0], data).fingerprint
    preflight(stored, data, accept_weak=True)
    torch.testing.assert_close(stored.of_ids(torch.arange(9)).softmax(1), torch.from_numpy(rows[:9]), atol=3e-5, rtol=0)


def test_logits_called_probabilities_and_other_words_are_refused(data):
    teacher = teachers.load_teacher(TeacherSpec("own_teachers:bright", options={"outputs": "probabilities"}), data)
    with pytest.raises(TeacherError, match="no logarithm for 24 of 24 validation images, although its option"):
        preflight(teacher, data)
    with pytest.raises(UsageError, match="outputs is 'softmax'; allowed: logits, probabilities"):
        teachers.load_teacher(TeacherSpec("own_teachers:bright", options={"outputs": "softmax"}), data)


def test_a_factory_that_acts_as_a_teacher_is_refused_with_advice_to_return_one(data):
    said = r"without arguments, which brightness\(images\) does not take.* def make\(\): return brightness"
    with pytest.raises(UsageError, match=said):
        teachers.load_teacher(TeacherSpec("own_teachers:brightness"), data)
    with pytest.raises(UsageError, match=r"with its options \(size\), which bright\(scale=1.0\) does not take"):
        teachers.load_teacher(TeacherSpec("own_teachers:bright", options={"size": 1}), data)


def test_the_suggested_input_works(data):
    spec = TeacherSpec("own_teachers:darker", options={"mean": [0.5], "std": [0.5]})
    assert preflight(teachers.load_teacher(spec, data), data).accuracy == 1.0


def test_the_suggested_class_map_works_and_a_weak_teacher_can_be_accepted(data):
    spec = TeacherSpec("own_teachers:shuffled", options={"class_map": [1, 3, 0, 2]})
    assert preflight(teachers.load_teacher(spec, data), data).accuracy == 1.0
    weak = preflight(teachers.load_teacher(TeacherSpec("own_teachers:constant"), data), data, accept_weak=True)
    assert weak.weak


def numbered(classes, images):
    """Images whose brightest pixel is their class, with the classes in the order of their names: 0, 1, 10, 11, 2 …"""
    labels = np.arange(classes * images) % classes
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    pixels[:, 0, 0, 0] = labels
    split = datasets.Split(pixels, labels.astype(np.int64), np.arange(len(labels)))
    names = tuple(sorted(map(str, range(classes))))
    return datasets.ImageData(split, split, names, 8, 1, (0.0,), (1.0,), "x", len(labels))


def seen(images):
    return (images[:, 0, 0, 0] * 255).round().long()


@pytest.mark.parametrize(("classes", "accuracy"), [(12, "16.7%"), (100, "12.0%")])
def test_a_class_order_that_is_right_now_and_then_is_refused_with_the_right_one(classes, accuracy):
    data = numbered(classes, 20)
    places = torch.tensor([int(name) for name in data.classes])
    teacher = Teacher(
        "numeric", "0", Preprocessing(8, 1), network=lambda x: 10 * F.one_hot(places[seen(x)], classes).float()
    )
    said = rf"is right on {accuracy} .* order it is right on 100.0%: .* class_map to \[0, 1, 10, .*accept_weak=true"
    with pytest.raises(TeacherError, match=said) as refused:
        preflight(teacher, data)
    order = json.loads(str(refused.value).partition("class_map to ")[2].partition(" (")[0])
    assert order == places.tolist()
    mended = Preprocessing(8, 1, class_map=tuple(order))
    assert preflight(Teacher("numeric", "0", mended, network=teacher.network), data).accuracy == 1.0
    assert not preflight(teacher, data, accept_weak=True).weak


def test_a_new_class_order_is_said_in_positions_of_the_network_where_it_has_one():
    data = numbered(4, 20)
    expects = Preprocessing(8, 1, class_map=(4, 3, 2, 1))
    teacher = Teacher("x", "0", expects, network=lambda x: 10 * F.one_hot(seen(x) + 1, 5).float())
    with pytest.raises(TeacherError, match=r"class_map to \[1, 2, 3, 4\]"):
        preflight(teacher, data)


def test_a_weak_teacher_of_many_classes_is_not_said_to_have_another_order():
    data = numbered(100, 2)
    guesses = np.random.default_rng(0).integers(0, 100, 200)
    guesses[:30] = data.val.labels[:30]
    accuracy = (guesses == data.val.labels).mean()
    assert 0.15 <= accuracy < 0.2
    assert best_order(guesses, data.val.labels, 100)[0] > 2 * accuracy  # two images of each class: some order fits
    logits = 10 * F.one_hot(torch.from_numpy(guesses), 100).float()
    assert preflight(Teacher("x", "0", Preprocessing(8, 1), stored=logits), data).accuracy == pytest.approx(accuracy)


def test_a_teacher_that_fails_is_named(data):
    with pytest.raises(TeacherError, match="RuntimeError: no weights here"):
        teachers.load_teacher(TeacherSpec("own_teachers:fails"), data)
    with pytest.raises(UsageError, match="has to be trained first"):
        teachers.load_teacher(TeacherSpec(), data)
