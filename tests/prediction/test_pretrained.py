"The config.json of a model folder: classes as the hub has them, folders written before, and damaged ones."
import json
import pytest
from tamers.core import EMOTIONS, TamersError
from tamers.model.checkpoint import load_checkpoint
from tamers.prediction.pretrained import read_pretrained, write_pretrained
from tamers.runs import shipped_checkpoint


@pytest.fixture
def given(tmp_path):
    "A head without encoders, and what its config.json says."
    write_pretrained(load_checkpoint(shipped_checkpoint()), tmp_path, encoders={}, home=tmp_path/'none')
    return tmp_path, json.loads((tmp_path/'config.json').read_text())


def rewrite(folder, about): (folder/'config.json').write_text(json.dumps(about))


def test_classes_as_the_hub_has_them(given):
    folder, about = given
    assert about['id2label'] == {str(i): name for i, name in enumerate(EMOTIONS)} and 'classes' not in about
    assert about['label2id'] == {name: i for i, name in enumerate(EMOTIONS)}
    assert read_pretrained(folder).classes == list(EMOTIONS)


def test_ten_and_more_classes_keep_their_order(given):
    from tamers.prediction.pretrained import name_labels, read_labels
    names = [f'class {i}' for i in range(40)]
    by_text = json.loads(json.dumps(name_labels(names), sort_keys=True))
    assert read_labels(**by_text) == names


def test_a_folder_that_was_written_before_still_loads(given):
    folder, about = given
    former = {k: v for k, v in about.items() if k not in ('id2label', 'label2id')} | dict(classes=list(EMOTIONS))
    rewrite(folder, former)
    assert read_pretrained(folder).classes == list(EMOTIONS)


@pytest.mark.parametrize("labels", [dict(id2label={"1": "joy", "2": "anger"}), dict(id2label="joy"),
                                    dict(id2label=None),
                                    dict(label2id=dict(joy=0)), dict(id2label={}), dict(label2id=[1]),
                                    dict(id2label={str(i): [i] for i in range(7)}, label2id=None)])
def test_damaged_classes_are_refused(given, labels):
    folder, about = given
    rewrite(folder, about | labels)
    with pytest.raises(TamersError, match=str(folder)): read_pretrained(folder)


def test_nothing_of_the_disk_goes_out(given):
    assert not {'split_file', 'label_map', 'save_path'} & set(given[1]['config'])
