"tamers-check, from the flag to the files: what is odd is named, the rest is still checked, and nothing is replaced."
import csv
import json
import numpy as np
import pytest
import soundfile as sf
from tamers import commands
from tamers.core import EMOTIONS
from tamers.evaluation.suspects import ANSWER_COLUMNS, FOLDS_FILE

LABELS = EMOTIONS[:2]


def corpus(folder, change=None, n=44):
    "A clean corpus of two classes, unless `change` spoils its rows, which are dicts."
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(n):
        split = 'train' if i < 30 else 'dev' if i < 37 else 'test'
        tone = .3 * np.sin(np.arange(16000 + 100 * i) * (.05 + .01 * (i % 2)))
        sf.write(folder/f'{i}.wav', tone, 16000)
        rows.append(dict(id=f'u{i}', audio=f'{i}.wav', text=f'line of number {i}', label=LABELS[i % 2], split=split,
                         speaker=f'{split} {i % 5}'))
    if change: change(rows)
    with open(folder/'manifest.csv', 'w', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)
    return folder


def folds(folder, root, wrong=(), near=''):
    "Answers of heads that are sure of the label of every row, but for those in `wrong`."
    folder.mkdir()
    rows = list(csv.DictReader(open(root/'manifest.csv', encoding='utf-8')))
    with open(folder/FOLDS_FILE, 'w', newline='', encoding='utf-8') as f:
        w = csv.DictWriter(f, [*ANSWER_COLUMNS[:6], *LABELS, *ANSWER_COLUMNS[6:]], extrasaction='ignore')
        w.writeheader()
        for row in rows:
            said = LABELS.index(row['label']) ^ (row['id'] in wrong)
            p = {label: .95 if i == said else .05 for i, label in enumerate(LABELS)}
            w.writerow(row | p | dict(fold='1', prediction=LABELS[said], audio=str(root/row['audio']), similarity=near))
    return folder


@pytest.fixture
def check(capsys):
    def run(*flags):
        "The exit code, what is printed, and what is said on standard error."
        code = 0
        try: commands.tamers_check([*map(str, flags), '--num-workers', '0'])
        except SystemExit as e: code = e.code
        return code, *capsys.readouterr()
    return run


