"Four classes, twelve of them, and classes in Japanese, from a manifest to answers, figures, folders and comparisons."
import csv, json
from dataclasses import replace
import numpy as np
import pytest
import soundfile as sf
from tamers import commands, load
from tamers.core import EMOTIONS, TamersError
from tamers.classes import Labels, MAPS
from tamers.config import AnalyzeConfig, CompareConfig, TrainConfig
from tamers.data.load import load_corpus
from tamers.evaluation.analyze import analyze
from tamers.evaluation.compare import compare
from tamers.model.checkpoint import load_checkpoint, save_checkpoint
from tamers.pages.app import respond
from tamers.training.run import train

SETS = dict(four=['calm', 'happy', 'sad', 'angry'], twelve=[f'mood {i}' for i in range(12)],
            japanese=['怒り', '喜び', '悲しみ', '驚き'])


def write_corpus(folder, classes, per_class=dict(train=4, dev=2, test=2)):
    "Tones that tell the class, and lines that name it."
    folder.mkdir(exist_ok=True)
    rng, lines = np.random.default_rng(0), [['audio', 'text', 'label', 'split']]
    for split, n in per_class.items():
        for i, label in enumerate(classes * n):
            t = np.arange(8000 + 200 * (i % 5)) / 16000
            wave = .3 * np.sin(2 * np.pi * (120 + 60 * classes.index(label)) * t) + .01 * rng.standard_normal(len(t))
            sf.write(folder/f'{split}{i}.wav', wave, 16000)
            lines.append([f'{split}{i}.wav', f'number {classes.index(label)}, said {i} times', label, split])
    with open(folder/'manifest.csv', 'w', encoding='utf-8', newline='') as f: csv.writer(f).writerows(lines)
    return folder


@pytest.fixture(scope='module', params=SETS)
def run(request, tmp_path_factory):
    "A class set in order, its corpus, and a head trained on it for two epochs."
    home, classes = tmp_path_factory.mktemp(request.param), sorted(SETS[request.param])
    root = write_corpus(home/'corpus', classes)
    cfg = TrainConfig(root=str(root), epochs=2, save_path=str(home/'run'), device='cpu', num_workers=0,
                      modality_dropout=.3, store_path=str(home/'store'))
    train(cfg)
    return classes, root, home/'run', cfg


def test_the_classes_travel_with_the_head(run):
    classes, root, folder, _ = run
    ckpt = load_checkpoint(folder/'best.pt')
    assert ckpt.classes == classes and ckpt.model_args['n_classes'] == len(classes) == len(ckpt.train_counts)


@pytest.mark.filterwarnings('ignore:Glyph')
def test_scores_and_figures_have_them(run):
    classes, root, folder, _ = run
    m = analyze(AnalyzeConfig(checkpoint=str(folder), device='cpu', num_workers=0), say=lambda _: None)
    assert list(m['per_class']) == m['confusion']['classes'] == classes
    written = json.loads((m['out']/'metrics.json').read_text())
    assert list(written['per_class']) == classes
    with open(m['out']/'predictions.csv', encoding='utf-8', newline='') as f: rows = list(csv.DictReader(f))
    assert len(rows) == 2 * len(classes) and {r['prediction'] for r in rows} <= set(classes)
    assert sum(float(rows[0][c]) for c in classes) == pytest.approx(1, abs=1e-4)
    assert all((m['out']/f'{name}.png').exists() for name in ('confusion', 'calibration', 'similarity', 'space'))


def test_answers_name_them(run, capsys, tmp_path):
    classes, root, folder, _ = run
    commands.tamers_predict([str(root/'dev0.wav'), '--text', 'number 0', '--checkpoint', str(folder), '--csv'])
    row, = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row['prediction'] in classes and set(classes) <= set(row) and not set(EMOTIONS) & set(row)
    model = load(folder, device='cpu')
    model.save_pretrained(tmp_path/'given')
    assert json.loads((tmp_path/'given'/'config.json').read_text())['label2id'] == {c: i for i, c in enumerate(classes)}
    again = load(tmp_path/'given', device='cpu').predict(root/'dev0.wav', 'number 0')
    assert list(again.probabilities) == classes and again.label == row['prediction']
    assert model.predict_table(root/'manifest.csv').prediction.isin(classes).all()
    said, *bars, _, place = respond(model, str(root/'dev0.wav'), 'number 0')
    assert again.label in said and set(bars[2]) == set(classes) and classes[0] in place


