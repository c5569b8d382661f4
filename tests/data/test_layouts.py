"Folders of speech as people have them: which layout is recognised, and what rows it gives."
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tamers.core import TamersError
from tamers.data.audio import probe
from tamers.data.layouts import (CORPORA, DEPTH, find_layout, KnownCorpus, LAYOUTS, list_clips, read_layout,
                                 rename_columns)
from tamers.data.load import load_corpus
from tamers.data.tables import list_files

TONE = (0.1*np.sin(np.arange(1600)*0.2)).astype('float32')


def clip(path):
    "A tenth of a second of a tone, in the format that the ending asks for."
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == '.opus': soundfile.write(path, TONE, 16_000, format='OGG', subtype='OPUS')
    elif path.suffix.lower() in ('.wav', '.flac', '.ogg'): soundfile.write(path, TONE, 16_000)
    else: path.touch()


def make(root, *names, **tables):
    for name in names: clip(root/name)
    for name, rows in tables.items(): sheet(root/f'{name}.csv', rows)
    return root


def sheet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', encoding='utf-8', newline='') as f: csv.writer(f).writerows(rows)


def found(root, name=None): return find_layout(root, list_files(root, DEPTH), name)


def read(root, name=None):
    files = list_files(root, DEPTH)
    return read_layout(find_layout(root, files, name), root, files)


def by_clip(rows, *columns): return {row['audio']: tuple(row.get(c) for c in columns) for row in rows}


# ---- corpora by the names of their files ----

NAMED = dict(  # of each corpus: its files, and what they say: label, speaker, text
    ravdess={'Actor_12/03-01-05-01-02-01-12.wav': ('angry', '12', 'Dogs are sitting by the door.'),
             'Actor_01/03-01-02-02-01-02-01.wav': ('calm', '01', 'Kids are talking by the door.'),
             'Actor_01/03-01-08-01-01-01-01.flac': ('surprised', '01', 'Kids are talking by the door.')},
    tess={'OAF_angry/OAF_back_angry.wav': ('angry', 'OAF', 'Say the word back.'),
          'YAF_pleasant_surprised/YAF_mouse_ps.wav': ('surprise', 'YAF', 'Say the word mouse.'),
          'OAF_neutral/OA_bite_neutral.wav': ('neutral', 'OAF', 'Say the word bite.')},
    savee={'DC/a01.wav': ('anger', 'DC', ''), 'JE/sa15.wav': ('sadness', 'JE', ''), 'JK/n30.wav': ('neutral', 'JK', ''),
           'KL_su04.wav': ('surprise', 'KL', '')},
    emodb={'wav/03a01Fa.wav': ('happiness', '03', 'Der Lappen liegt auf dem Eisschrank.'),
           'wav/16b10Lb.wav': ('boredom', '16', 'Die wird auf dem Platz sein, wo wir sie immer hinlegen.'),
           'wav/08a04Wc.wav': ('anger', '08', 'Heute abend könnte ich es ihm sagen.')},
    emovo={'f1/dis-f1-b1.wav': ('disgust', 'f1', 'Gli operai si alzano presto.'),
           'm3/gio-m3-d1.wav': ('joy', 'm3', 'Sabato sera cosa farà?'),
           'm3/tri-m3-n5.wav': ('sadness', 'm3', 'Uno quarantatré dieci mille cinquantasette venti.')},
    nemo={'samples/EB0_neutral_13.wav': ('neutral', 'EB0', ''),
          'samples/WR0_surprised_64.ogg': ('surprised', 'WR0', '')})
NAMED['crema-d'] = {'AudioWAV/1001_DFA_ANG_XX.wav': ('anger', '1001', "Don't forget a jacket."),
                    'AudioWAV/1040_ITH_SAD_X.wav': ('sad', '1040', "I think I have a doctor's appointment."),
                    'AudioWAV/1091_IEO_HAP_HI.wav': ('happy', '1091', "It's eleven o'clock.")}


@pytest.mark.parametrize('name', NAMED)
def test_a_corpus_is_known_by_the_names_of_its_files(tmp_path, name):
    make(tmp_path, *NAMED[name])
    assert found(tmp_path) is CORPORA[name]
    rows, notes = read(tmp_path)
    assert by_clip(rows, 'label', 'speaker', 'text') == NAMED[name]
    assert len(notes) == 1
    assert notes[0].startswith(f'{CORPORA[name].title} ({CORPORA[name].credit}): rows: {len(rows)};')
    assert len({row['id'] for row in rows}) == len(rows) and not any('split' in row for row in rows)
    assert {probe(tmp_path/row['audio']) for row in rows} == {0.1}


