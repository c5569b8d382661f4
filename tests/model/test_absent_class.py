"A class that the training split lacks: it is never answered, whatever weighs and smooths the others."
import pytest
import torch
from tamers.config import TrainConfig
from tamers.model.checkpoint import load_checkpoint
from tamers.model.losses import class_weights, classification_loss
from tamers.training.run import train
from tests.harness.corpora import demo_lines

WAYS = dict(weighted_and_smoothed=dict(class_weight_gamma=1., label_smoothing=0.1),
            adjusted_and_smoothed=dict(classification='adjusted', adjust_tau=1., label_smoothing=0.1),
            with_mixup=dict(class_weight_gamma=1., label_smoothing=0.1, mixup=0.4))


@pytest.fixture(scope='module')
def no_disgust(tmp_path_factory):
    "The lines of the demo corpus, those of disgust left out, as a manifest of text alone."
    folder = tmp_path_factory.mktemp('absent')
    demo_lines(folder/'manifest.csv', without=['disgust'])
    return folder


@pytest.mark.parametrize('way', WAYS)
def test_it_is_never_answered(no_disgust, tmp_path, capsys, way):
    out = train(TrainConfig(root=str(no_disgust), store_path=str(no_disgust/'store'), save_path=str(tmp_path/'run'),
                            modality='text', epochs=4, num_workers=0, device='cpu', **WAYS[way]))
    assert 'train has no rows of disgust: the model learns never to answer so' in capsys.readouterr().out
    assert out['metrics']['accuracy'] > 0.4
    ckpt = load_checkpoint(out['best'])
    assert ckpt.train_counts[1] == 0 and sum(ckpt.train_counts) > 900


def test_weights_have_mean_one_over_the_classes_that_are_there():
    w = class_weights(torch.tensor([100, 0, 50, 25]), 1.)
    assert w[1] == 0 and w[[0, 2, 3]].mean() == pytest.approx(1)
    assert (w[[0, 2, 3]] * torch.tensor([100, 50, 25])).std() < 1e-4


def test_smoothing_gives_the_absent_class_nothing():
    logits = torch.zeros(4, 3, requires_grad=True)
    present = torch.tensor([True, False, True])
    classification_loss(logits, torch.tensor([0, 2, 0, 2]), smoothing=0.3, present=present).backward()
    pulled = logits.grad[:, 1]
    assert torch.allclose(pulled, torch.full((4,), 1/3) / 4)  # the push of the softmax alone
