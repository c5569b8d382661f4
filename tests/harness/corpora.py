"Small corpora that several tests are made on."
import csv
import numpy as np
import soundfile as sf
from tamers.core import EMOTIONS
from tamers.data.demo import demo_corpus


def tones(folder, text, **columns):
    """Write a manifest of tones. `text` of an emotion and a number is what is said, `columns` hold one value for all
    rows. Its test split has five utterances of three emotions."""
    rng, lines = np.random.default_rng(0), [','.join(['audio,text,label,split', *columns])]
    splits = dict(train=EMOTIONS * 4, dev=EMOTIONS * 2, test=['joy', 'joy', 'anger', 'neutral', 'neutral'])
    for split, labels in splits.items():
        for i, label in enumerate(labels):
            t = np.arange(8000 + 400 * i) / 16000
            wave = .3 * np.sin(2 * np.pi * (100 + 80 * EMOTIONS.index(label)) * t) + .01 * rng.standard_normal(len(t))
            sf.write(folder/f'{split}{i}.wav', wave, 16000)
            lines.append(','.join([f'{split}{i}.wav', text(label, i), label, split, *columns.values()]))
    (folder/'manifest.csv').write_text('\n'.join(lines) + '\n')
    return folder


def demo_rows(split):
    "The rows of a split of the demo corpus, as its table has them."
    with open(demo_corpus()/f'{split}_sent_emo.csv', encoding='utf-8', newline='') as f: yield from csv.DictReader(f)


def demo_lines(path, without=()):
    "Write a manifest of the demo's lines of train and dev, text alone, without some emotions."
    with open(path, 'w', newline='') as f:
        w = csv.writer(f)
        w.writerow(['text', 'label', 'split'])
        for split in 'train', 'dev':
            w.writerows([row['Utterance'], row['Emotion'], split] for row in demo_rows(split)
                        if row['Emotion'] not in without)
    return path