def test_every_corpus_tells_its_source():
    for corpus in CORPORA.values(): assert corpus.credit[-4:].isdigit() and corpus.title


@pytest.mark.parametrize('name', NAMED)
def test_every_code_has_words(name):
    "Each sentence in the table is a whole one, and each class a word in lower case."
    words = CORPORA[name].words
    assert all(label == label.lower() and label.isalpha() for label in words.get('label', {}).values())
    texts = words.get('text', {})
    texts = texts.values() if isinstance(texts, dict) else [texts]
    assert all(text[-1] in '.?' for text in texts) and len(set(texts)) == len(texts)


def test_no_name_belongs_to_two_corpora():
    for name, clips in NAMED.items():
        for path in clips: assert [n for n, c in CORPORA.items() if c.match(path)] == [name]


def test_transcripts_of_nemo_are_read_from_its_table(tmp_path):
    make(tmp_path, *NAMED['nemo'])
    text = 'Ucho wykrywa dźwięki o różnej częstotliwości.'
    (tmp_path/'data.tsv').write_text('file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n'
                                     f'WR0_surprised_64.wav\tsurprised\t{text}\tucho\t        WR0\tmale\t23\n')
    rows = by_clip(read(tmp_path)[0], 'text')
    assert rows == {'samples/EB0_neutral_13.wav': ('',), 'samples/WR0_surprised_64.ogg': (text,)}


DIALOGUE = 'Ses01F_impro01'
SAID = [('F000', 6.2901, 'neu', 'Excuse me.'), ('M000', 7.5712, 'xxx', 'Do you have your forms?'),
        ('F001', 10.01, 'fru', 'Yeah.'), ('M001', 10.9266, 'exc', '')]


def iemocap(root):
    dialog = root/'Session1'/'dialog'
    for who, *_ in SAID: clip(root/'Session1'/'sentences'/'wav'/DIALOGUE/f'{DIALOGUE}_{who}.wav')
    for folder in ('EmoEvaluation', 'transcriptions'): (dialog/folder).mkdir(parents=True)
    lines = ['% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]', '']
    for who, start, code, _ in reversed(SAID):
        lines += [f'[{start:.4f} - {start + 1:.4f}]\t{DIALOGUE}_{who}\t{code}\t[2.5000, 2.5000, 2.5000]',
                  'C-E2:\tNeutral;\t()', '']
    (dialog/'EmoEvaluation'/f'{DIALOGUE}.txt').write_text('\r\n'.join(lines))
    (dialog/'EmoEvaluation'/f'._{DIALOGUE}.txt').write_bytes(b'\0\0')
    said = [f'{DIALOGUE}_{who} [{start:08.4f}-{start + 1:08.4f}]: {text}' for who, start, _, text in SAID if text]
    (dialog/'transcriptions'/f'{DIALOGUE}.txt').write_text('\n'.join(said + ['M: off the microphone']))
    return root


@pytest.mark.parametrize('above', ['', 'IEMOCAP_full_release'])
def test_iemocap_is_read_from_its_lists(tmp_path, above):
    iemocap(tmp_path/above)
    assert found(tmp_path) is CORPORA['iemocap']
    rows, notes = read(tmp_path)
    assert [(r['id'][-4:], r['label'], r['speaker'], r['turn'], r['text'], r['dialogue']) for r in rows] == [
        ('F000', 'neutral', 'Ses01F', '0', 'Excuse me.', DIALOGUE),
        ('F001', 'frustration', 'Ses01F', '2', 'Yeah.', DIALOGUE),
        ('M001', 'excited', 'Ses01M', '3', '', DIALOGUE)]
    assert notes[1].startswith('clips without a class, ignored: 1 (') and 'M000.wav' in notes[1]


def test_sentences_of_iemocap_without_their_lists_have_no_class(tmp_path):
    make(tmp_path, f'{DIALOGUE}_F000.wav')
    with pytest.raises(TamersError, match='no row as IEMOCAP; clips without a class, ignored: 1'): read(tmp_path)


def test_what_does_not_match_is_counted(tmp_path):
    make(tmp_path, *(f'03-01-01-01-01-01-{n:02}.wav' for n in range(1, 20)), 'Überraschung.wav',
         '._03-01-01-01-01-01-01.wav')
    rows, notes = read(tmp_path)
    assert len(rows) == 19 and notes[1:] == ['files of another name, ignored: 1 (Überraschung.wav)']