def test_a_clean_corpus_ends_with_0_and_writes_nothing(tmp_path, check, monkeypatch):
    root = corpus(tmp_path/'mine')
    monkeypatch.chdir(tmp_path)
    before = {p.name: p.read_bytes() for p in root.iterdir()}
    code, out, err = check(root)
    assert code == 0 and 'Nothing is odd' in out and '44 utterances' in out
    assert f'tamers-train --root {root} --folds 5' in out and f'tamers-check --root {root} --after' in out
    assert before == {p.name: p.read_bytes() for p in root.iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ['mine']


def test_a_damaged_clip_is_named_and_the_rest_is_checked(tmp_path, check):
    root = corpus(tmp_path/'mine')
    (root/'3.wav').write_bytes((root/'3.wav').read_bytes()[:5000])
    (root/'4.wav').unlink()
    sf.write(root/'5.wav', np.zeros(16000), 16000)
    flac = np.random.default_rng(0).normal(0, .1, 32000)
    sf.write(root/'6.flac', flac, 16000)
    data = bytearray((root/'6.flac').read_bytes())
    data[len(data) // 2:] = bytes(len(data) - len(data) // 2)     # its header is whole, its sound is not
    (root/'6.wav').unlink()
    (root/'6.flac').write_bytes(data)
    table = (root/'manifest.csv').read_text().replace(',6.wav,', ',6.flac,')
    (root/'manifest.csv').write_text(table)
    code, out, _ = check(root, '--out', tmp_path/'found')
    assert code == 1
    rows = list(csv.DictReader(open(tmp_path/'found'/'odd.csv', encoding='utf-8')))
    assert {r['id'] for r in rows if r['what'] == 'cannot be used'} == {'u3', 'u4', 'u6'}
    assert [r['id'] for r in rows if r['what'] == 'silent'] == ['u5'] and 'silent: 1 (train u5 (-200 dB' in out
    assert (tmp_path/'found'/'check.html').exists() and 'found/odd.csv' in out


def test_nothing_is_replaced(tmp_path, check):
    root = corpus(tmp_path/'mine', lambda rows: rows[0].update(speaker='test 1'))
    assert check(root, '--out', tmp_path/'found')[0] == 1
    before = (tmp_path/'found'/'odd.csv').read_bytes()
    code, out, err = check(root, '--out', tmp_path/'found')
    assert code == 2 and 'holds an earlier check (odd.csv, check.html); name another folder' in err
    assert before == (tmp_path/'found'/'odd.csv').read_bytes()
    (tmp_path/'file').write_text('')
    assert check(root, '--out', tmp_path/'file')[0] == 2


def test_wrong_labels_after_training(tmp_path, check):
    root = corpus(tmp_path/'mine')
    run = folds(tmp_path/'run', root, wrong=('u7',))
    code, out, _ = check('--root', root, '--after', run, '--out', tmp_path/'found')
    assert code == 1 and 'Of 44 answers out of fold 98% are the label' in out
    assert f'train u7: probably {LABELS[0]}: {LABELS[1]} has a probability of 0.050; “line of number 7”' in out
    rows = list(csv.DictReader(open(tmp_path/'found'/'suspects.csv', encoding='utf-8')))
    assert [(r['rank'], r['id'], r['what'], r['label'], r['likely']) for r in rows] == [
        ('1', 'u7', 'label', LABELS[1], LABELS[0])]
    page = (tmp_path/'found'/'check.html').read_text(encoding='utf-8')
    assert page.count('<audio') == 1 and not (tmp_path/'found'/'odd.csv').exists()


@pytest.mark.parametrize('modality', ['both', 'audio'])
def test_answers_of_real_folds_are_read(modality, tmp_path, check):
    "What tamers-train --folds writes is what --after reads, also of a corpus whose ids recur."
    def recur(rows): [row.update(id=row['id'].replace('u30', 'u0')) for row in rows]
    root = corpus(tmp_path/'mine', recur)
    commands.tamers_train(['--root', str(root), '--folds', '2', '--epochs', '1', '--modality', modality, '--device',
                           'cpu', '--num-workers', '0', '--no-price', '--save-path', str(tmp_path/'run')])
    code, out, err = check(root, '--after', tmp_path/'run', '--out', tmp_path/'found')
    assert code in (0, 1) and err == '' and 'Of 44 answers out of fold' in out


def test_nothing_is_suspected_where_heads_agree(tmp_path, check):
    root = corpus(tmp_path/'mine')
    code, out, _ = check(root, '--after', folds(tmp_path/'run', root, near=.5))
    assert code == 0 and '100% are the label' in out


def test_json_is_one_object(tmp_path, check):
    root = corpus(tmp_path/'mine', lambda rows: rows[1].update(text='far too much to be said ' * 9))
    run = folds(tmp_path/'run', root, wrong=('u7',))
    code, out, _ = check(root, '--json', '--after', run, '--out', tmp_path/'found')
    found = json.loads(out)
    assert code == 1 and out.count('\n') == 1 and found['rows'] == 44
    assert [x['what'] for x in found['odd']] == ['transcript longer than the clip can hold']
    assert found['odd'][0]['rows'][0]['id'] == 'u1' and found['suspects'][0]['id'] == 'u7'
    assert len(found['files']) == 3 and found['agree'] == pytest.approx(43 / 44)


@pytest.mark.parametrize('flags, told', [
    (['gone'], 'gone: no such file or folder'),
    (['empty'], 'empty: an empty folder'),
    (['mine', '--root', 'other'], 'name one corpus'),
    (['mine', '--after', 'gone'], 'no such file; name the folder of a run of tamers-train --folds'),
    (['mine', '--after', 'run'], 'not about this corpus: 44 of its 44 rows'),
    (['mine', '--transcribe', 'x'], '--transcribe: tamers-check takes the rows as they are'),
    (['mine', '--classes', 'a,b'], "unknown label 'anger'"),
    (['shards.tar'], 'shards; tamers-check reads folders and tables'),
    (['mine', '--no-such'], 'no such flag'),
])
def test_bad_input_is_refused_by_name(flags, told, tmp_path, check, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus(tmp_path/'mine')
    other = corpus(tmp_path/'other', lambda rows: [row.update(id=f"x{row['id']}") for row in rows])
    folds(tmp_path/'run', other)
    (tmp_path/'empty').mkdir()
    (tmp_path/'shards.tar').write_bytes(b'')
    code, out, err = check(*flags)
    assert code == 2 and told in err and 'Traceback' not in err


def test_splits_from_a_file_are_those_that_are_judged(tmp_path, check):
    root = corpus(tmp_path/'mine')
    rows = list(csv.DictReader(open(root/'manifest.csv', encoding='utf-8')))
    swapped = dict(train='train', dev='test', test='dev')
    swapped = [dict(id=r['id'], split='test' if i == 0 else swapped[r['split']]) for i, r in enumerate(rows)]
    with open(tmp_path/'splits.csv', 'w', newline='') as f:
        w = csv.DictWriter(f, ['id', 'split'])
        w.writeheader()
        w.writerows(swapped)
    code, out, _ = check(root, '--split-file', tmp_path/'splits.csv', '--out', tmp_path/'found')
    assert code == 1 and 'speakers in two splits or more: 1' in out and 'train 0: train, test' in out


def test_text_alone(tmp_path, check):
    def spoil(rows): rows[0].update(text='', audio='')
    root = corpus(tmp_path/'mine', spoil)
    code, out, _ = check(root, '--modality', 'text', '--out', tmp_path/'found')
    assert code == 1 and 'no transcript: 1 (train u0)' in out and 'cannot be used' not in out
    assert 'no clip' in (tmp_path/'found'/'check.html').read_text(encoding='utf-8')


def test_a_strangers_text_stays_text(tmp_path, check):
    def spoil(rows): rows[0].update(text='<script>alert(1)</script> ' * 9, id='=cmd')
    root = corpus(tmp_path/'mine', spoil)
    assert check(root, '--out', tmp_path/'found')[0] == 1
    assert '<script' not in (tmp_path/'found'/'check.html').read_text(encoding='utf-8')
    assert "'=cmd" in (tmp_path/'found'/'odd.csv').read_text(encoding='utf-8')


def test_with_workers_it_finds_the_same(tmp_path, capsys):
    root = corpus(tmp_path/'mine', n=140)
    for i in range(0, 140, 20): sf.write(root/f'{i}.wav', np.zeros(16000 + i), 16000)
    told = []
    for n in '0', '2':
        with pytest.raises(SystemExit):
            commands.tamers_check([str(root), '--json', '--num-workers', n, '--out', str(tmp_path/n)])
        told.append(json.loads(capsys.readouterr().out)['odd'])
    assert told[0] == told[1] and 'silent' in {x['what'] for x in told[0]}
