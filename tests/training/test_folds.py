"Cross-validation: nobody answers for rows that it learnt from, whatever the processes; it goes on, and is given back."
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
import soundfile as sf
import torch
from tamers import commands
from tamers.config import AnalyzeConfig, TrainConfig, to_flags
from tamers.core import EMOTIONS, TamersError
from tamers.data.corpus import Utterance
from tamers.data.partition import folds
from tamers.evaluation.analyze import analyze
from tamers.model.checkpoint import load_checkpoint
from tamers.runs import make_accelerator, shipped_checkpoint
from tamers.store.features import Split, StoredFeatures
from tamers.training.folds import cross_validate, fold_table, part_splits, price_lines, price_of_random, read_whole
from tamers.training.folds import train_folds

QUIET = dict(say=lambda *_: None)


def made(folder, speakers=6, each=14, labels=EMOTIONS[:4], **columns):
    "A manifest of lines alone, by several speakers; what is said tells the label now and then."
    rng, lines = np.random.default_rng(0), ['id,text,label,speaker']
    words = dict(zip(labels, ('terrible', 'yuck', 'scary', 'lovely', 'fine')))
    for s in range(speakers):
        for i in range(each):
            label = labels[(s + i) % len(labels)]
            said = words[label] if rng.random() < .7 else 'well'
            lines.append(f's{s}_{i},{said} number {rng.integers(99)},{label},speaker {s}')
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'manifest.csv').write_text('\n'.join(lines) + '\n')
    return folder


def settings(root, out, **more):
    return TrainConfig(**dict(dict(root=str(root), save_path=str(out), modality='text', epochs=2, batch_size=16,
        device='cpu', num_workers=0, folds='3'), **more))


def rows(path):
    with open(path, newline='', encoding='utf-8') as f: return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    here = tmp_path_factory.mktemp('folds')
    root = made(here/'corpus')
    said = []
    found = train_folds(settings(root, here/'run'), processes=1, say=lambda text='': said.append(str(text)))
    return root, here/'run', found, '\n'.join(said)


def test_everybody_is_tested_once_by_strangers(run):
    root, out, found, said = run
    answered = rows(out/'out-of-fold.csv')
    assert len(answered) == 84 == found['n'] and found['by'] == 'speaker' == found['interval_of']
    for name in '123':
        split = {row['id']: row['split'] for row in rows(out/f'fold-{name}'/'splits.csv')}
        heads = load_checkpoint(out/f'fold-{name}'/'best.pt')
        who = {s: {row['speaker'] for row in answered if split[row['id']] == s} for s in ('train', 'dev', 'test')}
        assert {row['id'] for row in answered if row['fold'] == name} == {i for i, s in split.items() if s == 'test'}
        assert not who['test'] & (who['train'] | who['dev']) and not who['train'] & who['dev']
        assert sum(heads.train_counts) == sum(s == 'train' for s in split.values())
        assert heads.metrics['n'] == sum(s == 'dev' for s in split.values()) and heads.temperature != 1


def test_what_is_written_agrees(run):
    root, out, found, said = run
    answered = rows(out/'out-of-fold.csv')
    assert list(answered[0]) == ['id', 'fold', 'speaker', 'audio', 'label', 'prediction', *found['classes'],
                                 'similarity', 'text']
    right = np.mean([row['label'] == row['prediction'] for row in answered])
    assert found['scores']['accuracy'] == pytest.approx(right)
    for row in answered:
        p = [float(row[c]) for c in found['classes']]
        assert sum(p) == pytest.approx(1, abs=1e-6) and found['classes'][int(np.argmax(p))] == row['prediction']
        assert row['similarity'] == '' == row['audio']
    kept = json.loads((out/'folds.json').read_text())
    assert kept['scores'] == found['scores'] and [f['name'] for f in kept['folds']] == ['1', '2', '3']
    assert {row['id']: row['fold'] for row in rows(out/'folds.csv')} == {row['id']: row['fold'] for row in answered}
    for text in 'fold 1', 'spread (sd)', 'by speaker (6)', 'The score of a random split minus': assert text in said


def test_the_price_is_that_of_the_same_rows(run):
    root, out, found, said = run
    flattered = rows(out/'random'/'out-of-fold.csv')
    assert [row['id'] for row in flattered] == [row['id'] for row in rows(out/'out-of-fold.csv')]
    right = np.mean([row['label'] == row['prediction'] for row in flattered])
    assert found['price']['accuracy']['difference'] == pytest.approx(right - found['scores']['accuracy'])
    assert len({(row['speaker'], row['fold']) for row in flattered}) > 6


