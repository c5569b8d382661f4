"The commands as a user meets them: what they print, what they write, and how they refuse bad input."
import csv, json, shlex, shutil, subprocess, sys
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss, precision_recall_fscore_support
import tamers
from tamers import commands
from tamers.core import EMOTIONS
from tamers.evaluation.analyze import analyze
from tamers.model.checkpoint import load_checkpoint
from tamers.runs import shipped_checkpoint
from tamers.training.run import train

COLUMNS = ['audio', 'text', 'label', 'split']


def write_manifest(folder, rows, columns=COLUMNS):
    with open(folder/'manifest.csv', 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(columns)
        w.writerows(rows)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "A manifest of 28 training, 14 dev and 14 test rows of tones, and a run trained on it."
    folder, rng = tmp_path_factory.mktemp('corpus'), np.random.default_rng(0)
    rows = []
    for split, n in (('train', 28), ('dev', 14), ('test', 14)):
        for i in range(n):
            name, label = f'{split}{i}.wav', EMOTIONS[i % 7]
            t = np.arange(8000 + 400*i) / 16000
            sf.write(folder/name, 0.3*np.sin(2*np.pi*(100 + 80*(i % 7))*t) + 0.01*rng.standard_normal(len(t)), 16000)
            rows.append([name, f'the {label} line number {i}', label, split])
    write_manifest(folder, rows)
    return folder


def flags(corpus, run=None):
    "The flags every run here shares."
    here = ['--root', str(corpus), '--store-path', str(corpus/'store'), '--device', 'cpu', '--num-workers', '0']
    encoders = ['--audio-encoder', 'mini', '--text-encoder', 'mini']
    return here + encoders + ['--epochs', '2', '--batch-size', '14'] + (['--save-path', str(run)] if run else [])


@pytest.fixture(scope='module')
def run(corpus):
    commands.tamers_train(flags(corpus, corpus/'run'))
    return corpus/'run'


def tree(folder): return {p.relative_to(folder): p.read_bytes() for p in Path(folder).rglob('*') if p.is_file()}


def refused(capsys, main, argv, *words):
    "Run a command that must fail: one line on standard error with these words, and exit code 2."
    with pytest.raises(SystemExit) as e: main([str(a) for a in argv])
    err = capsys.readouterr().err
    assert e.value.code == 2, err
    assert 'Traceback' not in err
    for w in words: assert str(w) in err, err
    return err


def test_train_prints_dev_metrics_and_the_next_command(corpus, capsys):
    commands.tamers_train(flags(corpus, corpus/'printed'))
    out = capsys.readouterr().out
    following = f"tamers-analyze --checkpoint {corpus/'printed'/'best.pt'}"
    for words in ('rows', 'dev loss', 'weighted F1', 'UAR', 'Best on dev', following): assert words in out


def test_checkpoint_holds_what_it_takes(run):
    data = torch.load(run/'best.pt', weights_only=True)
    assert data['classes'] == list(EMOTIONS) and data['config']['batch_size'] == 14
    for kind in ('audio', 'text'):
        e = data['encoders'][kind]
        assert e['name'] == 'mini' and e['spec']['identity'].startswith('sha256:') and e['spec']['pooling']
    assert {'accuracy', 'weighted_f1', 'uar', 'loss'} <= set(data['metrics'])


def test_analyze_writes_scikit_learns_numbers(corpus, run, capsys):
    commands.tamers_analyze(['--checkpoint', str(run), '--device', 'cpu', '--out', str(corpus/'out')])
    m, out = json.loads((corpus/'out'/'metrics.json').read_text()), capsys.readouterr().out
    rows = list(csv.DictReader(open(corpus/'out'/'predictions.csv', encoding='utf-8', newline='')))
    y, p = [r['label'] for r in rows], [r['prediction'] for r in rows]
    probs = np.array([[float(r[e]) for e in EMOTIONS] for r in rows])
    probs /= probs.sum(1, keepdims=True)
    assert m['n'] == len(rows) == 14 and m['split'] == 'test'
    assert m['accuracy'] == pytest.approx(accuracy_score(y, p))
    assert m['weighted_f1'] == pytest.approx(f1_score(y, p, average='weighted', zero_division=0))
    assert m['macro_f1'] == pytest.approx(f1_score(y, p, average='macro', zero_division=0))
    assert m['uar'] == pytest.approx(balanced_accuracy_score(y, p))
    assert m['calibration']['nll'] == pytest.approx(log_loss(y, probs, labels=list(EMOTIONS)), abs=1e-4)
    want = precision_recall_fscore_support(y, p, labels=list(EMOTIONS), zero_division=0)
    for e, row in zip(EMOTIONS, zip(*want)):
        assert [m['per_class'][e][k] for k in ('precision', 'recall', 'f1', 'support')] == pytest.approx(row)
    assert m['confusion']['classes'] == list(EMOTIONS) and np.sum(m['confusion']['counts']) == 14
    for k in (1, 5, 10): assert set(m[f'recall_at_{k}']) >= {'audio_to_text', 'text_to_audio'}
    assert [EMOTIONS[i] for i in probs.argmax(1)] == p and probs.sum(1) == pytest.approx(1, abs=1e-4)
    for name in ('confusion', 'similarity', 'space'): assert (corpus/'out'/f'{name}.png').stat().st_size > 5000
    assert 'accuracy' in out and 'anger' in out


def test_analyze_finds_the_newest_run_and_a_bare_file(corpus, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'checkpoints'/'mine').mkdir(parents=True)
    shutil.copy(run/'best.pt', tmp_path/'checkpoints'/'mine'/'best.pt')
    commands.tamers_analyze(['--no-figures', '--device', 'cpu'])
    assert (tmp_path/'checkpoints'/'mine'/'test'/'metrics.json').exists()
    shutil.copy(run/'best.pt', tmp_path/'checkpoints'/'bare.pt')
    commands.tamers_analyze(['--no-figures', '--device', 'cpu', '--split', 'dev'])
    assert (tmp_path/'checkpoints'/'bare-dev'/'metrics.json').exists()


def test_the_shipped_checkpoint_is_used_when_there_is_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands.tamers_analyze(['--no-figures', '--device', 'cpu'])
    m = json.loads((tmp_path/'checkpoints'/'shipped-test'/'metrics.json').read_text())
    out = capsys.readouterr().out
    assert m['n'] == 420 and all('made speech' in x and 'foreign to it' in x for x in (m['note'], out))


@pytest.mark.parametrize('modality', ['audio', 'text'])
def test_one_modality(corpus, modality, capsys):
    commands.tamers_train(flags(corpus, corpus/modality) + ['--modality', modality])
    commands.tamers_analyze(['--checkpoint', str(corpus/modality), '--device', 'cpu'])
    m = json.loads((corpus/modality/'test'/'metrics.json').read_text())
    assert m['n'] == 14 and 'recall_at_1' not in m
    assert (corpus/modality/'test'/'confusion.png').exists() and not (corpus/modality/'test'/'space.png').exists()


def test_functions_of_the_package():
    assert tamers.train is train and tamers.analyze is analyze
    assert 'train' in dir(tamers)
    with pytest.raises(AttributeError): tamers.nothing


def test_help_of_the_installed_commands():
    for name, word in (('tamers-train', '--root'), ('tamers-analyze', '--checkpoint')):
        help = [Path(sys.executable).with_name(name), '--help']
        assert word in subprocess.run(help, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize('name', commands.EXAMPLES)
def test_examples_parse(name, monkeypatch, capsys):
    "Each line of the help that is an example is taken by the parser of its command."
    parse, parsed = commands.parse, []
    def parse_and_stop(*args, **kw):
        parsed.append(parse(*args, **kw))
        raise SystemExit(0)
    monkeypatch.setattr(commands, 'parse', parse_and_stop)
    lines = [line.split('   ')[0] for line in commands.EXAMPLES[name].splitlines() if line.startswith('  tamers-')]
    for line in lines:
        with pytest.raises(SystemExit) as e: getattr(commands, name.replace('-', '_'))(shlex.split(line)[1:])
        assert e.value.code == 0, line
    assert len(parsed) == len(lines)
    assert lines or name == 'tamers-app'


def test_an_unreadable_clip_of_a_manifest_stops_the_run_after_the_rest_was_encoded(corpus, tmp_path, capsys):
    shutil.copytree(corpus, tmp_path/'c', ignore=shutil.ignore_patterns('run', 'store', 'out'))
    good = (tmp_path/'c'/'train3.wav').read_bytes()
    (tmp_path/'c'/'train3.wav').write_bytes(good[:2000])
    argv = flags(tmp_path/'c', tmp_path/'run')
    refused(capsys, commands.tamers_train, argv, 'train3.wav', '--skip-bad')
    assert not (tmp_path/'run').exists()
    commands.tamers_train(argv + ['--skip-bad'])
    assert 'train3.wav' in capsys.readouterr().out
    assert sum(load_checkpoint(tmp_path/'run'/'best.pt').train_counts) == 27


def bad_rows(folder):
    dev = ['a.wav', 'hi', 'joy', 'dev']
    return {
        'unknown label': ([['a.wav', 'hi', 'happy', 'train']], ['happy', 'manifest.csv', 'joy']),
        'no dev': ([['a.wav', 'hi', 'joy', 'train']], ['dev']),
        'no clip': ([['none.wav', 'hi', 'joy', 'train'], dev], ['none.wav']),
        'not audio': ([['text.wav', 'hi', 'joy', 'train'], dev], ['text.wav']),
        'too short': ([['short.wav', 'hi', 'joy', 'train'], dev], ['short.wav', '0.0125 s', 'window']),
        'empty transcript': ([['a.wav', ' ', 'joy', 'train'], dev], ['empty transcript']),
        'unknown split': ([['a.wav', 'hi', 'joy', 'trian']], ['trian', 'train']),
    }


@pytest.mark.parametrize('case', bad_rows(None))
def test_bad_manifests_are_refused(case, tmp_path, capsys):
    sf.write(tmp_path/'a.wav', np.zeros(16000), 16000)
    sf.write(tmp_path/'short.wav', np.zeros(200), 16000)
    (tmp_path/'text.wav').write_text('this is not audio')
    rows, words = bad_rows(tmp_path)[case]
    write_manifest(tmp_path, rows)
    refused(capsys, commands.tamers_train, flags(tmp_path, tmp_path/'run'), *words)
    assert not (tmp_path/'run').exists()


def test_bad_roots_are_refused(tmp_path, capsys):
    refused(capsys, commands.tamers_train, flags(tmp_path/'none', tmp_path/'run'), tmp_path/'none', '--root')
    (tmp_path/'empty').mkdir()
    refused(capsys, commands.tamers_train, flags(tmp_path/'empty', tmp_path/'run'), tmp_path/'empty', 'empty')
    write_manifest(tmp_path, [['a.wav', 'hi', 'joy']], ['audio', 'text', 'feeling'])
    refused(capsys, commands.tamers_train, flags(tmp_path, tmp_path/'run'), 'manifest.csv', 'label', 'feeling')
    write_manifest(tmp_path, [['a.wav', 'hi', 'joy']], ['audio', 'text', 'emotion'])
    said = tmp_path, 'its rows are to be dealt out', 'cannot be split in three'
    refused(capsys, commands.tamers_train, flags(tmp_path, tmp_path/'run'), *said)


def test_an_encoder_out_of_reach_is_refused(corpus, tmp_path, capsys):
    argv = [a if a != 'mini' else 'nobody/nothing' for a in flags(corpus, tmp_path/'run')]
    refused(capsys, commands.tamers_train, argv, 'nobody/nothing', '--audio-encoder mini')


def test_bad_checkpoints_are_refused(corpus, run, tmp_path, capsys):
    good = torch.load(run/'best.pt', weights_only=True)
    def broken(name, **changes):
        torch.save({**good, **changes}, tmp_path/name)
        return tmp_path/name
    cases = [
        (broken('classes.pt', classes=['happy', 'sad']), ['names 2 classes', 'among 7']),
        (broken('layout.pt', format='other'), ['other']),
        (tmp_path/'none.pt', ['no such checkpoint']),
    ]
    other = json.loads(json.dumps(good['encoders']))
    other['text']['spec']['identity'] = 'sha256:of-another'
    cases.append((broken('encoders.pt', encoders=other), ['text encoder', 'identity', '--text-encoder']))
    (tmp_path/'torn.pt').write_bytes((run/'best.pt').read_bytes()[:5000])
    cases.append((tmp_path/'torn.pt', ['not a readable checkpoint']))
    weights = {k: v for k, v in good['model'].items() if k != 'logit_scale'}
    cases.append((broken('part.pt', model=weights), ['model.logit_scale']))
    cases.append((broken('config.pt', config={}), ['config.root', 'config.amp']))
    torch.save({'weights': torch.zeros(3)}, tmp_path/'bare.pt')
    cases.append((tmp_path/'bare.pt', ['missing', 'model_args', 'weights']))
    before = tree(run)
    for path, words in cases:
        refused(capsys, commands.tamers_analyze, ['--checkpoint', path, '--device', 'cpu'], path.name, *words)
        argv = ['--load-checkpoint', path, '--save-path', tmp_path/'new']
        refused(capsys, commands.tamers_train, argv, path.name, *words)
        assert not (tmp_path/'new').exists()
    assert tree(run) == before, 'nothing was overwritten'


def test_a_checkpoint_of_another_modality_or_pooling_is_refused(run, capsys):
    resume = ['--load-checkpoint', run/'last.pt']
    refused(capsys, commands.tamers_train, [*resume, '--modality', 'audio'], '--modality')
    refused(capsys, commands.tamers_train, [*resume, '--audio-pooling', 'mean'], 'pooling')
    refused(capsys, commands.tamers_train, [*resume, '--fusion-shared-dim', '17'], 'shared_dim: 256 then, 17 now')


def test_a_split_that_is_not_there(corpus, run, tmp_path, capsys):
    shutil.copytree(corpus, tmp_path/'c', ignore=shutil.ignore_patterns('run', 'store', 'out'))
    rows = [r for r in csv.reader(open(tmp_path/'c'/'manifest.csv', newline=''))][1:]
    write_manifest(tmp_path/'c', [r for r in rows if r[3] != 'test'])
    argv = ['--checkpoint', run, '--root', tmp_path/'c', '--device', 'cpu']
    refused(capsys, commands.tamers_analyze, argv, 'no usable row in test', 'name another split')


def test_a_test_folder_alone_can_be_evaluated(corpus, run, tmp_path, capsys):
    shutil.copytree(corpus, tmp_path/'mine', ignore=shutil.ignore_patterns('run', 'store', 'out', 'train*', 'dev*'))
    rows = [r for r in csv.reader(open(tmp_path/'mine'/'manifest.csv', newline=''))][1:]
    write_manifest(tmp_path/'mine', [r for r in rows if r[3] == 'test'])
    where = ['--checkpoint', str(run), '--root', str(tmp_path/'mine')]
    commands.tamers_analyze([*where, '--device', 'cpu', '--no-figures'])
    m = json.loads((run/'test-mine'/'metrics.json').read_text())   # test/ holds the scores on the run's own corpus
    assert m['n'] == 14


def test_metrics_log_replaces_nothing(corpus, tmp_path, capsys):
    (tmp_path/'dear.txt').write_text('dear')
    argv = flags(corpus, tmp_path/'run') + ['--metrics-log', tmp_path/'dear.txt']
    refused(capsys, commands.tamers_train, argv, '--metrics-log', 'dear.txt', '--overwrite')
    assert (tmp_path/'dear.txt').read_text() == 'dear' and not (tmp_path/'run').exists()


def test_resume_takes_new_settings_and_refuses_what_makes_no_sense(corpus, run, tmp_path, capsys):
    shutil.copytree(run, tmp_path/'run', ignore=shutil.ignore_patterns('test*'))
    last, best = tmp_path/'run'/'last.pt', tmp_path/'run'/'best.pt'
    not_resumed = lambda path, *argv: refused(capsys, commands.tamers_train, ['--load-checkpoint', path, *argv])
    words = not_resumed(last, '--epochs', '2', '--save-path', tmp_path/'new')
    assert all(w in words for w in ('last.pt', 'has done 2 epochs', '--epochs'))
    commands.tamers_train(['--load-checkpoint', str(last)])
    assert 'has done 2 epochs' in capsys.readouterr().out
    words = not_resumed(best, '--epochs', '5')
    assert all(w in words for w in ('best.pt', 'later', 'last.pt'))
    assert 'no state to resume' in not_resumed(shipped_checkpoint(), '--save-path', tmp_path/'new')
    new = ['--epochs', '3', '--lr', '0.00001', '--weight-decay', '0.05']
    commands.tamers_train(['--load-checkpoint', str(last), *new])
    row = [json.loads(line) for line in (tmp_path/'run'/'metrics.jsonl').read_text().splitlines()][-1]
    assert (row['epoch'], row['lr'], row['weight_decay']) == (3, 1e-5, 0.05)


def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(corpus, tmp_path):
    "SIGTERM in the middle of an epoch; the resumed run ends with the weights of the undisturbed one."
    import signal
    argv = flags(corpus) + ['--batch-size', '4', '--epochs', '60', '--early-stop-patience', '0']
    commands.tamers_train(argv + ['--save-path', str(tmp_path/'whole')])
    command = [Path(sys.executable).with_name('tamers-train'), *argv, '--save-path', tmp_path/'cut']
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    next(line for line in p.stdout if line.startswith('epoch   2'))
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate()
    assert p.returncode == 130, err
    assert 'go on with: tamers-train --load-checkpoint' in out
    assert load_checkpoint(tmp_path/'cut'/'last.pt').trainer['step'] < 420
    commands.tamers_train(['--load-checkpoint', str(tmp_path/'cut'/'last.pt')])
    a, b = (load_checkpoint(tmp_path/n/'last.pt').model for n in ('whole', 'cut'))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_unwritable_places_are_told_in_one_line(corpus, tmp_path, capsys):
    (tmp_path/'file').write_text('')
    refused(capsys, commands.tamers_train, flags(corpus, tmp_path/'file'), 'file')
    argv = flags(corpus, tmp_path/'run')
    argv[argv.index('--store-path') + 1] = str(tmp_path/'file')
    refused(capsys, commands.tamers_train, argv, 'file')


def test_a_damaged_index_is_made_anew(tmp_path, capsys):
    from tamers.data.files import FileIndex
    (tmp_path/'files.sqlite').write_bytes(b'rubbish' * 1000)
    sf.write(tmp_path/'a.wav', np.zeros(8000), 16000)
    index = FileIndex(tmp_path/'files.sqlite', lambda p: 0.5)
    assert index(tmp_path/'a.wav').seconds == 0.5 and 'set aside' in capsys.readouterr().out
    index.save()
