"A table as the datasets library keeps it on a disk, and data sets of the hub by their names."
import json
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tamers import commands
from tamers.core import TamersError
from tamers.model.checkpoint import load_checkpoint
from tamers.store import shards
from tamers.store.shards import find_shards, read_shard
from tests.store.test_shards import sound

CLIPS = pa.struct(dict(bytes=pa.binary(), path=pa.string()))


def table(n, seed=0, names=('calm', 'keen')):
    "Rows as `datasets` has them: an Audio column with its bytes, and a ClassLabel."
    clips = [dict(bytes=sound(100 + 90 * (i % 2) + i + seed, .2), path=f'{seed}-{i}.wav') for i in range(n)]
    found = pa.table(dict(audio=pa.array(clips, CLIPS), label=[i % 2 for i in range(n)],
                          actor=[f'a{i % 12}' for i in range(n)], sentence=[f'line {i} {seed}' for i in range(n)]))
    label = dict(names=list(names), _type='ClassLabel')
    about = dict(info=dict(features=dict(audio=dict(_type='Audio', decode=False), label=label)))
    return found.replace_schema_metadata(dict(huggingface=json.dumps(about)))


def save_to_disk(folder, found, batch=5, **how):
    "What `Dataset.save_to_disk` writes."
    folder.mkdir(parents=True)
    path = folder/'data-00000-of-00001.arrow'
    with pa.ipc.new_stream(path, found.schema, options=pa.ipc.IpcWriteOptions(**how)) as out:
        for piece in found.to_batches(max_chunksize=batch): out.write_batch(piece)
    (folder/'state.json').write_text(json.dumps(dict(_data_files=[dict(filename=path.name)])))
    (folder/'dataset_info.json').write_text('{}')
    return path


def train(root, out, *more):
    commands.tamers_train(['--root', str(root), '--save-path', str(out), '--epochs', '1', '--device', 'cpu',
                           '--num-workers', '0', '--classes', 'calm,keen', *more])
    return load_checkpoint(out/'best.pt')


def test_a_dict_of_splits(tmp_path):
    root = tmp_path/'dict'
    for seed, (split, n) in enumerate(dict(train=24, validation=8, test=8).items()):
        save_to_disk(root/split, table(n, seed))
    (root/'dataset_dict.json').write_text('{"splits": ["train", "validation", "test"]}')
    (root/'train'/'cache-0123.arrow').write_bytes(b'what a map left')
    assert train(root, tmp_path/'run').train_counts == [12, 12]
    commands.tamers_analyze(['--checkpoint', str(tmp_path/'run'), '--no-figures', '--device', 'cpu'])
    assert json.loads((tmp_path/'run'/'test'/'metrics.json').read_text())['n'] == 8


def test_one_table_is_dealt_out_by_speaker(tmp_path, capsys):
    save_to_disk(tmp_path/'one', table(48))
    ckpt = train(tmp_path/'one', tmp_path/'run')
    assert 'dealt out by the hash of their speaker' in capsys.readouterr().out and sum(ckpt.train_counts) == 40


def test_rows_are_those_of_parquet(tmp_path):
    path = save_to_disk(tmp_path/'one', table(20))
    pq.write_table(table(20), tmp_path/'same.parquet')
    rows = list(read_shard(str(path)))
    assert rows == list(read_shard(str(tmp_path/'same.parquet'))) and len(rows) == 20
    assert rows[1].fields == dict(label='keen', actor='a1', sentence='line 1 0')


@pytest.mark.parametrize('how', [dict(compression='zstd'), dict(compression='lz4')])
def test_packed_batches_are_refused(tmp_path, how):
    path = save_to_disk(tmp_path/'one', table(20), **how)
    with pytest.raises(TamersError, match='data-00000.*its batches are packed.*save_to_disk'):
        list(read_shard(str(path)))


def test_damaged_and_other_files_are_named(tmp_path):
    path = save_to_disk(tmp_path/'one', table(20))
    whole = path.read_bytes()
    spoilt = whole[:300] + b'\xff' * 40 + whole[340:]
    for data in (whole[:len(whole) // 2], b'', b'no arrow at all', whole[:40], spoilt):
        path.write_bytes(data)
        with pytest.raises(TamersError, match='data-00000'): list(read_shard(str(path)))
    path.write_bytes(whole)
    messages = pa.ipc.MessageReader.open_stream(path)
    messages.read_next_message()
    path.write_bytes(messages.read_next_message().serialize())   # pyarrow dies if this is read as a schema
    with pytest.raises(TamersError, match='begins with a record batch'): list(read_shard(str(path)))
    path.unlink()
    path.parent.joinpath('state.json').unlink()
    path.parent.joinpath('dataset_info.json').unlink()
    path.parent.rmdir()
    path = save_to_disk(tmp_path/'one', pa.table(dict(label=['a'])))
    with pytest.raises(TamersError, match='has no column of clips'): list(read_shard(str(path)))


def test_a_name_on_the_hub(tmp_path, monkeypatch):
    hub = fsspec.filesystem('memory')
    for seed, split in enumerate(('train', 'validation', 'test')):
        with hub.open(f'/datasets/ann/speech@~parquet/default/{split}/0000.parquet', 'wb') as f:
            pq.write_table(table(16, seed), f)
    asked = []
    def filesystem(url):
        asked.append(url)
        return hub, '/' + url.partition('://')[2]
    monkeypatch.setattr(shards, '_filesystem', filesystem)
    monkeypatch.setattr(type(hub), 'unstrip_protocol', lambda self, path: f'hf:/{path}')
    found = find_shards('hf:ann/speech')
    assert asked[0] == 'hf://datasets/ann/speech@~parquet/**/*.parquet' and len(found) == 3
    assert train('hf:ann/speech', tmp_path/'run').train_counts == [8, 8]
    with pytest.raises(TamersError, match='no shard matches'): find_shards('hf:ann/other')