def test_a_tenth_of_other_files_is_the_most(tmp_path):
    make(tmp_path, *(f'03-01-01-01-01-01-{n:02}.wav' for n in range(1, 9)), 'a.wav')
    assert found(tmp_path) is None
    assert len(read(tmp_path, 'ravdess')[0]) == 8


def test_a_clip_that_is_there_twice_is_read_once(tmp_path):
    make(tmp_path, 'OAF_back_sad.wav', 'again/OAF_back_sad.wav', 'OAF_back_sad.mp4', 'OAF_base_sad.mp4')
    rows, notes = read(tmp_path)
    assert [row['audio'] for row in rows] == ['OAF_back_sad.wav', 'OAF_base_sad.mp4']
    assert notes[1:] == ['copies, ignored: 2 (again/OAF_back_sad.wav, OAF_back_sad.mp4)']


def test_folders_of_splits_are_kept(tmp_path):
    make(tmp_path, 'Train/OAF_back_sad.wav', 'validation/YAF_back_sad.wav')
    assert by_clip(read(tmp_path)[0], 'split') == {'Train/OAF_back_sad.wav': ('train',),
                                                   'validation/YAF_back_sad.wav': ('validation',)}


def test_a_corpus_can_be_added(tmp_path, monkeypatch):
    made = KnownCorpus(title='Made', pattern=r'(?P<speaker>s\d)_(?P<label>[xy])',
                       words=dict(label=dict(x='joy', y='fear')))
    monkeypatch.setitem(CORPORA, 'made', made)
    make(tmp_path, 's1_x.wav', 's2_y.opus')
    assert found(tmp_path) is made
    rows, notes = read(tmp_path)
    assert by_clip(rows, 'label', 'speaker') == {'s1_x.wav': ('joy', 's1'), 's2_y.opus': ('fear', 's2')}
    assert notes == ['Made: rows: 2; speakers: 2; classes: fear 1, joy 1']


# ---- a folder for each class ----

@pytest.mark.parametrize('above', ['', 'train/'])
def test_a_folder_for_each_class(tmp_path, above):
    make(tmp_path, f'{above}Freude/größe.wav', f'{above}joy/ж.flac', f'{above}anger/x.mp3', f'{above}fear/x.OPUS')
    rows, notes = read(tmp_path)
    assert sorted(row['label'] for row in rows) == ['anger', 'fear', 'freude', 'joy']
    assert {row.get('split') for row in rows} == {'train' if above else None}
    assert notes == ['a folder for each class: rows: 4; speakers: unknown; classes: anger 1, fear 1, freude 1, joy 1']


def test_a_transcript_beside_a_clip_is_read(tmp_path):
    make(tmp_path, 'joy/ä.wav', 'anger/b.wav')
    (tmp_path/'joy'/'ä.txt').write_text('Über alle\nBerge.\n', encoding='utf-8')
    assert by_clip(read(tmp_path)[0], 'text') == {'joy/ä.wav': ('Über alle Berge.',), 'anger/b.wav': ('',)}


def test_classes_of_any_name_count_if_nothing_else_does(tmp_path):
    make(tmp_path, 'giggle/a.wav', 'snort/b.wav')
    assert found(tmp_path) is LAYOUTS['folders']
    assert found(make(tmp_path/'other', 'Actor_01/03-01-01-01-01-01-01.wav', 'Actor_02/03-01-01-01-01-01-02.wav')) \
        is CORPORA['ravdess']


@pytest.mark.parametrize('names', [['a.wav', 'b.wav'], ['joy/a.wav', 'joy/b.wav'], ['train/a.wav', 'dev/b.wav'], [],
                                   ['s1/joy/a.wav', 's2/joy/b.wav'],
                                   ['train_splits/a.mp4', 'dev_splits_complete/b.mp4']])
def test_other_folders_have_no_layout(tmp_path, names):
    assert found(make(tmp_path, *names)) is None


