"Evidence at the edges: calibration against a grid, paired bootstraps, interrupted seeds, and commands that refuse."
import csv, json
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import torch
from scipy.stats import binomtest
from sklearn.metrics import f1_score, log_loss
from tamers import commands
from tamers.evaluation import analyze, compare, evaluate as evaluation
from tamers.training import run as training, seeds
from tamers.measure.calibration import (apply_temperature, calibration_scores, coverage_at, fit_temperature,
                                        risk_coverage)
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.runs import seed_runs
from tamers.config import AnalyzeConfig, TrainConfig
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Utterance
from tamers.training.step import evaluate
from tamers.measure.groups import group_scores, group_values, units, units_that_matter
from tamers.measure.scores import class_scores, scores_from_confusion
from tamers.measure.intervals import resample_runs, run_confusions


def draw(seed, n=300, sharp=1.):
    "Labels drawn from known probabilities, and those probabilities made sharper."
    rng = np.random.default_rng(seed)
    z = torch.tensor(rng.normal(0, 1.2, (n, 7)))
    labels = (z.softmax(-1).numpy().cumsum(1) > rng.random((n, 1))).argmax(1)
    return labels, (sharp * z).softmax(-1)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('sharp', [.3, 1., 4.])
def test_the_temperature_is_the_best_of_a_grid(seed, sharp):
    labels, probs = draw(seed, sharp=sharp)
    T = fit_temperature(labels, probs, spread=np.inf)
    nll = lambda t: log_loss(labels, apply_temperature(probs, t).numpy(), labels=range(7))
    assert nll(T) <= min(nll(t) for t in np.geomspace(.1, 10, 60)) + 1e-6
    assert T == pytest.approx(sharp, rel=.35) and fit_temperature(labels, probs) == pytest.approx(sharp, rel=.35)


def test_temperature_survives_what_float32_rounds_away():
    "Probabilities of 0 and 1, as float32 gives them, stay finite; the order within a row never changes."
    logits = torch.tensor([[200., 0., -200.], [0., 1e-6, 0.], [3., 3.0000002, -1.]])
    probs = logits.softmax(-1)
    for T in (.05, 1., 20.):
        p = apply_temperature(probs, T)
        assert torch.isfinite(p).all() and (p.sum(-1) - 1).abs().max() < 1e-12
        assert torch.equal(p.argmax(-1), probs.argmax(-1))
    assert np.isfinite(fit_temperature([1, 1, 0], probs)) and np.isfinite(calibration_scores([1, 1, 0], probs)['nll'])


def test_brier_is_the_sum_over_classes():
    labels, probs = draw(1)
    squares = (probs.numpy() - np.eye(7)[labels])**2
    assert calibration_scores(labels, probs)['brier'] == pytest.approx(squares.sum(1).mean())


@pytest.mark.parametrize('seed', range(5))
def test_coverage_with_ties_is_the_mean_over_orders(seed):
    "Break the ties by lot many times: the mean of accuracy at each coverage is what the function gives at once."
    rng = np.random.default_rng(seed)
    labels, sure = rng.integers(2, size=12), rng.choice([.6, .7, .8], 12)
    probs = np.stack([sure, 1 - sure], 1)
    right = labels == 0
    total = np.zeros(12)
    for _ in range(4000):
        order = np.lexsort((rng.random(12), -sure))
        total += right[order].cumsum() / np.arange(1, 13)
    r = risk_coverage(labels, probs)
    assert r['accuracy'] == pytest.approx(total / 4000, abs=.03)
    assert r['aurc'] == pytest.approx(1 - r['accuracy'].mean())
    for wanted in (.3, .6, .9):
        coverage, threshold = coverage_at(labels, probs, wanted)
        if coverage:
            assert right[sure >= threshold].mean() >= wanted and (sure >= threshold).mean() == pytest.approx(coverage)
            lower = [t for t in np.unique(sure) if t < threshold]
            assert all(right[sure >= t].mean() < wanted for t in lower), 'a lower threshold would do'


def test_class_scores_of_a_stack_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(5, size=200), rng.integers(6, size=(3, 200))
    f1 = class_scores(run_confusions(labels, predictions, n_classes=7))['f1']
    for run, p in zip(f1, predictions):
        assert run[:6] == pytest.approx(f1_score(labels, p, labels=range(6), average=None)) and np.isnan(run[6])


def test_pigeonhole_resamples_equal_those_made_row_by_row():
    "Mean and spread of the resampled scores, against drawing dialogues and runs one by one."
    rng = np.random.default_rng(3)
    labels, groups = rng.integers(7, size=120), np.repeat(np.arange(24), 5)
    runs = [np.where(rng.random(120) < p, labels, (labels + 1) % 7) for p in (.4, .5, .8)]
    fast = scores_from_confusion(resample_runs(labels, runs, groups, n=4000))['accuracy'].mean(1)
    slow = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(groups == g) for g in rng.integers(24, size=24)])
        slow.append(np.mean([(runs[i] == labels)[rows].mean() for i in rng.integers(3, size=3)]))
    assert fast.mean() == pytest.approx(np.mean(slow), abs=.005) and fast.std() == pytest.approx(np.std(slow), rel=.06)


