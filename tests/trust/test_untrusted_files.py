"Files from strangers: what they may ask for, where they may lead, and that nothing of theirs runs."
import io, json, os, pickle, re, struct, tarfile, threading, tracemalloc
from pathlib import Path
import numpy as np
import pytest
import soundfile
import torch
import transformers as tf
import tamers.data.audio
from tests.data.test_audio import tone, write_av
from tests.encoders.test_encoder import MAKE
from tests.trust.test_faults import argv, code_of, told
from tests.store.test_shards import clips, read_all, run, samples, sound, write_parquet, write_tar
from tests.store.test_streams import encoders, made_rows, write_manifest  # noqa: F401, a fixture
from tamers.data.audio import Clip, load_audio, probe
from tamers.model.checkpoint import load_checkpoint
from tamers.core import shipped, TamersError
from tamers.commands import command, hit_line, tamers_predict
from tamers.data.corpus import Utterance
from tamers.evaluation.search import Hit
from tamers.data.load import load_corpus
from tamers.encoders.encoder import Encoder
from tamers.data.files import open_corpus
from tamers.store.listings import find_listing, open_listings, shard_corpus
from tamers.data.files import FileIndex
from tamers.prediction.recognizer import load, read_table
from tamers.store.shards import read_shard


# ---- manifests that lead elsewhere ----

def manifest(folder, *cells, name='manifest.csv'):
    "A manifest with one clip of its own for train and dev, and rows for the paths in `cells`."
    folder.mkdir(parents=True, exist_ok=True)
    (folder/'a.wav').write_bytes(sound())
    rows = ['a.wav,one,joy,train', 'a.wav,two,joy,dev', *(f'{cell},three,joy,train' for cell in cells)]
    (folder/name).write_text('\n'.join(['audio,text,label,split', *rows]))
    return folder


@pytest.mark.parametrize('cell', ['/etc/passwd', '../out.wav', 'x/../../out.wav', './/..//out.wav', '{out}',
    '../own/../out.wav', '..', '/'])
def test_a_manifest_cannot_lead_outside_its_folder(tmp_path, cell):
    (tmp_path/'out.wav').write_bytes(sound())
    root = manifest(tmp_path/'own', cell.format(out=tmp_path/'out.wav'))
    for skip_bad in (True, False):
        cure = 'move them there, or pass --allow-outside if you trust this manifest'
        with pytest.raises(TamersError, match=rf'clips outside its folder: .* \(line 4\); {cure}'):
            load_corpus(root, skip_bad=skip_bad)
    with pytest.raises(TamersError, match='outside'): load_corpus(root/'manifest.csv')


def test_what_lies_below_is_no_stranger(tmp_path):
    "Another spelling of a path below, an absolute one, and a link that the owner of the folder has made."
    (tmp_path/'out.wav').write_bytes(sound())
    root = manifest(tmp_path/'own', 'sub/../a.wav', tmp_path/'own'/'a.wav', 'link.wav', '..a.wav')
    (root/'link.wav').symlink_to(tmp_path/'out.wav')
    (root/'..a.wav').write_bytes(sound())
    (root/'sub').mkdir()
    assert len(load_corpus(root).utterances) == 6
    (tmp_path/'here').symlink_to(root)
    assert len(load_corpus(tmp_path/'here').utterances) == 6


def test_asked_for_it_may(tmp_path, encoders, capsys):
    out = tmp_path/'elsewhere'/'out.wav'
    out.parent.mkdir()
    rows = [*made_rows('train'), *made_rows('dev')]
    root = write_manifest(tmp_path/'c', rows)
    (root/f'{rows[0][0]}.wav').rename(out)
    (root/'manifest.csv').write_text((root/'manifest.csv').read_text().replace(f'{rows[0][0]}.wav', str(out)))
    assert code_of(argv(root, tmp_path, encoders)) == 2
    told(capsys, 'manifest.csv: clips outside its folder', out, '(line 2)', '--allow-outside')
    assert not (tmp_path/'run').exists()
    assert code_of(argv(root, tmp_path, encoders, '--allow-outside')) == 0
    assert sum(load_checkpoint(tmp_path/'run'/'best.pt').train_counts) == 28
    capsys.readouterr()
    assert code_of(['--load-checkpoint', str(tmp_path/'run'/'last.pt'), '--epochs',
        '3']) == 0, 'a run that goes on keeps what it was allowed'


