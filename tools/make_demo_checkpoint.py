"""Train the checkpoint that ships in checkpoints/demo: `python tools/make_demo_checkpoint.py`.

The default run with a small shared space; the optimizer's state is left out, so it serves evaluation and not resuming.
"""
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from tamers import TrainConfig, load_checkpoint, train
from tamers.checkpoint import save_checkpoint
from tamers.core import atomic_path

HOME = Path(__file__).resolve().parents[1]/'checkpoints'/'demo'


def main():
    with tempfile.TemporaryDirectory() as tmp:
        run = train(TrainConfig(fusion_shared_dim=64, fusion_dropout=0.2, device='cpu', save_path=tmp, overwrite=True))
        ckpt = load_checkpoint(run['best'])
        save_checkpoint(replace(ckpt, trainer={}, config=dict(ckpt.config, save_path=None, overwrite=False)), HOME/'best.pt')
        with atomic_path(HOME/'metrics.jsonl') as log: shutil.copyfile(Path(tmp)/'metrics.jsonl', log)


if __name__ == '__main__': main()