def test_clips_in_and_outside_splits(tmp_path):
    make(tmp_path, 'train/joy/a.wav', 'joy/b.wav', 'anger/c.wav')
    for name in ('train/joy/a', 'joy/b', 'anger/c'): (tmp_path/f'{name}.txt').write_text('Said.')
    with pytest.raises(TamersError, match=r'2 of 3 rows have no split \(anger/c.wav, joy/b.wav\), the others have'):
        load_corpus(tmp_path, probe=lambda path: 1.)
    for name in ('joy/d', 'joy/e', 'anger/f', 'anger/g'): make(tmp_path, f'{name}.wav')
    corpus = load_corpus(tmp_path, probe=lambda path: 1., texts=False, clips=False, split_by='random')
    assert {u.split for u in corpus.utterances} == {'train', 'dev', 'test'} and len(corpus.utterances) == 7


# ---- tables ----

def test_columns_have_other_names():
    mapping, note = rename_columns(['File-Name', 'Speaker ID', 'EMOTION', 'Transcript', 'age'], 'my.csv')
    assert mapping == {'File-Name': 'audio', 'Speaker ID': 'speaker', 'EMOTION': 'label', 'Transcript': 'text'}
    assert note == 'File-Name is the audio, Transcript is the text, EMOTION is the label, Speaker ID is the speaker'
    assert rename_columns(['audio', 'path', 'label', 'class']) == (dict(audio='audio', label='label'), '')
    with pytest.raises(TamersError, match='my.csv: the columns emotion and class could both be the label; call'):
        rename_columns(['emotion', 'class'], 'my.csv')


def test_a_table_with_names_of_its_own(tmp_path):
    make(tmp_path, 'wavs/ą.wav', 'wavs/b.wav', 'wavs/c.wav',
         manifest=[['path', 'sentence', 'emotion', 'actor', 'subset'], ['wavs/ą.wav', 'Hm, so?', 'Joy', 'Zoë', 'train'],
                   ['wavs/b.wav', 'No.', 'fear', 'Jan', 'val']])
    rows, notes = read(tmp_path)
    assert rows[0] == dict(audio='wavs/ą.wav', text='Hm, so?', label='joy', speaker='Zoë', split='train')
    assert notes[0] == 'a table of clips: rows: 2; speakers: 2; classes: fear 1, joy 1'
    assert notes[1].startswith('manifest.csv: path is the audio') and 'wavs/c.wav' in notes[2]


def test_a_table_for_each_split(tmp_path):
    make(tmp_path, 'a.wav', 'b.wav', train=[['file', 'label'], ['a.wav', 'joy']],
         valid=[['file', 'label'], ['b.wav', 'joy']])
    assert by_clip(read(tmp_path)[0], 'split') == {'a.wav': ('train',), 'b.wav': ('valid',)}
    sheet(tmp_path/'manifest.csv', [['file', 'label'], ['a.wav', 'joy']])
    with pytest.raises(TamersError, match='manifest.csv and train.csv and valid.csv: more than one table'):
        read(tmp_path)


def jsonl(path, rows):
    path.write_text('\n'.join(json.dumps(dict(zip(rows[0], row))) for row in rows[1:]), encoding='utf-8')


def parquet(path, rows):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet as pq
    pq.write_table(pa.Table.from_pylist([dict(zip(rows[0], row)) for row in rows[1:]]), path)


@pytest.mark.parametrize('write, ending', [(sheet, 'csv'), (jsonl, 'jsonl'), (parquet, 'parquet')])
def test_audiofolder(tmp_path, write, ending):
    for split in ('train', 'validation'):
        clip(tmp_path/'data'/split/'é.wav')
        write(tmp_path/'data'/split/f'metadata.{ending}',
              [['file_name', 'transcription', 'label', 'age'], ['é.wav', 'Voilà.', 'joy', 5]])
    assert found(tmp_path) is LAYOUTS['audiofolder']
    rows, notes = read(tmp_path)
    assert rows == [dict(audio=f'data/{s}/é.wav', text='Voilà.', label='joy', split=s) for s in ('train', 'validation')]
    assert notes[0].startswith("Hugging Face's AudioFolder: rows: 2;")


