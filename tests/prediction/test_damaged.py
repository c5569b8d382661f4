"A head whose finite weights give no finite scores says so, and gives no answer."
from dataclasses import replace
import pytest
import tamers
from tamers.core import TamersError
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.training.run import demo_head


def test_no_answer_is_nan(tmp_path):
    ckpt = load_checkpoint(demo_head())
    weights = dict(ckpt.model, **{'audio_input.std': ckpt.model['audio_input.std'] * 0 + 1.5e-43})
    save_checkpoint(replace(ckpt, model=weights), tmp_path/'best.pt')
    with pytest.raises(TamersError, match='the scores are no numbers: .*best.pt is damaged'):
        tamers.load(tmp_path/'best.pt', device='cpu')
