"Class sets of shards: plain labels, label maps, and the forty names of EmoNet-Voice, from the flags to the scores."
import pytest
from tamers import commands
from tamers.classes import Labels, MAPS
from tamers.core import EMOTIONS, TamersError
from tamers.model.checkpoint import load_checkpoint
from tamers.store.emonet import CORE, DROPPED, own_classes, WEAKER
from tamers.store.listings import label_rule
from tests.store.test_shards import fields, sound, write_tar

FORTY = [name for part in (CORE, WEAKER) for names in part.values() for name in names] + list(DROPPED)


def big(**scores): return {name.replace('/', '_').replace(' ', '_'): 0 for name in FORTY} | scores


def shards(folder, rows):
    "A tar for each split, with eight clips of each row."
    for s, split in enumerate(('train', 'dev', 'test')):
        members = {}
        for i in range(8 * len(rows)):
            row = rows[i % len(rows)] | dict(text=f'line {i} of {split}')
            members |= {f'{i:03}.json': fields(**row), f'{i:03}.wav': sound(100 + 40 * (i % len(rows)) + i + s, .2)}
        write_tar(folder/f'{split}-0.tar', members)
    return folder


def run(root, out, *flags):
    common = ['--device', 'cpu', '--num-workers', '0']
    commands.tamers_train(['--root', str(root), '--save-path', str(out), '--epochs', '1', *common, *flags])
    commands.tamers_analyze(['--checkpoint', str(out), '--no-figures', *common])
    return load_checkpoint(out/'best.pt')


def test_names_of_emonet_as_classes(tmp_path, capsys):
    root = shards(tmp_path/'emonet', [big(Elation=2), big(Bitterness=3), big(**{'Impatience_and_Irritability': 2}),
                                      big(Pride=2), big(Sadness=2)])
    (tmp_path/'map.txt').write_text('pride = elation\n')
    ckpt = run(root, tmp_path/'run', '--classes', 'elation,bitterness,impatience and irritability',
               '--label-map', str(tmp_path/'map.txt'))
    assert ckpt.classes == ['elation', 'bitterness', 'impatience and irritability']
    assert ckpt.train_counts == [16, 8, 8] and 'none of the classes' in capsys.readouterr().out
    seven = run(root, tmp_path/'seven')
    assert seven.classes == list(EMOTIONS) and sum(seven.train_counts) == 40


def test_a_class_set_and_a_map_of_plain_shards(tmp_path):
    root = shards(tmp_path/'plain', [dict(label='うれしい'), dict(label='calm'), dict(label='other')])
    (tmp_path/'map.txt').write_text('calm = 平静\nother =\n', encoding='utf-8')
    ckpt = run(root, tmp_path/'run', '--classes', '平静,うれしい', '--label-map', str(tmp_path/'map.txt'))
    assert ckpt.classes == ['平静', 'うれしい'] and ckpt.train_counts == [8, 8]


def test_all_forty():
    names = tuple(name.lower() for name in FORTY)
    rule = label_rule(False, Labels(names))
    for name in FORTY: assert rule(big(**{name.replace('/', '_').replace(' ', '_'): 2})) == (name.lower(), '')
    assert rule(big(Elation=2, Pride=2)) == (None, 'ambiguous: elation, pride')


def test_maps_of_the_seven_apply_to_what_emonet_is_mapped_to():
    rule = label_rule(False, Labels(('negative', 'neutral', 'positive'), MAPS['meld-sentiment']))
    found = [rule(big(**{name: 2}))[0] for name in ('Elation', 'Bitterness', 'Fear')]
    assert found == ['positive', 'negative', 'negative']
    assert not own_classes(Labels(EMOTIONS)) and not own_classes(Labels(('anger', 'fear')))


def test_a_map_that_leads_nowhere():
    with pytest.raises(TamersError, match='--label-map: makes nowhere.*--classes'):
        label_rule(False, Labels(None, dict(calm='nowhere')))
    with pytest.raises(TamersError, match='--label-map: makes nowhere'):
        label_rule(False, Labels(('a', 'b'), dict(calm='nowhere', other='')))