def test_lines_of_json_need_not_have_the_same_keys(tmp_path):
    make(tmp_path, 'a.wav', 'b.wav', 'c.wav')
    rows = dict(file='a.wav', label='joy', actor='Zoë'), dict(file='b.wav', label='fear', sentence='Oh.')
    (tmp_path/'labels.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    assert by_clip(read(tmp_path)[0], 'speaker', 'text') == {'a.wav': ('Zoë', ''), 'b.wav': (None, 'Oh.')}
    (tmp_path/'labels.jsonl').write_text('\n'.join(map(json.dumps, (*rows, dict(file='c.wav')))))
    with pytest.raises(TamersError, match='labels.jsonl, line 3: lacks label'): read(tmp_path)


def test_one_metadata_for_folders_of_splits(tmp_path):
    make(tmp_path, 'train/a.wav', 'test/a.wav',
         metadata=[['file_name', 'label'], ['train/a.wav', 'joy'], ['test/a.wav', 'fear']])
    assert by_clip(read(tmp_path)[0], 'label', 'split') == {'train/a.wav': ('joy', 'train'),
                                                            'test/a.wav': ('fear', 'test')}


def test_a_broken_table_is_named(tmp_path):
    (tmp_path/'metadata.parquet').write_bytes(b'PAR1 and then nothing')
    pytest.importorskip('pyarrow')
    with pytest.raises(TamersError, match='metadata.parquet: not readable as Parquet'): found(tmp_path)
    (tmp_path/'metadata.parquet').unlink()
    (tmp_path/'metadata.csv').write_text('file_name,label\na.wav,joy,more\n')
    with pytest.raises(TamersError, match='metadata.csv, line 2'): found(tmp_path)


def test_a_table_of_kinds_unknown_is_named(tmp_path, monkeypatch):
    pa = pytest.importorskip('pyarrow')
    def refuse(path): raise pa.ArrowNotImplementedError('Integers with more than 64 bits')
    parquet(tmp_path/'metadata.parquet', [['file_name', 'label'], ['a.wav', 'joy']])
    assert found(tmp_path) is LAYOUTS['audiofolder']
    monkeypatch.setattr('pyarrow.parquet.ParquetFile', refuse)
    with pytest.raises(TamersError, match='metadata.parquet: not readable as Parquet .Integers'): found(tmp_path)


def test_a_pipe_is_no_table(tmp_path):
    for ending in ('csv', 'jsonl', 'parquet'):
        os.mkfifo(tmp_path/f'metadata.{ending}')
        if ending == 'parquet': pytest.importorskip('pyarrow')
        with pytest.raises(TamersError, match=f'metadata.{ending}: a pipe'): found(tmp_path)
        (tmp_path/f'metadata.{ending}').unlink()


def test_a_table_that_holds_the_sound_is_none_of_ours(tmp_path):
    clip(tmp_path/'joy'/'a.wav')
    parquet(tmp_path/'train.parquet', [['audio', 'label'], [dict(bytes=b'RIFF', path='a.wav'), 'joy']])
    assert found(tmp_path) is None


def test_a_table_without_clips_or_classes_is_none_of_ours(tmp_path):
    make(tmp_path, 'joy/a.wav', 'fear/b.wav', labels=[['file', 'age'], ['joy/a.wav', '7']])
    assert found(tmp_path) is LAYOUTS['folders']


# ---- which of them ----

def test_two_layouts_that_claim_a_folder_are_named(tmp_path):
    make(tmp_path, 'happy/OAF_back_happy.wav', 'sad/OAF_back_sad.wav')
    with pytest.raises(TamersError, match='for each class and as TESS; pass --corpus folders or --corpus tess'):
        found(tmp_path)
    sheet(tmp_path/'metadata.csv', [['file_name', 'label'], ['happy/OAF_back_happy.wav', 'fear']])
    with pytest.raises(TamersError, match="Hugging Face's AudioFolder and as a folder for each class and as TESS"):
        found(tmp_path)
    assert [row['label'] for row in read(tmp_path, 'tess')[0]] == ['happy', 'sad']
    assert [row['label'] for row in read(tmp_path, 'audiofolder')[0]] == ['fear']


def test_a_layout_that_is_none(tmp_path):
    with pytest.raises(TamersError, match="no layout 'ravdes'; there are audiofolder, .*Did you mean 'ravdess'"):
        found(tmp_path, 'ravdes')
    with pytest.raises(TamersError, match='no row as RAVDESS; it has no clips'): read(tmp_path, 'ravdess')


def test_every_ending_that_is_listed_can_be_heard(tmp_path):
    make(tmp_path, 'a.WAV', 'b.flac', 'c.ogg', 'd.opus', 'e.txt', '.f.wav')
    clips = list_clips(list_files(tmp_path))
    assert clips == ['a.WAV', 'b.flac', 'c.ogg', 'd.opus']
    assert all(probe(Path(tmp_path, clip)) == pytest.approx(0.1, abs=0.01) for clip in clips)
