"What `tamers-analyze` takes when nothing is named."
import shutil
from tamers.config import AnalyzeConfig
from tamers.evaluation import analyze as module
from tamers.training.run import demo_head


def test_the_newest_run_may_be_a_folder_of_seeds(tmp_path, monkeypatch):
    (tmp_path/'checkpoints'/'model.pt').mkdir(parents=True)  # a folder that is called like a file
    for seed in 1, 2:
        (folder := tmp_path/'checkpoints'/'five'/f'seed-{seed}').mkdir(parents=True)
        shutil.copy(demo_head(), folder)
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(module, 'analyze_seeds', lambda cfg, say: asked.append(cfg.checkpoint))
    module.analyze(AnalyzeConfig())
    assert asked == ['checkpoints/five']


def test_the_rows_of_the_head_that_ships_are_not_known(tmp_path):
    m = module.analyze(AnalyzeConfig(checkpoint=str(module.find_checkpoint(folder=tmp_path)), out=str(tmp_path/'out'),
                                     device='cpu', num_workers=0, figures=False), say=lambda _: None)
    assert 'transcript' not in m['groups'] and 'cast' not in m['groups'] and 'words' in m['groups']