def test_text_alone_looks_at_no_clip(tmp_path):
    assert {u.audio for u in load_corpus(manifest(tmp_path/'own', '/etc/passwd'), clips=False).utterances} == {None}


# ---- what a header may ask for ----

def header(path, **change):
    "A wav with other numbers in its `fmt ` chunk."
    data = bytearray(sound())
    for name, value in change.items():
        at, code = dict(channels=(22, '<H'), rate=(24, '<I'), size=(40, '<I'), riff=(4, '<I'))[name]
        data[at:at + struct.calcsize(code)] = struct.pack(code, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('change, words', [
    (dict(channels=10_000), '10000 channels, and 64 are allowed|cannot be decoded'),
    (dict(rate=1), '1 samples a second|cannot be decoded'),
    (dict(rate=10_000_000), '10000000 samples a second|cannot be decoded'),
    (dict(rate=0), 'cannot be decoded|0 samples a second'),
    (dict(size=0xFFFFFF00), 'truncated: its header promises 4294967084 bytes and there are'),
    (dict(size=9_000_000, riff=0xFFFFFFFF), 'truncated: its header promises 9000044 bytes and there are'),
    (dict(size=0xFFFFFFF0, riff=0xFFFFFFFF), '')])
def test_headers_of_wav(tmp_path, change, words):
    "Each is refused by name; a length that means 'I do not know yet' gives what is there."
    path = header(tmp_path/'a.wav', **change)
    for source in (path, Clip('a.wav', path.read_bytes())):
        for read in (probe, load_audio):
            if words:
                with pytest.raises(TamersError, match=rf'a\.wav: ({words})'): read(source)
            else:
                x = read(source)
                assert (x if isinstance(x, float) else len(x) / 16_000) == pytest.approx(.3)


@pytest.mark.parametrize('rate, seconds, words',
    [(3_999, 1, '3999 samples a second; rates from 4000 to 768000'), (16_000, 1, None), (384_000, .1, None)])
def test_rates(tmp_path, rate, seconds, words):
    soundfile.write(tmp_path/'a.wav', tone(rate, seconds), rate)
    if words:
        for read in (probe, load_audio):
            with pytest.raises(TamersError, match=words): read(tmp_path/'a.wav')
    else:
        assert probe(tmp_path/'a.wav') == seconds
        assert len(load_audio(tmp_path/'a.wav')) == pytest.approx(16_000 * seconds, abs=2)


def test_a_flac_full_of_silence(tmp_path):
    "Three hours in a few kilobytes: refused before any memory is taken."
    path = tmp_path/'bomb.flac'
    with soundfile.SoundFile(path, 'w', 4_000, 1, 'PCM_16') as f:
        for _ in range(180): f.write(np.zeros(60 * 4_000, np.int16))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    for read in (probe, load_audio, lambda p: load_audio(p, max_seconds=10)):
        with pytest.raises(TamersError, match=r'bomb.flac: 3 hours long, and 2 are allowed'): read(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_flac_that_claims_a_lifetime(tmp_path):
    "The 36 bits of its length say 2^36 - 1."
    soundfile.write(tmp_path/'a.flac', tone(16_000), 16_000)
    data = bytearray((tmp_path/'a.flac').read_bytes())
    data[21] |= 0x0F
    data[22:26] = b'\xff' * 4
    (tmp_path/'a.flac').write_bytes(data)
    for read in (probe, load_audio):
        with pytest.raises(TamersError, match='1193 hours long, and 2 are allowed'): read(tmp_path/'a.flac')


def test_many_samples_need_not_be_decoded(tmp_path, monkeypatch):
    "A clip that is too large as a whole may be long enough for an encoder that hears its start."
    monkeypatch.setattr(tamers.data.audio, 'MOST_SAMPLES', 40_000)
    soundfile.write(tmp_path/'a.wav', np.stack([tone(16_000)] * 4, 1), 16_000)
    with pytest.raises(TamersError, match='64000 samples when decoded, and 40000 are allowed'):
        load_audio(tmp_path/'a.wav')
    assert len(load_audio(tmp_path/'a.wav', max_seconds=.4)) == 6_400 and probe(tmp_path/'a.wav') == 1


def test_containers_have_the_same_limits(tmp_path, monkeypatch):
    write_av(tmp_path/'a.mp4', 'aac', np.stack([tone(48_000)] * 2))
    assert len(load_audio(tmp_path/'a.mp4'))
    for name, value, words in (('LONGEST', .5, 'hours long'), ('MOST_CHANNELS', 1, '2 channels, and 1 are allowed'),
        ('MOST_SAMPLES', 9_000, 'samples when decoded'), ('RATES', (4_000, 44_100), '48000 samples a second')):
        with monkeypatch.context() as m:
            m.setattr(tamers.data.audio, name, value)
            with pytest.raises(TamersError, match=words): load_audio(tmp_path/'a.mp4')
            if name != 'MOST_SAMPLES':
                with pytest.raises(TamersError, match=words): probe(tmp_path/'a.mp4')


def test_a_wav_that_is_shorter_than_its_data_chunk_says(tmp_path):
    "The size of the whole was mended, that of the sound was not; a chunk of another kind lies before it."
    whole = sound(seconds=1)
    notes = b'LIST' + struct.pack('<I', 5) + b'INFOx\0'
    whole = whole[:36] + notes + whole[36:]
    for cut, there in ((1000, None), (1, True), (0, True)):
        data = bytearray(whole[:len(whole) - cut])
        data[4:8] = struct.pack('<I', len(data) - 8)
        (tmp_path/'a.wav').write_bytes(data)
        for read in (probe, load_audio):
            if there: read(tmp_path/'a.wav')
            else:
                with pytest.raises(TamersError,
                    match=rf'truncated: its header promises {len(whole)} bytes and there are {len(whole) - cut}'):
                    read(tmp_path/'a.wav')


class Counted(io.BytesIO):
    "A file that does not let itself be read for ever."
    reads = 0

    def read(self, *args):
        self.reads += 1
        assert self.reads < 10_000, 'it is read without end'
        return super().read(*args)


@pytest.mark.parametrize('chunks', [bytes(200_000), b'RIFF\0\0\0\0'], ids=['empty chunks', 'a whole in the whole'])
def test_a_wav_of_chunks_without_end(monkeypatch, chunks):
    whole = Clip('a.wav', b'RIFF\0\0\0\0' + sound()[8:36] + chunks)
    monkeypatch.setattr(tamers.data.audio, '_open', lambda clip: Counted(clip.data))
    with pytest.raises(TamersError, match='a.wav: no sound in its first 1000 chunks; convert it again'): probe(whole)


@pytest.mark.parametrize('value', [np.inf, -np.inf, np.nan])
def test_samples_that_are_no_numbers(tmp_path, value):
    wave = tone(16_000)
    wave[7_000] = value
    soundfile.write(tmp_path/'a.wav', wave, 16_000, subtype='FLOAT')
    with pytest.raises(TamersError, match=r'a\.wav: holds 1 samples that are not finite'): load_audio(tmp_path/'a.wav')


# ---- labels that disagree ----

def test_the_same_clip_with_two_labels_is_counted(tmp_path):
    (tmp_path/'c').mkdir()
    for name, pitch in dict(a=200, b=200, c=300).items(): (tmp_path/'c'/f'{name}.wav').write_bytes(sound(pitch))
    rows = ('audio,text,label,split', 'a.wav,x,joy,train', 'b.wav,y,anger,train', 'c.wav,z,fear,train',
            'c.wav,z,fear,dev', '')
    (tmp_path/'c'/'manifest.csv').write_text('\n'.join(rows))
    note, = [n for n in open_corpus(tmp_path/'c', FileIndex(tmp_path/'files.sqlite', probe)).notes if 'disagree' in n]
    assert note == 'clips whose rows disagree about the label: 1, in 2 rows (train a.wav joy and train b.wav anger)'
    root = write_tar(tmp_path/'x.tar', {f'{i}.{end}': data
        for i, (label, split, pitch) in enumerate([('joy', 'train', 200), ('anger', 'dev', 200),
        ('fear', 'train', 300)])
                                        for end, data in dict(wav=sound(pitch),
                                        json=json.dumps(dict(text='x', label=label, split=split)).encode()).items()})
    corpus = shard_corpus(str(root), run([root], tmp_path/'listings'))
    assert 'clips whose rows disagree about the label: 1, in 2 rows (train 0 joy and dev 1 anger)' in corpus.notes


# ---- tables that are no files ----

@pytest.mark.parametrize('name', ['manifest.csv', 'manifest.jsonl', 'train_sent_emo.csv'])
@pytest.mark.parametrize('kind, words', [
    ('pipe', 'a pipe, a device or a folder; name a file'), ('device', 'a pipe, a device or a folder; name a file'),
    ('terabyte', '1099511627776 bytes, and 1073741824 are allowed; split it')])
def test_tables_that_are_no_files(tmp_path, name, kind, words):
    "A pipe would be waited for, a device has no end, and a terabyte has one too late."
    table = tmp_path/name
    if kind == 'device': table.symlink_to('/dev/null')
    elif kind == 'terabyte':
        table.touch()
        os.truncate(table, 2**40)
    else:
        os.mkfifo(table)
        threading.Thread(target=table.write_text, args=['nobody should read this'], daemon=True).start()
    if name.startswith('train'): (tmp_path/'dev_sent_emo.csv').touch()
    for read in (lambda: load_corpus(tmp_path, clips=False), lambda: read_table(table)):
        with pytest.raises(TamersError, match=f'{table}: {words}'): read()


# ---- archives ----

def test_a_shard_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path/'a.tar')
    threading.Thread(target=(tmp_path/'a.tar').write_text, args=['nobody should read this'], daemon=True).start()
    assert read_all(tmp_path/'a.tar') == ([], f'{tmp_path}/a.tar: a pipe, a device or a folder; name a file')


def test_a_table_whose_clips_are_paths(tmp_path):
    "The path beside the bytes of a clip is a name; without bytes there is no clip."
    import pyarrow as pa
    kind = pa.struct(dict(bytes=pa.binary(), path=pa.string()))
    (tmp_path/'in').mkdir()
    root = write_parquet(tmp_path/'in'/'a.parquet',
        dict(audio=pa.array([dict(bytes=None, path='/etc/passwd'), dict(bytes=sound(), path='/etc/passwd')], kind),
        label=['joy', 'joy'], text=['a', 'b']))
    records, error = read_all(root)
    assert error is None
    assert [(r.id, len(r.data)) for r in records] == [('/etc/passwd', 0), ('/etc/passwd', len(sound()))]
    listing, = run([root], tmp_path/'listings')
    assert [r.get('fault') for r in listing.records()] == ['no clip', None] and listing.faults == 1


@pytest.mark.parametrize('kind, words', [(tarfile.XHDTYPE, 'a header of 67108864 bytes'),
    (tarfile.GNUTYPE_LONGNAME, 'a header of 67108864 bytes'), (tarfile.REGTYPE, None)])
def test_a_small_archive_of_many_zeros(tmp_path, kind, words):
    "A name, and a JSON, of 64 MB that fit into 64 kB: neither is taken into memory."
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as tar:
        info = tarfile.TarInfo('a.json')
        info.type, info.size = kind, 2**26
        tar.addfile(info, io.BytesIO(bytes(2**26)))
        for name, data in samples(1).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert (tmp_path/'a.tar.gz').stat().st_size < 100_000
    tracemalloc.start()
    records, error = read_all(tmp_path/'a.tar.gz')
    assert tracemalloc.get_traced_memory()[1] < 5e7
    tracemalloc.stop()
    if words: assert not records and words in error
    else:
        assert error is None
        assert [r.fault for r in records] == ['.json is too large: 67108864 bytes, and 16777216 are allowed', None]


@pytest.mark.parametrize('column', ['audio', 'text'])
def test_a_small_table_of_many_zeros(tmp_path, column):
    "What a column unpacks to is told at the end of the file, and is read before it is unpacked."
    import pyarrow as pa
    columns = dict(audio=clips(2), label=['joy', 'joy'], text=['a', 'b'])
    if column == 'audio': columns['audio'] = pa.array([dict(bytes=bytes(2**27))] * 2, columns['audio'].type)
    else: columns['text'] = [' ' * 2**27, 'b']
    root = write_parquet(tmp_path/'a.parquet', columns, compression='zstd', use_dictionary=False)
    assert root.stat().st_size < 100_000
    records, error = read_all(root)
    assert not records and re.match(rf'{root}: column {column}(.bytes)? unpacks \d+ bytes to \d+, as neither', error)


def test_equal_clips_are_not_unpacked_all_at_once(tmp_path):
    "A table holds equal values once, and each row of it as often as it is read."
    import pyarrow as pa
    rows = pa.array([dict(bytes=bytes(2**25))] * 16, pa.struct(dict(bytes=pa.binary())))
    root = write_parquet(tmp_path/'a.parquet', dict(audio=rows), compression='zstd', dictionary_pagesize_limit=2**30)
    tracemalloc.start()
    assert [len(r.data) for r in read_shard(str(root))] == [2**25] * 16
    assert tracemalloc.get_traced_memory()[1] < 2**28 + 2**27
    tracemalloc.stop()


def test_a_listing_that_was_changed_is_made_again(tmp_path):
    root = write_tar(tmp_path/'a.tar', samples(4))
    listing, = run([root], tmp_path/'listings')
    whole = listing.path.read_text()
    for changed in (whole.replace('words 2', 'words X'), whole.replace('"count": 4', '"count": 5'), whole[:-30],
        whole + '{}\n', '[]\n', '', '\0'):
        listing.path.write_text(changed)
        assert find_listing(tmp_path/'listings', str(root)) is None
        with pytest.raises(TamersError, match='a.tar: not read'): open_listings(tmp_path/'listings', [str(root)])
    again, = run([root], tmp_path/'listings')
    assert [r['text'] for r in again.records()] == [f'words {i}' for i in range(4)]
    assert listing.path.read_text() == whole


def test_half_a_character_in_any_field(tmp_path):
    "Names that are not UTF-8 and an escape for half a character reach no hash, no log and no table."
    members = samples(1) | {'\udcff.wav': sound(300), '\udcff.json': json.dumps(dict(text='x', label='joy')).encode(),
        'half.wav': sound(310), 'half.json': b'{"text": "x", "label": "joy", "speaker": "\\ud83d"}'}
    listing, = run([write_tar(tmp_path/'a.tar', members)], tmp_path/'listings')
    rows = {r['id']: r.get('fault') for r in listing.records()}
    assert rows == {'00000': None, '?': None,
        'half': 'its name, its transcript or another field holds half a character'}


# ---- what a terminal would obey ----

OBEYED = ['\x1b[2J', '\x9b2J', '\r', '\x08', '\u202e']

@pytest.mark.parametrize('evil', OBEYED)
def test_no_command_prints_what_a_terminal_obeys(evil, capsys):
    "Wherever below a command it is printed: an epoch of a checkpoint, a speaker, a label, an id."
    @command
    def tell(flags):
        print('epoch', f'1{evil}', flush=True)
        raise TamersError(f'no speaker {evil}')
    with pytest.raises(SystemExit): tell([])
    out, err = capsys.readouterr()
    assert out.startswith('epoch 1') and err.startswith('error: no speaker') and evil not in out + err


@pytest.mark.parametrize('flag', [None, '--csv', '--json'])
def test_names_of_recordings_are_only_shown(tmp_path, capsys, flag):
    "A table, CSV and JSON: names that a terminal would obey, one line each, and those that only look odd are kept."
    names = [f'{i}{evil}.wav' for i, evil in enumerate([*OBEYED, '\n'])] + ['\u0645\u06cc\u200c.wav']
    for name in names: (tmp_path/name).write_bytes(sound())
    tamers_predict([str(tmp_path/name) for name in names] + ['--device', 'cpu'] + ([flag] if flag else []))
    out, _ = capsys.readouterr()
    assert not any(evil in out for evil in OBEYED) and names[-1] in out
    if flag != '--csv': assert len(out.splitlines()) == len(names) + (flag is None)
    if flag == '--json': assert [Path(json.loads(line)['file']).name for line in out.splitlines()] == names


def test_hits_are_one_line_each():
    u = Utterance('dia0\nutt0', 'test', 'two\nlines', 'joy', None)
    assert len(hit_line(1, Hit(.5, u, rows=1)).splitlines()) == 1


# ---- what a checkpoint says of its encoders ----

@pytest.mark.parametrize('change, words', [
    (lambda e: e['spec'].update({7: 'seven'}), r'spec: 7 is unknown'),
    (lambda e: e['spec'].pop('pooling'), 'spec: pooling is missing'),
    (lambda e: e['spec'].update(pooling=['mean']), r"spec: pooling \['mean'\] must be str"),
    (lambda e: e['spec'].update(layer='2'), "spec: layer '2' must be int"),
    (lambda e: e['spec'].update(context='words'), "spec: context: 'words' is no dict"),
    (lambda e: e['spec'].update(context=dict(turns=1)), 'spec: context: speakers is missing'),
    (lambda e: e['spec'].update({'x' * 100_000: 1}), "spec: 'x+ … x+' is unknown"),
    (lambda e: e.update(spec='mean'), "spec: 'mean' is no dict"),
    (lambda e: e.update(name=5), 'name 5 must be str'),
    (lambda e: e.update(revision=['main']), r"revision \['main'\] must be str")])
def test_specs_of_strangers(tmp_path, change, words):
    "Keys and types are checked when a checkpoint is read, and none of what it says is repeated at length."
    data = torch.load(shipped('best.pt'), weights_only=True)
    change(data['encoders']['audio'])
    torch.save(data, tmp_path/'best.pt')
    with pytest.raises(TamersError, match=f'best.pt: damaged or of another program: encoders.audio.{words}.*; use'):
        load_checkpoint(tmp_path/'best.pt')


@pytest.mark.parametrize('change', [dict(pooling='x' * 100_000), dict(identity='x' * 100_000)])
def test_messages_can_be_read(tmp_path, change):
    data = torch.load(shipped('best.pt'), weights_only=True)
    data['encoders']['audio']['spec'].update(change)
    torch.save(data, tmp_path/'best.pt')
    with pytest.raises(TamersError) as e: load(tmp_path/'best.pt', audio_encoder='mini', text_encoder='mini')
    assert len(str(e.value)) < 6000


# ---- nothing of theirs runs ----

class Payload:
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.mkdir, (str(self.mark),)


def test_no_pickle_is_executed(tmp_path):
    mark = tmp_path/'executed'
    torch.save(dict(format='tamers-1', model=Payload(mark)), tmp_path/'best.pt')
    (tmp_path/'plain.pt').write_bytes(pickle.dumps(Payload(mark)))
    for name in ('best.pt', 'plain.pt'):
        with pytest.raises(TamersError, match=rf'{name}: (refused, it holds Python objects|not a readable checkpoint)'):
            load_checkpoint(tmp_path/name)
    folder = tmp_path/'encoder'
    for part in MAKE['gpt2'](): part.save_pretrained(folder)
    (folder/'model.safetensors').unlink()
    torch.save({'wte.weight': Payload(mark)}, folder/'pytorch_model.bin')
    encoder = Encoder('text', str(folder))
    with pytest.raises(TamersError, match='its weights cannot be read'): encoder.encode(encoder.prepare(['words']))
    assert not mark.exists()


@pytest.mark.parametrize('kind, name, part',
    [('text', 'gpt2', 'config.json'), ('text', 'gpt2', 'tokenizer_config.json'), ('audio', 'ast', 'config.json'),
    ('audio', 'ast', 'preprocessor_config.json')])
def test_code_beside_an_encoder_is_not_run(tmp_path, kind, name, part):
    "A folder that brings classes of its own: they are passed over or refused, and never imported."
    torch.manual_seed(0)
    for p in MAKE[name](): p.save_pretrained(tmp_path/'e')
    (tmp_path/'e'/'own.py').write_text(f'import os\nos.mkdir({str(tmp_path/"executed")!r})\n')
    about = json.loads((tmp_path/'e'/part).read_text())
    names = dict(AutoConfig='own.C', AutoModel='own.M', AutoTokenizer=['own.T', 'own.T'], AutoFeatureExtractor='own.F')
    (tmp_path/'e'/part).write_text(json.dumps(about | dict(auto_map=names)))
    item = 'words' if kind == 'text' else np.zeros(16_000, np.float32)
    for change in ({}, dict(model_type='own')):
        (tmp_path/'e'/part).write_text(json.dumps(about | dict(auto_map=names) | change))
        try:
            e = Encoder(kind, str(tmp_path/'e'))
            assert e.encode(e.prepare([item])).isfinite().all()
        except TamersError: pass
    assert not (tmp_path/'executed').exists()


@pytest.mark.parametrize('kind, name, part, change, words', [
    ('audio', 'ast', 'config.json', dict(num_hidden_layers=2**31),
    'num_hidden_layers is 2.14748e\\+09, and 1000 are allowed'),
    ('text', 'gpt2', 'config.json', dict(n_layer=10**12), 'num_hidden_layers is 1e\\+12'),
    ('text', 'gpt2', 'config.json', dict(vocab_size=10**10), 'vocab_size is 1e\\+10'),
    ('audio', 'ast', 'preprocessor_config.json', dict(max_length=10**9),
    'max_length is 1e\\+09, and 65536 are allowed'),
    ('audio', 'ast', 'preprocessor_config.json', dict(mean=['x']), 'do not work together'),
    ('audio', 'ast', 'config.json', dict(num_mel_bins=1), 'do not work together'),
    ('text', 'gpt2', 'tokenizer_config.json', dict(model_max_length='many'), 'do not work together|cannot be read')])
def test_an_encoder_that_asks_for_too_much(tmp_path, kind, name, part, change, words):
    for p in MAKE[name](): p.save_pretrained(tmp_path/'e')
    file = tmp_path/'e'/part
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    tracemalloc.start()
    with pytest.raises(TamersError, match=words) as e: Encoder(kind, str(tmp_path/'e'))
    assert tracemalloc.get_traced_memory()[1] < 2e8 and len(str(e.value)) < 1000
    tracemalloc.stop()
