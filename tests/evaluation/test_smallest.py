"The smallest split, and an analysis that is stopped before its end."
import json
import pytest
from tamers.config import AnalyzeConfig, TrainConfig
from tamers.evaluation import analyze as analysis
from tamers.training.run import train
from tests.harness.corpora import demo_lines


@pytest.fixture(scope='module')
def head(tmp_path_factory):
    "A head of one epoch, and a manifest with one utterance in test."
    home = tmp_path_factory.mktemp('smallest')
    path = demo_lines(home/'manifest.csv')
    path.write_text(path.read_text() + 'I am so glad to see you!,joy,test\n')
    return train(TrainConfig(root=str(path), modality='text', epochs=1, save_path=str(home/'run'), device='cpu',
                             num_workers=0))['best']


def test_a_split_of_one_row_is_analysed(head):
    m = analysis.analyze(AnalyzeConfig(checkpoint=str(head), device='cpu', num_workers=0), say=lambda _: None)
    assert m['n'] == 1 and m['intervals']['accuracy'] == (0, 1)
    assert (m['out']/'confusion.png').exists()


def test_metrics_are_written_before_what_takes_longer(head, tmp_path, monkeypatch):
    def stopped(*_): raise KeyboardInterrupt
    monkeypatch.setattr(analysis, 'by_group', stopped)
    cfg = AnalyzeConfig(checkpoint=str(head), out=str(tmp_path/'out'), split='dev', device='cpu', num_workers=0)
    with pytest.raises(KeyboardInterrupt): analysis.analyze(cfg, say=lambda _: None)
    assert json.loads((tmp_path/'out'/'metrics.json').read_text())['n'] > 1
    assert (tmp_path/'out'/'predictions.csv').exists()
