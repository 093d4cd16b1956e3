"""Asking a model leaves it as it was."""

import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.models import GoogLeNetOutputs

from tutorial_lib.models import build
from tutorial_lib.models.inputs import read_images
from tutorial_lib.models.predict import predict_features, predict_logits, predict_probabilities, preserved


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    ).train()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].eval()
    return model


def test_batches_do_not_change_the_answer(model):
    images = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(predict_logits(model, images, 2), predict_logits(model, images, 100))


def test_probabilities_sum_to_one_in_float64(model):
    probabilities = predict_probabilities(model, torch.rand(5, 1, 8, 8))
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("fail", [False, True])
def test_preserved_restores_everything(model, fail):
    before = copy.deepcopy(model)
    before[0].weight.grad = model[0].weight.grad.clone()  # deepcopy leaves .grad behind
    modes = [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    try:
        with preserved(model):
            assert not any(m.training for m in model.modules())
            model.train()
            model(torch.rand(4, 1, 8, 8)).sum().backward()  # moves batch norm's statistics, .grad and the random state
            model[5].weight.requires_grad_(False)
            model[0].weight.grad.zero_()
            if fail:
                raise RuntimeError("inside")
    except RuntimeError:
        assert fail
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for (name, a), b in zip(model.named_parameters(), before.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad, name
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_features_need_a_features_method(model):
    with pytest.raises(TypeError, match="no features method"):
        predict_features(model, torch.rand(1, 1, 8, 8))
    assert predict_features(build("lenet", 3, (1, 8, 8)), torch.rand(2, 1, 8, 8)).shape == (2, 84)


class Answers(nn.Module):
    """A network that returns what it is told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images.flatten(1)[:, :3])


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda z: z[:, :1], ValueError, r"one logit for each image, shape \(2, 1\)"),
        (lambda z: z[:, 0], ValueError, r"one logit for each image, shape \(2,\)"),
        (lambda z: z[:1], ValueError, r"\(2, K\) for 2 images, got the shape \(1, 3\)"),
        (lambda z: z[:, :, None, None].expand(-1, -1, 4, 4), ValueError, "one answer for each pixel"),
        (lambda z: (z, z), TypeError, "returned a tuple of 2"),
        (lambda z: {"out": z}, TypeError, "returned a dict with out"),
        (lambda z: z.argmax(1, keepdim=True).expand(-1, 2), TypeError, "floating point logits, got torch.int64"),
    ],
)
def test_an_answer_that_is_no_logits_is_refused_by_name(answer, error, says):
    for ask in (predict_logits, predict_probabilities):
        with pytest.raises(error, match=says):
            ask(Answers(answer), torch.rand(2, 1, 2, 2))


def test_logits_inside_an_object_are_found():
    class Output(dict):
        """As HuggingFace's: a dictionary whose entries are attributes, too."""

        __getattr__ = dict.__getitem__

    images = torch.rand(2, 1, 2, 2)
    plain = predict_logits(Answers(lambda z: z), images)
    torch.testing.assert_close(predict_logits(Answers(lambda z: Output(loss=None, logits=z)), images), plain)
    torch.testing.assert_close(predict_logits(Answers(lambda z: GoogLeNetOutputs(z, z, z)), images), plain)


@pytest.mark.parametrize("ask", [predict_logits, predict_probabilities, predict_features])
def test_images_in_0_to_255_are_refused(ask):
    model = build("lenet", 3, (1, 8, 8))
    with pytest.raises(ValueError, match=r"divide by 255"):
        ask(model, torch.rand(2, 1, 8, 8) * 255)
    with pytest.raises(ValueError, match="1 channels, got 3"):
        ask(model, torch.rand(2, 3, 8, 8))
    with pytest.raises(TypeError, match="convert with torch.as_tensor"):
        ask(model, torch.rand(2, 1, 8, 8).numpy())


def test_images_come_in_any_form():
    model, images = build("lenet", 3, (1, 8, 8)), torch.rand(10, 1, 8, 8)
    labels, expected = torch.arange(10) % 3, predict_logits(model, images)
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    forms = {
        "pair": (images, labels),
        "list": [images, labels],
        "loader": loader,
        "data set": TensorDataset(images, labels),
        "images alone": TensorDataset(images),
        "dictionaries": [{"pixel_values": images[:6], "labels": labels[:6]}, {"pixel_values": images[6:]}],
        "batches": [images[:7], images[7:]],
        "images of one batch": next(iter(DataLoader(TensorDataset(images, labels), batch_size=10))),
    }
    for form in forms.values():
        torch.testing.assert_close(predict_logits(model, form), expected)
    torch.testing.assert_close(predict_logits(model.double(), images), expected)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64, torch.bool])
def test_labels_of_every_whole_kind_are_int64(kind):
    images, labels, _ = read_images((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]).to(kind)))
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 1, 1, 0] and len(images) == 4


def test_labels_that_are_none_are_refused():
    images = torch.rand(4, 1, 2, 2)
    with pytest.raises(TypeError, match="integers, got torch.float32"):
        read_images((images, torch.zeros(4)))
    with pytest.raises(ValueError, match=r"4 images, but labels of shape \(3,\)"):
        read_images((images, torch.zeros(3, dtype=int)))
    with pytest.raises(ValueError, match=r"argmax\(1\)"):
        read_images((images, torch.eye(4, dtype=int)))


def test_what_a_data_set_of_pictures_needs_is_said():
    class Pictures(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            return object(), i

    with pytest.raises(TypeError, match="PILToTensor"):
        read_images(Pictures())


def test_two_threads_get_the_answers_of_one(model):
    """A model in training mode: without the lock, the first thread to end switches dropout on for the other."""
    images, answers = torch.rand(64, 1, 8, 8), []
    model.train()
    expected = predict_logits(model, images)
    threads = [
        threading.Thread(target=lambda: answers.extend(predict_logits(model, images, 1) for _ in range(3)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6 and model.training
    for answer in answers:
        torch.testing.assert_close(answer, expected)


def test_mirrored_is_the_mean_of_two_looks():
    torch.manual_seed(0)
    model, images = build("lenet", 3, (1, 8, 8)), torch.rand(5, 1, 8, 8)
    mean = (predict_logits(model, images) + predict_logits(model, images.flip(3))) / 2
    torch.testing.assert_close(predict_logits(model, images, batch_size=2, mirrored=True), mean)