def test_two_processes_find_the_same_and_the_file_is_given_back(run, tmp_path):
    root, out, found, _ = run
    cfg = settings(root, tmp_path/'again', folds=str(out/'folds.csv'), price=False)
    again = train_folds(cfg, processes=2, **QUIET)
    assert (tmp_path/'again'/'out-of-fold.csv').read_bytes() == (out/'out-of-fold.csv').read_bytes()
    assert again['by'] == 'speaker' and again['scores'] == found['scores'] and 'price' not in again
    assert not (tmp_path/'again'/'random').exists() and not list((tmp_path/'again').glob('.emb*'))
    for name in '123':
        a, b = (load_checkpoint(folder/f'fold-{name}'/'last.pt') for folder in (out, tmp_path/'again'))
        assert all(torch.equal(a.model[k], b.model[k]) for k in a.model)


def test_what_is_finished_is_not_trained_again(run, monkeypatch):
    root, out, found, _ = run
    monkeypatch.setattr('tamers.training.folds.fit_head', lambda *a, **k: pytest.fail('trained again'))
    assert train_folds(settings(root, out), processes=1, **QUIET) == found
    with pytest.raises(TamersError, match='--lr 0.0005 then, 0.001 now'):
        train_folds(settings(root, out, lr=1e-3), processes=1, **QUIET)
    with pytest.raises(TamersError, match='folds.csv: has other folds than these'):
        train_folds(settings(root, out, folds='loso'), processes=1, **QUIET)