def test_paired_differences_use_the_same_resamples():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(7, size=200), np.arange(200) // 4
    a = np.where(rng.random(200) < .5, labels, (labels + 1) % 7)
    better = np.where(a == labels, labels, np.where(rng.random(200) < .3, labels, a))
    d = compare.differences(labels, [a], [better], dict(dialogue=groups))
    assert d['scores']['accuracy']['intervals']['dialogue'][0] > 0 and d['rows']['only_a'] == 0
    assert d['mcnemar_p'] == pytest.approx(binomtest(0, int(d['rows']['only_b'])).pvalue)
    back = compare.differences(labels, [better], [a], dict(dialogue=groups))
    assert back['scores']['uar']['difference'] == pytest.approx(-d['scores']['uar']['difference'])
    there, again = (x['per_class']['joy']['f1']['intervals']['dialogue'] for x in (d, back))
    assert again == pytest.approx([-x for x in reversed(there)])


def test_mcnemar_of_large_counts_is_exact():
    labels, a, b = np.zeros(2300, int), np.repeat([0, 1], (1200, 1100)), np.repeat([1, 0], (1200, 1100))
    d = compare.differences(labels, [a], [b], dict(utterance=range(2300)), n=10)
    assert (d['rows']['only_a'], d['rows']['only_b']) == (1200, 1100)
    assert d['mcnemar_p'] == pytest.approx(binomtest(1200, 2300).pvalue, rel=1e-9)
    assert compare.differences(labels, [a], [a], dict(utterance=range(2300)), n=10)['mcnemar_p'] == 1


def rows(n, **kw):
    return [Utterance(f'u{i}', 'test', f'text {i}', 'joy', None, **{k: f(i) for k, f in kw.items()}) for i in range(n)]


def test_units_of_links_and_of_rows_without_a_dialogue(tmp_path):
    (tmp_path/'real.wav').write_bytes(b'')
    for i in range(3): (tmp_path/f'{i}.wav').symlink_to(tmp_path/'real.wav')
    us = [replace(u, audio=tmp_path/f'{i}.wav') for i, u in enumerate(rows(3))]
    assert len(set(units(us, 'clip'))) == 1
    assert 'clip' not in units_that_matter(us), 'one clip alone cannot be resampled'
    mixed = rows(4, dialogue=lambda i: 'u3' if i < 2 else None)
    assert len(set(units(mixed, 'dialogue'))) == 3, 'a row named like a dialogue is not of it'


