"What was understood of a folder is said in the summary: its layout, its source, and which column stood for which."
import csv
import pytest
from tamers.core import TamersError
from tamers.data.layouts import CORPORA
from tamers.data.load import load_corpus

NAMES = dict(
    ravdess=[f'Actor_{a:02}/03-01-0{e}-01-01-01-{a:02}' for a in range(1, 7) for e in (3, 5)],
    tess=[f'{who}_{word}_{how}' for who in ('OAF', 'YAF') for word in ('back', 'bar', 'base')
          for how in ('happy', 'ps')],
    savee=[f'{who}/{how}{n:02}' for who in ('DC', 'JE', 'JK', 'KL') for how in ('a', 'sa') for n in (1, 2)],
    emodb=[f'{who:02}a01{how}a' for who in (3, 8, 9, 10, 11) for how in 'WF'],
    emovo=[f'{how}-{who}-b1' for who in ('f1', 'f2', 'm1', 'm2') for how in ('gio', 'rab')],
    nemo=[f'{who}_{how}_{n}' for who in ('AB0', 'CD1', 'EF2', 'GH3') for how in ('anger', 'fear') for n in (1, 2)])
NAMES['crema-d'] = [f'{who}_IEO_{how}_XX' for who in range(1001, 1007) for how in ('ANG', 'SAD')]


def touch(folder, names, ending='.wav'):
    for name in names:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/f'{name}{ending}').touch()
    return folder


def table(path, *rows):
    with open(path, 'w', newline='', encoding='utf-8') as f: csv.writer(f).writerows(rows)


def load(root, **how): return load_corpus(root, probe=lambda path: 1., texts=False, **how)


@pytest.mark.parametrize('name', NAMES)
def test_a_known_corpus_is_named_with_its_source(tmp_path, name):
    said = load(touch(tmp_path/'here', NAMES[name])).summary()
    assert f'{CORPORA[name].title} ({CORPORA[name].credit}): rows: {len(NAMES[name])}; speakers: ' in said
    assert 'rows without a split, dealt out by' in said


COLUMNS = ['file', 'transcript', 'emotion', 'actor_id', 'set']


@pytest.mark.parametrize('name', ['manifest.csv', 'metadata.csv', 'mine.csv'])
def test_columns_of_other_names_are_said(tmp_path, name):
    touch(tmp_path, ['a', 'b', 'c'])
    rows = [['a.wav', 'Hi', 'joy', 'Ann', 'train'], ['b.wav', 'Ho', 'fear', 'Bo', 'val'],
            ['c.wav', 'He', 'joy', 'Cy', 'test']]
    table(tmp_path/name, COLUMNS, *rows)
    corpus = load(tmp_path/name if name == 'mine.csv' else tmp_path)
    assert [(u.split, u.text, u.speaker) for u in corpus.utterances][1] == ('dev', 'Ho', 'Bo')
    for words in ('file is the audio', 'transcript is the text', 'emotion is the label', 'set is the split'):
        assert words in corpus.summary()


def test_one_column_of_another_name_in_a_manifest(tmp_path):
    touch(tmp_path, ['a', 'b'])
    table(tmp_path/'manifest.csv', ['wav', 'sentence', 'label', 'split'], ['a.wav', 'Hi', 'joy', 'train'],
          ['b.wav', 'Ho', 'fear', 'dev'])
    corpus = load_corpus(tmp_path, probe=lambda path: 1.)
    assert corpus.notes[0] == 'manifest.csv: wav is the audio, sentence is the text' and corpus.strict
    table(tmp_path/'manifest.csv', ['wav', 'path', 'label', 'split'], ['a.wav', 'b.wav', 'joy', 'train'])
    with pytest.raises(TamersError, match='manifest.csv: the columns wav and path could both be the audio'):
        load(tmp_path)


def test_audiofolder_and_folders_of_classes_are_said(tmp_path):
    touch(tmp_path/'hf', [str(i) for i in range(8)])
    rows = [[f'{i}.wav', ('up', 'down')[i % 2]] for i in range(8)]
    table(tmp_path/'hf'/'metadata.csv', ['file_name', 'label'], *rows)
    assert "Hugging Face's AudioFolder: rows: 8" in load(tmp_path/'hf').summary()
    touch(tmp_path/'own', [f'{label}/{i}' for label in ('up', 'down') for i in range(6)])
    said = load(tmp_path/'own').summary()
    assert 'a folder for each class: rows: 12; speakers: unknown; classes: down 6, up 6' in said


def test_a_folder_that_two_readers_claim_names_both_and_the_cure(tmp_path):
    touch(tmp_path, [f'{how}/OAF_{word}_{how}' for how in ('happy', 'sad') for word in ('back', 'bar', 'base', 'bath')])
    with pytest.raises(TamersError, match='for each class and as TESS; pass --corpus folders or --corpus tess'):
        load(tmp_path)
    assert 'TESS (CC BY-NC-ND 4.0' in load(tmp_path, corpus='tess', split_by='random').summary()


def test_a_map_that_leads_nowhere_is_refused(tmp_path):
    from tamers.classes import Labels
    touch(tmp_path, NAMES['ravdess'])
    with pytest.raises(TamersError, match="unknown label 'nowhere'.*the names are angry, happy"):
        load(tmp_path, labels=Labels(('angry', 'happy'), dict(happy='nowhere')))