def test_the_rest_is_trained_after_an_interruption(run, tmp_path):
    "After the first fold of three the command is stopped; what it says again is what it would have said at once."
    root, out, found, _ = run
    cfg = settings(root, tmp_path/'run', price=False, epochs=60, early_stop_patience=0)
    child = subprocess.Popen([sys.executable, '-c', 'from tamers.commands import tamers_train; tamers_train()',
                              *to_flags(cfg)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.time() + 120
    while not (tmp_path/'run'/'fold-1'/'last.pt').exists() and time.time() < deadline: time.sleep(.05)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[0]
    assert child.returncode == 130 and 'the same command' in said, said
    done = load_checkpoint(tmp_path/'run'/'fold-1'/'last.pt').metrics.get('epoch', 0)
    assert done < 60 and not (tmp_path/'run'/'folds.json').exists()
    train_folds(cfg, processes=1, **QUIET)
    train_folds(replace(cfg, save_path=str(tmp_path/'once')), processes=1, **QUIET)
    assert (tmp_path/'run'/'out-of-fold.csv').read_bytes() == (tmp_path/'once'/'out-of-fold.csv').read_bytes()


def test_rows_that_cannot_be_used_are_named_and_not_answered(tmp_path):
    root = made(tmp_path/'corpus')
    with open(root/'manifest.csv', 'a') as f: f.write('mute,,joy,speaker 0\n')
    with pytest.raises(TamersError, match='mute: empty transcript'):
        train_folds(settings(root, tmp_path/'a', price=False), processes=1, **QUIET)
    said = []
    cfg = settings(root, tmp_path/'b', price=False, skip_bad=True)
    found = train_folds(cfg, processes=1, say=lambda text='': said.append(str(text)))
    assert found['n'] == 84 and 'empty transcript (1): train mute' in '\n'.join(said)
    m = analyze(AnalyzeConfig(checkpoint=str(tmp_path/'b'/'fold-1'), device='cpu', num_workers=0, figures=False))
    assert m['n'] == found['folds'][0]['rows']


def test_an_error_of_a_fold_is_that_of_the_command(run, tmp_path):
    root, *_ = run
    with pytest.raises(TamersError, match='not finite'):
        train_folds(settings(root, tmp_path/'run', lr=1e30, max_grad_norm=0., price=False), processes=2, **QUIET)


def test_the_demo_corpus_whose_ids_recur(tmp_path):
    "Rows are named by split and id; `tamers-analyze` finds what a fold was tested on."
    found = train_folds(TrainConfig(folds='4', epochs=1, batch_size=256, device='cpu', num_workers=0, price=False,
                                    save_path=str(tmp_path/'run')), processes=1, **QUIET)
    answered = rows(tmp_path/'run'/'out-of-fold.csv')
    assert found['n'] == len({row['id'] for row in answered}) == 1680 and found['units'] == 20
    m = analyze(AnalyzeConfig(checkpoint=str(tmp_path/'run'/'fold-2'), device='cpu', num_workers=0, figures=False))
    assert m['n'] == sum(row['fold'] == '2' for row in answered) == found['folds'][1]['rows']
    assert m['accuracy'] == pytest.approx(found['folds'][1]['accuracy'])
    assert all(-1 <= float(row['similarity']) <= 1 and row['audio'].endswith('.wav') for row in answered)
    assert {row['id'].split('/')[0] for row in answered} == {'train', 'dev', 'test'}


def test_a_fold_is_made_of_its_rows_alone(run):
    root, *_ = run
    whole, *_ = read_whole(settings(root, 'unused'), make_accelerator('cpu', True), **QUIET)
    first = folds(whole.utterances, 3)[0]
    parts = part_splits(whole, first['splits'])
    assert sum(len(p.utterances) for p in parts) == len(whole.utterances)
    for name, part in zip(('train', 'dev', 'test'), parts):
        kept = [i for i, s in enumerate(first['splits']) if s == name]
        assert [u.id for u in part.utterances] == [whole.utterances[i].id for i in kept]
        assert torch.equal(part.features.text, whole.features.text[kept])
    assert [len(p.utterances) for p in part_splits(whole, ['out'] * 84)] == [0, 0, 0]


def test_the_price_and_its_interval():
    truth, of = np.arange(200) % 4, np.arange(200) // 20
    worse = np.where(np.arange(200) % 2, truth, 0)
    price = price_of_random(truth, worse, truth, of)
    assert price['uar']['difference'] == pytest.approx(.25) and price['uar']['interval'][0] > 0
    back = price_of_random(truth, truth, worse, of)
    assert back['uar']['difference'] == -price['uar']['difference']
    assert 'would a random split have flattered' in price_lines(price, 'speaker', 10)[-1]
    assert 'Nothing here says' in price_lines(back, 'speaker', 10)[-1]


@pytest.mark.parametrize('changes, problem', [
    (dict(folds='some'), '--folds some: must be how many'), (dict(folds='1'), 'a whole number from 2'),
    (dict(folds='9'), '6 speakers cannot fill 9 folds'), (dict(folds='3', split_by='dialogue'), 'no dialogue is known'),
    (dict(folds='loso', split_by='random'), 'loso leaves out speakers'), (dict(seeds='2'), 'choose one'),
    (dict(load_checkpoint='last.pt'), 'goes on by itself'), (dict(metrics_log='log'), '--metrics-log: not with'),
    (dict(split_by='column'), 'deals all rows anew'), (dict(split_file='splits.csv'), 'takes a file of folds'),
    (dict(store=False), '--no-store'), (dict(text_adapt='last'), '--text-adapt')])
def test_what_cannot_be_is_refused(changes, problem, run, tmp_path):
    root, *_ = run
    with pytest.raises(TamersError, match=problem): train_folds(settings(root, tmp_path/'out', **changes), **QUIET)
    assert not (tmp_path/'out').exists()


def test_a_corpus_that_cannot_be_dealt_is_refused(tmp_path):
    one = made(tmp_path/'one', speakers=1)
    with pytest.raises(TamersError, match='all 14 utterances are of speaker speaker 0.*--split-by random'):
        train_folds(settings(one, tmp_path/'a', split_by='speaker'), **QUIET)
    alone = made(tmp_path/'alone')
    with open(alone/'manifest.csv', 'a') as f: f.write('x1,yes,surprise,speaker 0\nx2,no,surprise,speaker 0\n')
    with pytest.raises(TamersError, match='train has no surprise. A class that is tested must be met'):
        train_folds(settings(alone, tmp_path/'b'), **QUIET)
    (tmp_path/'bad.csv').write_text('id,fold\ns0_0,1\ns0_1,2\n')
    with pytest.raises(TamersError, match='bad.csv: not the rows of this corpus: it lacks 82'):
        train_folds(settings(made(tmp_path/'corpus'), tmp_path/'c', folds=str(tmp_path/'bad.csv')), **QUIET)


def test_the_command(run, tmp_path, capsys):
    root, *_ = run
    cfg = settings(root, tmp_path/'run', folds='2', price=False, epochs=1)
    commands.tamers_train(to_flags(cfg))
    said = capsys.readouterr().out
    assert '2 folds by speaker of all 84 rows' in said and 'tamers-analyze --checkpoint' in said
    assert sorted(os.listdir(tmp_path/'run'/'fold-2')) == ['best.pt', 'known.safetensors', 'last.pt', 'metrics.jsonl',
                                                          'splits.csv']


def emobox(folder, root, folds):
    "Folds in EmoBox's layout, of the clips of a manifest; `folds` are lists of numbers of speakers."
    found = rows(root/'manifest.csv')
    for k, speakers in enumerate(folds, 1):
        (folder/f'fold_{k}').mkdir(parents=True)
        for part in 'train', 'test':
            lines = [json.dumps(dict(key=f"mine-{row['audio']}", dataset='mine', wav=f"downloads/mine/{row['audio']}",
                                     type='raw', task='category', emo=row['label'], channel=1))
                     for row in found if (int(row['speaker'][-1]) in speakers) == (part == 'test')]
            (folder/f'fold_{k}'/f'mine_{part}_fold_{k}.jsonl').write_text('\n'.join(lines) + '\n')
    return folder


@pytest.fixture(scope='module')
def spoken(tmp_path_factory):
    "Tones of five speakers, with two classes."
    root, lines = tmp_path_factory.mktemp('spoken'), ['audio,label,speaker']
    for s in range(5):
        for i in range(8):
            name, pitch = f'{s}-{i}.wav', (200, 400)[i % 2] + 11 * s + i
            sf.write(root/name, .3 * np.sin(2 * np.pi * pitch * np.arange(6000 + 400 * i) / 16000), 16000)
            lines.append(f"{name},{('bored', 'keen')[i % 2]},speaker {s}")
    (root/'manifest.csv').write_text('\n'.join(lines) + '\n')
    return root


def test_folds_of_emobox(spoken, tmp_path):
    published = emobox(tmp_path/'EmoBox'/'mine', spoken, ([0, 1], [2], [3, 4]))
    cfg = settings(spoken, tmp_path/'run', folds=str(published), modality='audio', price=False, epochs=1)
    found = train_folds(cfg, processes=1, **QUIET)
    assert found['by'] == 'speaker' and [f['rows'] for f in found['folds']] == [16, 8, 16]
    folds_of = {row['speaker'][-1]: row['fold'] for row in rows(tmp_path/'run'/'out-of-fold.csv')}
    assert folds_of == {'0': '1', '1': '1', '2': '2', '3': '3', '4': '3'}


def test_rows_without_a_fold_are_left_out_when_asked(spoken, tmp_path):
    published = emobox(tmp_path/'mine', spoken, ([0, 1], [2, 3]))
    cfg = settings(spoken, tmp_path/'run', folds=str(published), modality='audio', price=False, epochs=1)
    with pytest.raises(TamersError, match='it lacks 8 .4-0.wav.*--skip-bad goes by the rows that both have'):
        train_folds(cfg, processes=1, **QUIET)
    said = []
    found = train_folds(replace(cfg, skip_bad=True), processes=1, say=lambda text='': said.append(str(text)))
    assert found['n'] == 32 and 'no fold for 8 rows, left out: 4-0.wav' in '\n'.join(said)
    (tmp_path/'other.csv').write_text('file,fold\nx.wav,1\ny.wav,2\n')
    with pytest.raises(TamersError, match='has none of the 40 rows'):
        train_folds(replace(cfg, skip_bad=True, folds=str(tmp_path/'other.csv'), save_path=str(tmp_path/'no')), **QUIET)
    with pytest.raises(TamersError, match='no folds; name a table'):
        train_folds(replace(cfg, folds=str(tmp_path), save_path=str(tmp_path/'no')), **QUIET)


def heard(known, folder):
    "Accuracy out of folds by speaker where each voice lies far from the others, and both classes near each other."
    rng = np.random.default_rng(0)
    label, speaker = np.arange(240) % 2, np.arange(240) // 40
    place = rng.normal(size=(6, 8)) * 5
    audio = torch.tensor(place[speaker] + .7 * rng.normal(size=(240, 8)), dtype=torch.float32)
    audio[:, 0] += 3. * torch.tensor(label)
    us = [Utterance(f'u{i:03}', 'train', '', 'ab'[c], None, f's{s}') for i, (c, s) in enumerate(zip(label, speaker))]
    whole = Split(us, StoredFeatures(audio, None), torch.tensor(label), ('a', 'b'))
    spec = load_checkpoint(shipped_checkpoint()).encoders['audio']['spec']
    encoder = SimpleNamespace(spec=spec, name='made', revision=None, pooling=spec['pooling'])
    cfg = TrainConfig(save_path=str(folder), modality='audio', normalise='speaker', known=known, epochs=6,
                      batch_size=20, device='cpu', num_workers=0)
    scores, _ = cross_validate(whole, dict(audio=encoder), cfg, folds(us, 2), 'speaker', processes=1)
    return scores


def test_a_voice_is_known_by_other_clips_of_its_speaker(tmp_path):
    nobody, some = heard(0, tmp_path/'nobody'), heard(10, tmp_path/'some')
    assert some['scores']['accuracy'] > .85 > .7 > nobody['scores']['accuracy']
    assert 'at most 10 other clips' in fold_table(some) and 'voices' not in fold_table(dict(some, voices=''))
