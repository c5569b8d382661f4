"Folders as people have them, from the flag to the scores: known corpora, classes in folders, tables of other names."
import json
import numpy as np
import pytest
import soundfile as sf
from tamers import commands
from tamers.config import AnalyzeConfig
from tamers.core import TamersError
from tamers.data.load import load_corpus
from tamers.evaluation.analyze import analyze
from tamers.model.checkpoint import load_checkpoint

EMOTION = {'03': 180, '04': 260, '05': 340, '06': 420}


def tone(path, pitch, n=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, .3 * np.sin(2 * np.pi * pitch * np.arange(n) / 16000), 16000)


def ravdess(folder, actors=8):
    for actor in range(1, actors + 1):
        for code, pitch in EMOTION.items():
            for take in '12':
                name = f'03-01-{code}-01-0{take}-01-{actor:02}.wav'
                tone(folder/f'Actor_{actor:02}'/name, pitch + actor, 8000 + 100 * actor)
    return folder


def by_class(folder, splits=('',)):
    for split in splits:
        for i in range(12):
            for label, pitch in dict(bored=200, keen=400).items():
                tone(folder/split/label/f'{i}.wav', pitch + i, 8000 + 10 * i)
    return folder


def flags(root, out, *more):
    return ['--root', str(root), '--save-path', str(out), '--epochs', '1', '--device', 'cpu', '--num-workers', '0',
            *more]


def test_ravdess_needs_no_table(tmp_path, capsys):
    root = ravdess(tmp_path/'RAVDESS')
    commands.tamers_train(flags(root, tmp_path/'run'))
    said = capsys.readouterr().out
    assert 'RAVDESS' in said and 'dealt out by speaker with seed 0' in said
    ckpt = load_checkpoint(tmp_path/'run'/'best.pt')
    assert ckpt.classes == ['angry', 'fearful', 'happy', 'sad']
    corpus = load_corpus(root)
    speakers = [{u.speaker for u in corpus.split(s)} for s in ('train', 'dev', 'test')]
    assert all(speakers) and sum(map(len, speakers)) == 8 == len(set.union(*speakers))
    m = analyze(AnalyzeConfig(checkpoint=str(tmp_path/'run'), device='cpu', num_workers=0, figures=False))
    assert m['n'] == len(corpus.split('test'))


def test_the_deal_of_training_is_that_of_evaluation(tmp_path):
    root = ravdess(tmp_path/'RAVDESS')
    deal = '--split-by', 'random', '--split-seed', '3', '--modality', 'audio'
    commands.tamers_train(flags(root, tmp_path/'run', *deal))
    analyze(AnalyzeConfig(checkpoint=str(tmp_path/'run'), device='cpu', num_workers=0, figures=False))
    ids = {line.split(',')[0] for line in (tmp_path/'run'/'test'/'predictions.csv').read_text().splitlines()[1:]}
    other, same = (load_corpus(root, split_by='random', split_seed=seed, split='test') for seed in (0, 3))
    assert ids == {u.id for u in same.utterances} != {u.id for u in other.utterances}


@pytest.mark.parametrize('splits', [('',), ('train', 'validation', 'test')])
def test_a_folder_for_each_class(splits, tmp_path, capsys):
    root = by_class(tmp_path/'mine', splits)
    with pytest.raises(SystemExit): commands.tamers_train(flags(root, tmp_path/'run'))
    assert 'comes without transcripts; use --modality audio' in capsys.readouterr().err
    commands.tamers_train(flags(root, tmp_path/'run', '--modality', 'audio'))
    assert load_checkpoint(tmp_path/'run'/'best.pt').classes == ['bored', 'keen']
    assert ('dealt out by random' in capsys.readouterr().out) == (splits == ('',))


def test_audiofolder_and_a_table_of_other_names(tmp_path):
    for i in range(24): tone(tmp_path/'hf'/'data'/f'{i}.wav', 200 + 10 * i)
    rows = [dict(file_name=f'data/{i}.wav', transcription=f'line {i}', emotion=('joy', 'anger')[i % 2])
            for i in range(24)]
    (tmp_path/'hf'/'metadata.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    corpus = load_corpus(tmp_path/'hf')
    assert len(corpus.utterances) == 24 and corpus.utterances[0].text.startswith('line')
    assert {len(corpus.split(s)) > 0 for s in ('train', 'dev', 'test')} == {True}
    (tmp_path/'hf'/'metadata.jsonl').rename(tmp_path/'hf'/'manifest.jsonl')
    assert [u.id for u in load_corpus(tmp_path/'hf').utterances] == [u.id for u in corpus.utterances]


def test_a_manifest_without_splits(tmp_path):
    lines = ['text,label,speaker', *(f'line {i},{("joy", "anger")[i % 2]},s{i % 6}' for i in range(48))]
    (tmp_path/'manifest.csv').write_text('\n'.join(lines))
    corpus = load_corpus(tmp_path, clips=False)
    assert corpus.notes[0] == 'rows without a split, dealt out by speaker with seed 0'
    (tmp_path/'some.csv').write_text('text,label,split\nHi,joy,train\nHo,joy,\n')
    with pytest.raises(TamersError, match='some.csv: 1 of 2 rows have no split .line3.* --split-by'):
        load_corpus(tmp_path/'some.csv', clips=False)


def test_what_leads_outside_or_is_unknown(tmp_path):
    root = by_class(tmp_path/'mine')
    (root/'metadata.csv').write_text('file_name,label\n../../etc/x.wav,keen\nbored/1.wav,bored\n')
    with pytest.raises(TamersError, match='two|both|outside'): load_corpus(root, texts=False)
    with pytest.raises(TamersError, match='ravdes.*ravdess'): load_corpus(ravdess(tmp_path/'r'), corpus='ravdes')
    assert load_corpus(tmp_path/'r', corpus='ravdess').classes == ('angry', 'fearful', 'happy', 'sad')
    lines = ['text,label,speaker', *(f'line {i},{("joy", "anger")[i % 2]},one' for i in range(8))]
    (tmp_path/'one.csv').write_text('\n'.join(lines))
    with pytest.raises(TamersError, match='one.*--split-by random'):
        load_corpus(tmp_path/'one.csv', clips=False, split_by='speaker')