def test_groups_with_unknown_values_and_one_group():
    us = rows(20, speaker=lambda i: None if i % 4 == 0 else 'ab'[i % 2], turn=lambda i: i)
    labels = np.full(20, EMOTIONS.index('joy'))
    found = group_scores(labels, labels, group_values(us), units(us, 'utterance'))
    assert found['speaker']['unknown'] == 5 and sum(g['n'] for g in found['speaker']['groups']) == 15
    assert 'clip length (s)' not in found
    assert all(g['accuracy'] == 1 and g['intervals']['accuracy'][0] < 1 for g in found['turn']['groups'])
    assert found['speaker']['p'] == 1
    json.dumps(found, allow_nan=False)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "A manifest of 28 training, 14 dev and 14 test rows, whose test clips are two files only."
    folder, rng = tmp_path_factory.mktemp('evidence'), np.random.default_rng(0)
    t = np.arange(8000) / 16000
    for i in range(7):
        wave = .3 * np.sin(2 * np.pi * (100 + 80 * i) * t) + .01 * rng.standard_normal(8000)
        sf.write(folder/f'{i}.wav', wave, 16000)
    with open(folder/'manifest.csv', 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(['audio', 'text', 'label', 'split', 'dialogue', 'turn', 'speaker'])
        for split, n in (('train', 28), ('dev', 14), ('test', 14)):
            for i in range(n):
                clip, label = f'{i % (2 if split == "test" else 7)}.wav', EMOTIONS[i % 7]
                w.writerow([clip, f'the {label} line {i % 9}', label, split, i // 4, i % 4, 'ann' if i % 2 else 'bob'])
    return folder


def config(corpus, name, **kw):
    usual = dict(root=str(corpus), store_path=str(corpus/'store'), device='cpu', num_workers=0, epochs=3, batch_size=14,
                 save_path=str(corpus/name), early_stop_patience=0)
    return TrainConfig(**usual | kw)


@pytest.fixture(scope='module')
def two_seeds(corpus):
    folder = seeds.train_seeds(config(corpus, 'two'), [5, 3], say=lambda _: None)
    store = str(corpus/'store')
    settings = AnalyzeConfig(checkpoint=str(folder), split='dev', store_path=store, device='cpu', num_workers=0)
    analyze.analyze_seeds(settings, say=lambda _: None)
    return folder


def refused(capsys, main, argv, *words):
    "Run a command that must fail: one line on standard error with these words, and exit code 2."
    with pytest.raises(SystemExit) as e: main([str(a) for a in argv])
    err = capsys.readouterr().err
    assert e.value.code == 2 and 'Traceback' not in err, err
    for w in words: assert str(w) in err, err


def test_seeds_write_one_table_and_the_results_of_each(two_seeds):
    s = json.loads((two_seeds/'dev'/'seeds.json').read_text())
    table = list(csv.DictReader(open(two_seeds/'dev'/'seeds.csv', newline='')))
    assert s['seeds'] == [3, 5] == [int(r['seed']) for r in table] and list(seed_runs(two_seeds)) == [3, 5]
    for r in table:
        m = json.loads((two_seeds/'dev'/f"seed-{r['seed']}"/'metrics.json').read_text())
        assert float(r['macro_f1']) == pytest.approx(m['macro_f1']) and m['seed'] == int(r['seed'])
    assert s['mean']['uar'] == pytest.approx(np.mean([float(r['uar']) for r in table]))
    assert s['intervals']['accuracy'][0] <= s['mean']['accuracy'] <= s['intervals']['accuracy'][1]


def test_the_same_seed_gives_the_same_run_alone(corpus, two_seeds):
    training.train(config(corpus, 'alone', seed=3))
    a, b = (load_checkpoint(p/'last.pt').model for p in (corpus/'alone', two_seeds/'seed-3'))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_an_interrupted_seed_goes_on_to_the_same_weights(corpus, two_seeds):
    "The second seed is stopped after an epoch; the command again ends it, and leaves the first alone."
    calls = []
    def stops(cfg):
        calls.append(cfg)
        training.train(cfg if cfg.seed == 3 else replace(cfg, epochs=1))
        if cfg.seed == 5:
            for name in ('best.pt', 'last.pt'):   # as a signal would leave it: one epoch of three
                c = load_checkpoint(Path(cfg.save_path)/name)
                save_checkpoint(replace(c, config=dict(c.config, epochs=3)), Path(cfg.save_path)/name)
            raise KeyboardInterrupt
    said, cfg = [], config(corpus, 'cut')
    with pytest.raises(KeyboardInterrupt): seeds.train_seeds(cfg, [3, 5], train=stops, say=said.append)
    assert any('same command again' in line for line in said) and not (corpus/'cut'/'dev').exists()
    before = (corpus/'cut'/'seed-3'/'last.pt').read_bytes()
    seeds.train_seeds(cfg, [3, 5], say=lambda _: None)
    assert (corpus/'cut'/'seed-3'/'last.pt').read_bytes() == before
    a, b = (load_checkpoint(p/'seed-5'/'last.pt').model for p in (corpus/'cut', two_seeds))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_seeds_that_only_kept_their_best_are_not_trained_again(corpus, two_seeds, tmp_path):
    (tmp_path/'seed-3').mkdir()
    (tmp_path/'seed-3'/'best.pt').write_bytes((two_seeds/'seed-3'/'best.pt').read_bytes())
    assert seeds.next_step(tmp_path/'seed-3', config(corpus, 'x', seed=3)) is None
    assert seeds.next_step(tmp_path/'seed-3', config(corpus, 'x', seed=3, overwrite=True)).overwrite
    with pytest.raises(TamersError, match='--lr'): seeds.next_step(tmp_path/'seed-3', config(corpus, 'x', lr=.1))


def test_analyze_looks_at_test_with_all_seeds_at_once(two_seeds, capsys):
    commands.tamers_analyze(['--checkpoint', str(two_seeds), '--device', 'cpu', '--no-figures'])
    s, out = json.loads((two_seeds/'test'/'seeds.json').read_text()), capsys.readouterr().out
    by = s['intervals_by']
    assert s['n'] == 14 and set(by) == {'dialogue', 'speaker', 'clip'} and by['clip']['units'] == 2
    assert 'spread (sd)' in out and 'by clip (2)' in out
    refused(capsys, commands.tamers_analyze, ['--checkpoint', two_seeds, '--report'], '--report', 'seed-3')


@pytest.fixture(scope='module')
def text_run(corpus):
    training.train(config(corpus, 'text', modality='text'))
    return corpus/'text'


def test_compare_writes_what_it_prints(corpus, text_run, two_seeds, capsys):
    commands.tamers_compare([str(text_run), str(two_seeds/'seed-3'), '--device', 'cpu', '--no-figures',
                             '--resample', 'clip,speaker,utterance', '--split', 'dev'])
    d, out = json.loads((text_run/'dev-against-seed-3'/'compare.json').read_text()), capsys.readouterr().out
    assert list(d['units']) == ['clip', 'speaker', 'utterance']
    assert f"{d['scores']['accuracy']['a']:.2%}" in out and 'McNemar' in out


def test_compare_takes_the_mean_over_seeds(corpus, text_run, two_seeds, capsys):
    commands.tamers_compare([str(two_seeds), str(text_run), '--device', 'cpu', '--no-figures', '--split', 'dev',
                             '--out', str(corpus/'c')])
    d, s = json.loads((corpus/'c'/'compare.json').read_text()), json.loads((two_seeds/'dev'/'seeds.json').read_text())
    assert d['mcnemar_p'] is None and d['runs'] == dict(a=['3', '5'], b=['']) and d['n'] == 14
    for k in s['mean']: assert d['scores'][k]['a'] == pytest.approx(s['mean'][k])
    assert 'clip' in d['units'], 'the text model knows of no clips, the other does'


def test_compare_refuses_what_cannot_be_compared(corpus, two_seeds, tmp_path, capsys):
    a, good = two_seeds/'seed-3'/'best.pt', torch.load(two_seeds/'seed-3'/'best.pt', weights_only=True)
    torch.save({**good, 'classes': ['happy', *EMOTIONS[1:]]}, tmp_path/'classes.pt')
    torch.save({**good, 'config': {**good['config'], 'root': 'elsewhere'}}, tmp_path/'root.pt')
    refused(capsys, commands.tamers_compare, [a, tmp_path/'classes.pt'], 'classes.pt', 'happy', 'anger')
    refused(capsys, commands.tamers_compare, [a, tmp_path/'root.pt'], 'A was trained on', 'elsewhere', '--root')
    refused(capsys, commands.tamers_compare, [a, tmp_path/'none.pt'], 'none.pt', 'no such checkpoint')
    refused(capsys, commands.tamers_compare, [a, a, '--device', 'cpu', '--resample', 'scene'], 'scene', 'dialogue')
    refused(capsys, commands.tamers_compare, [a, a, '--resamples', '3'], '--resamples', 'at least 100')


def test_a_row_that_one_model_cannot_use_is_left_out_and_counted(corpus, text_run, two_seeds, tmp_path):
    "The text model can answer a row whose clip is gone; the comparison is made on the others."
    lines = (corpus/'manifest.csv').read_text().splitlines()
    gone = next(i for i, line in enumerate(lines) if ',test,' in line)
    lines[gone] = 'gone.wav' + lines[gone][lines[gone].index(','):]
    for i in range(7): (tmp_path/f'{i}.wav').write_bytes((corpus/f'{i}.wav').read_bytes())
    (tmp_path/'manifest.csv').write_text('\n'.join(lines) + '\n')
    cfg = compare.CompareConfig(root=str(tmp_path), skip_bad=True, device='cpu', num_workers=0, figures=False,
                                out=str(tmp_path))
    d = compare.compare(str(text_run), str(two_seeds/'seed-3'), cfg, say=lambda _: None)
    assert d['n'] == 13 and d['left_out'] == dict(only_a=1, only_b=0)


def test_a_temperature_changes_probabilities_and_no_prediction(corpus, two_seeds, tmp_path):
    path = two_seeds/'seed-3'/'best.pt'
    cfg = AnalyzeConfig(split='dev', device='cpu', num_workers=0)
    ckpt = replace(load_checkpoint(path), temperature=1.)
    split = evaluation.load_split(ckpt, cfg, path, say=lambda _: None)
    raw = evaluate(ckpt.build(), split.features, split.labels, batch_size=14)
    warm = replace(ckpt, temperature=fit_temperature(raw.labels, raw.probs))
    save_checkpoint(warm, tmp_path/'warm.pt')
    warm = load_checkpoint(tmp_path/'warm.pt')
    plain, e = (evaluation.measure(c, split) for c in (ckpt, warm))
    assert warm.temperature == pytest.approx(fit_temperature(raw.labels, raw.probs)) and warm.temperature != 1
    assert torch.equal(plain.probs.argmax(-1), e.probs.argmax(-1))
    assert plain.metrics['confusion'] == e.metrics['confusion']
    assert plain.metrics['loss'] == e.metrics['loss'], 'losses stay those of training'
    c = e.metrics['calibration']
    before = {k: plain.metrics['calibration'][k] for k in c['before']}
    assert c['nll'] < c['before']['nll'] and c['before'] == pytest.approx(before, abs=1e-6)
    assert c['nll'] == pytest.approx(log_loss(e.labels, e.probs.numpy(), labels=range(7)))