def test_other_classes_are_refused_by_name(run, tmp_path):
    classes, root, folder, cfg = run
    other = write_corpus(tmp_path/'other', [*classes[:-1], 'bored'])
    with pytest.raises(TamersError, match="unknown label 'bored' .line.*--label-map"):
        analyze(AnalyzeConfig(checkpoint=str(folder), root=str(other), device='cpu', num_workers=0))
    resumed = replace(cfg, root=str(other), load_checkpoint=str(folder/'last.pt'), epochs=3,
                      save_path=str(tmp_path/'new'))
    with pytest.raises(TamersError, match=f'last.pt alone has {classes[-1]}; this corpus alone has bored'):
        train(resumed)
    with pytest.raises(TamersError, match='this corpus alone has bored'): train(replace(resumed, fusion='gated'))


def test_classes_and_a_map_can_be_named(tmp_path):
    root = write_corpus(tmp_path/'corpus', ['calm', 'happy', 'sad', 'other'])
    labels = Labels(('neutral', 'sad', 'joy'), dict(calm='neutral', happy='joy', other=''))
    corpus = load_corpus(root, labels=labels)
    assert corpus.classes == ('neutral', 'sad', 'joy') and len(corpus.utterances) == 24
    assert corpus.notes[0] == 'left out by the label map: other (8)' and {u.label for u in corpus.split('dev')} == set(
        corpus.classes)
    (tmp_path/'map.csv').write_text('calm = neutral\nhappy = joy\nother =\nsad = sadness\n')
    flags = ['--root', str(root), '--label-map', str(tmp_path/'map.csv'), '--modality', 'text', '--epochs', '1',
             '--save-path', str(tmp_path/'run'), '--device', 'cpu', '--num-workers', '0']
    commands.tamers_train(flags)
    assert load_checkpoint(tmp_path/'run'/'best.pt').classes == list(EMOTIONS)
    m = analyze(AnalyzeConfig(checkpoint=str(tmp_path/'run'), device='cpu', num_workers=0, figures=False))
    assert m['n'] == 6
    commands.tamers_train([*flags, '--classes', 'sadness,joy,neutral', '--overwrite'])
    assert load_checkpoint(tmp_path/'run'/'best.pt').classes == ['sadness', 'joy', 'neutral']


def test_a_map_that_leads_nowhere(tmp_path):
    root = write_corpus(tmp_path/'corpus', ['calm', 'happy'])
    with pytest.raises(TamersError, match='unknown label .calm.*the names are joy, neutral'):
        load_corpus(root, labels=Labels(('joy', 'neutral'), dict(happy='joy')))
    with pytest.raises(TamersError, match='1 classes .delight.; a model chooses among 2'):
        load_corpus(root, labels=Labels(None, dict(happy='delight', calm='delight')))


def test_runs_of_two_class_sets_are_not_compared(tmp_path):
    heads = []
    for name, classes in dict(a=['calm', 'keen'], b=['calm', 'bored']).items():
        root = write_corpus(tmp_path/name, classes)
        cfg = TrainConfig(root=str(root), modality='text', epochs=1, save_path=str(tmp_path/f'run {name}'),
                          device='cpu', num_workers=0)
        heads.append(str(train(cfg)['best']))
    with pytest.raises(TamersError, match="have other classes: .*alone has keen; .*alone has bored"):
        compare(*heads, CompareConfig(root=str(tmp_path/'a'), device='cpu', num_workers=0))


def test_meld_by_sentiment(tmp_path):
    from tamers.data.demo import demo_corpus
    corpus = load_corpus(demo_corpus(), labels=Labels(None, MAPS['meld-sentiment']), clips=False)
    assert corpus.classes == ('negative', 'neutral', 'positive', 'surprise')


def test_a_checkpoint_with_odd_classes(run, tmp_path):
    ckpt = load_checkpoint(run[2]/'best.pt')
    for classes, said in (([*ckpt.classes[:-1], '<b>'], 'is no name of a class'), (7, 'no list'),
                          ([ckpt.classes[0]] * len(ckpt.classes), 'twice')):
        save_checkpoint(replace(ckpt, classes=classes), tmp_path/'odd.pt')
        with pytest.raises(TamersError, match=said): load_checkpoint(tmp_path/'odd.pt')
