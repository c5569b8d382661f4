"Two processes of one run are told every setting, and end as one process with the joined batch does."
from dataclasses import asdict, fields, replace
from pathlib import Path
import pytest
import torch
from tamers.config import to_flags, TrainConfig
from tamers.core import EMOTIONS
from tamers.model.checkpoint import load_checkpoint
from tamers.runs import launch_processes
from tamers.training.run import train
from tamers.training.watch import read_log
from tests.harness.faults import make_inputs

ELSEWHERE = {'seeds', 'load_checkpoint', 'recipe',           # ways to start a run, not settings of one
             'audio_revision', 'text_revision',              # of the hub
             'transcribe', 'weak_labels', 'store',           # another kind of corpus, or of run
             'corpus', 'split_by', 'split_seed', 'split_file', # of folders without splits
             'text_layer',                                   # not with an adapted encoder
             'soft_labels',                                  # on, and the manifest has votes
             'folds', 'price', 'known',                      # many heads, each in one process
             'modality', 'amp'}                              # both, and bfloat16, are what there is to see
EVERY = dict(classes=','.join(reversed(EMOTIONS)), label_map='ekman', skip_bad=True, allow_outside=True,
    num_workers=1, prefetch_factor=3, pin_memory=False, device='cpu', normalise='speaker',
    audio_pooling='mean', text_pooling='mean', audio_layer=1, context_turns=1, context_speakers=True,
    audio_buckets=True, encode_batch_size=4, text_adapt='lora', text_adapt_layers=1, text_adapt_epochs=1,
    text_adapt_lr=1e-4, text_adapt_batch_size=8, lora_rank=2, fusion='gated', fusion_shared_dim=32, fusion_dropout=0.,
    fusion_hidden_mult=.5, fusion_classifier_depth=2, modality_dropout=.0, contrastive='duplicates',
    contrastive_weight=.5, classification='focal', focal_gamma=1., adjust_tau=.5, label_smoothing=.1, mixup=.4,
    class_weight_gamma=.5, epochs=3, grad_accum_steps=2, lr=1e-3, weight_decay=.02, weight_averaging=.8,
    max_grad_norm=2., train_sampler='interleaved', interleave_period=2, seed=7, hp_patience=1, hp_tolerance=.01,
    lr_decay_factor=.9, min_lr=1e-5, wd_growth_factor=1.5, max_weight_decay=.2, early_stop_patience=5,
    early_stop_threshold=.01, best_metric='uar', eval_frequency='step', eval_every=2, eval_batches=2, eval_shuffle=True,
    log_eval_per_class=True, train_metrics_every=2, train_metrics_batches=1, overwrite=True)


def places(folder) -> dict:
    "A manifest of 44 utterances in dialogues of four, a tiny AST and a tiny GPT-2."
    make_inputs(folder)
    table = folder/'files'/'manifest.csv'
    head, *rows = table.read_text().splitlines()
    rows = [f'{row},{i // 4},{i % 4},{"Ann" if i % 2 else "Bob"},joy:{1 + i % 2} fear:1' for i, row in enumerate(rows)]
    table.write_text('\n'.join([f'{head},dialogue,turn,speaker,votes', *rows]))
    return dict(root=str(table.parent), audio_encoder=str(folder/'audio'), text_encoder=str(folder/'text'))


def test_every_flag_reaches_both_processes(tmp_path, capfd):
    given = places(tmp_path)
    def settings(name, **kw):
        return TrainConfig(**EVERY | given | kw, save_path=str(tmp_path/name), store_path=str(tmp_path/f'{name} store'),
                           metrics_log=str(tmp_path/f'{name}.jsonl'))
    two = settings('two', batch_size=4, use_multi_gpu=True)
    untried = {f.name for f in fields(two) if getattr(two, f.name) == f.default}
    assert untried <= ELSEWHERE | {'modality_dropout'}   # whose zeros are drawn by each process for itself
    assert launch_processes(to_flags(two), 2) == 0, capfd.readouterr().err
    b = load_checkpoint(tmp_path/'two'/'last.pt')
    assert {k: v for k, v in b.config.items() if v != asdict(two)[k]} == {}
    one = train(settings('one', batch_size=8))
    a = load_checkpoint(one['last'])
    for k in a.model: assert torch.allclose(a.model[k], b.model[k], atol=1e-3), k
    logs = [read_log(tmp_path/f'{name}.jsonl') for name in ('one', 'two')]
    assert [(r['event'], r['step']) for r in logs[0]] == [(r['event'], r['step']) for r in logs[1]]


@pytest.mark.parametrize('flag', ['modality_dropout', 'fusion_dropout'])
def test_what_is_drawn_by_each_process_reaches_both(flag, tmp_path, capfd):
    "Random zeros differ from those of one process; that they are drawn shows in the weights."
    cfg = TrainConfig(**places(tmp_path), device='cpu', num_workers=0, epochs=1, batch_size=4, fusion_shared_dim=8,
                      fusion_dropout=0., store_path=str(tmp_path/'store'), save_path=str(tmp_path/'plain'))
    assert launch_processes(to_flags(cfg), 2) == 0, capfd.readouterr().err
    other = replace(cfg, save_path=str(tmp_path/'other'), **{flag: .5})
    assert launch_processes(to_flags(other), 2) == 0, capfd.readouterr().err
    a, b = (load_checkpoint(Path(c.save_path)/'last.pt') for c in (cfg, other))
    assert b.config[flag] == .5
    assert not torch.equal(a.model['text_projection.weight'], b.model['text_projection.weight'])
