"Several seeds: what was interrupted is not evaluated; `tamers-train --seeds` says what the others are worth on dev."
import json
from dataclasses import replace
import pytest
from tamers import commands
from tamers.config import AnalyzeConfig, TrainConfig, to_flags
from tamers.core import TamersError
from tamers.evaluation.analyze import analyze_seeds
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.training.seeds import train_seeds


def test_the_command_trains_analyzes_dev_and_refuses_what_was_interrupted(tmp_path, capsys):
    cfg = TrainConfig(epochs=1, batch_size=256, device='cpu', num_workers=0, save_path=str(tmp_path/'runs'))
    commands.tamers_train([*to_flags(cfg), '--seeds', '7,8'])
    said = capsys.readouterr().out
    assert 'seed 8 (2 of 2) begins' in said and 'spread (sd)' in said and 'next:    tamers-analyze --checkpoint' in said
    mean = json.loads((tmp_path/'runs'/'dev'/'seeds.json').read_text())['mean']['accuracy']
    best = [load_checkpoint(tmp_path/'runs'/f'seed-{seed}'/'best.pt').metrics['accuracy'] for seed in (7, 8)]
    assert mean == pytest.approx(sum(best) / 2)

    for name in ('best.pt', 'last.pt'):   # as if seed 8 had been stopped after the first of two epochs
        ckpt = load_checkpoint(tmp_path/'runs'/'seed-8'/name)
        save_checkpoint(replace(ckpt, config=dict(ckpt.config, epochs=2)), tmp_path/'runs'/'seed-8'/name)
    with pytest.raises(TamersError, match='seed 8 was interrupted'):
        analyze_seeds(AnalyzeConfig(checkpoint=str(tmp_path/'runs'), device='cpu'))
    with pytest.raises(TamersError, match='seed-7.*trained with other settings'):   # one epoch then, two now
        train_seeds(replace(cfg, epochs=2), [7, 8], train=lambda cfg: pytest.fail('trained'))
