"""A small MELD: made-up rows in MELD's own format, with every trouble that the published files have.

`make_tree(folder)` writes it in the archive's layout (mp4, AAC, 48 kHz) or as extracted audio. What a loader
should find is in `KEPT`, `LEFT_OUT` and `SECONDS`.
"""
import csv
from pathlib import Path

import av, numpy as np, soundfile

COLUMNS = ['Sr No.', 'Utterance', 'Speaker', 'Emotion', 'Sentiment', 'Dialogue_ID', 'Utterance_ID', 'Season', 'Episode',
           'StartTime', 'EndTime']

# (dialogue, utterance, speaker, emotion, text, start, seconds by the row, seconds of the clip). The rows of a
# file are in this order: not sorted, ids with gaps, StartTime running backwards in train dia2.
ROWS = dict(
    train=[(2, 0, 'Vera', 'neutral', 'The ferry leaves at nine, doesn’t it?', 100, 1.5, 1.5),
           (0, 3, 'Olaf', 'joy', '“Splendid”, he said…', 9, 1.25, 1.25),
           (0, 0, 'Vera', 'surprise', 'What?', 5, 0.6, 0.6),
           (0, 1, 'Olaf', 'anger', 'Who put salt — salt! — into my tea?', 6.5, 2, 2),
           (2, 5, 'Ines', 'sadness', 'It sank.', 95, 1, 1),
           (2, 6, 'Vera', 'disgust', 'Ugh, fish again.', 97, 1, 1),
           (10, 0, 'Ines', 'neutral', '!', 3599.5, 1, 1),
           (125, 3, 'Olaf', 'joy', 'This clip is broken.', 20, 1, 'corrupt')],
    dev=[(0, 0, 'Kit', 'neutral', 'What', 1, 0.8, 0.8),
         (0, 2, 'Mr. Lund', 'fear', 'Mr. Lund, the lamp is moving…', 2, 1.2, 1.2),
         (110, 7, 'Kit', 'sadness', 'This clip is missing.', 30, 1, 'missing')],
    test=[(3, 0, 'Rosa', 'anger', 'Two rows are in this clip.', 4, 1, 2.2),
          (3, 1, 'Abel', 'joy', 'And this is the second one.', 5, 1.2, 2.2),
          (9, 0, 'Rosa', 'surprise', 'The row has no length.', 50, 0, 0.7),
          (9, 1, 'Abel', 'neutral', 'what?!', 60, 300, 0.9)])
LEFT_OUT = [('train', 'dia125_utt3'), ('dev', 'dia110_utt7')]
KEPT = [(s, f'dia{r[0]}_utt{r[1]}') for s in ROWS for r in sorted(ROWS[s]) if not isinstance(r[7], str)]
SECONDS = {(s, f'dia{r[0]}_utt{r[1]}'): r[7] for s in ROWS for r in ROWS[s] if not isinstance(r[7], str)}

ARCHIVE = dict(train='train_splits', dev='dev_splits_complete', test='output_repeated_splits_test')
EXTRA = dict(train=['._dia0_utt0', '._dia0_utt1'], dev=['dia66_utt9', 'dia66_utt10', '._dia0_utt0'],
             test=['final_videos_testdia3_utt0', 'final_videos_testdia3_utt1', 'dia108_utt2'])
ENCODERS = {'utf-8': str.encode, 'utf-8-sig': lambda s: s.encode('utf-8-sig'),
            'cp1252': lambda s: s.replace('Mr. L', 'Mr.\xa0L').encode('cp1252'),       # raw bytes
            # as in the archive
            'older': lambda s: s.replace('Mr. L', 'Mr.\xa0L').encode('cp1252').decode('latin-1').encode()}


def clock(seconds: float, short: bool) -> str:
    "H:MM:SS,mmm or HH:MM:SS,mmm: MELD has both."
    ms = round(1000*seconds)
    return f'{ms//3600_000:0{1 if short else 2}}:{ms//60_000%60:02}:{ms//1000%60:02},{ms%1000:03}'


def write_table(path: Path, rows: list, encoding: str = 'utf-8') -> None:
    "One of MELD's CSV files."
    with open(path.with_suffix('.tmp'), 'w', encoding='utf-8', newline='') as f:
        out = csv.writer(f, lineterminator='\r\n')
        out.writerow(COLUMNS)
        for i, (d, u, speaker, emotion, text, start, length, _) in enumerate(rows):
            out.writerow([1 + i//2, text, speaker, emotion, 'neutral', d, u, 1, 1, clock(start, i % 3 == 0),
                          clock(start + length, i % 3 == 0)])
    path.write_bytes(ENCODERS[encoding](path.with_suffix('.tmp').read_bytes().decode()))
    path.with_suffix('.tmp').unlink()


def tone(seconds: float, rate: int) -> np.ndarray:
    "A quiet tone (N,)."
    return (0.1*np.sin(2*np.pi*220*np.arange(round(seconds*rate))/rate)).astype(np.float32)


def write_mp4(path: Path, seconds: float, layout: str = '5.1', video: bool = False, rate: int = 48_000) -> None:
    "A film with an AAC track, as MELD's clips are, and with a tiny picture if wanted."
    with av.open(str(path), 'w') as film:
        if video:
            picture = film.add_stream('mpeg4', rate=10)
            picture.width, picture.height, picture.pix_fmt = 32, 32, 'yuv420p'
        sound = film.add_stream('aac', rate=rate, layout=layout)
        if video:
            for i in range(round(10*seconds)):
                frame = av.VideoFrame(32, 32, 'yuv420p')
                for plane in frame.planes: plane.update(bytes([128])*plane.buffer_size)
                frame.pts = i
                film.mux(picture.encode(frame))
            film.mux(picture.encode())
        wave = np.tile(tone(seconds, rate), (sound.codec_context.layout.nb_channels, 1))
        for i in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, i:i + 1024]), format='fltp', layout=layout)
            frame.sample_rate, frame.pts = rate, i
            film.mux(sound.encode(frame))
        film.mux(sound.encode())


def write_clip(path: Path, seconds: float, number: int = 0) -> None:
    "A clip in the format of its ending; films alternate between 5.1 and stereo, with and without a picture."
    if path.suffix == '.mp4': write_mp4(path, seconds, '5.1' if number % 3 else 'stereo', video=number % 4 == 1)
    else: soundfile.write(path, tone(seconds, 16_000), 16_000)


def make_tree(
    folder: str | Path,
    layout: str = 'archive',       # or 'extracted'
    *,
    nested: bool = False,          # archive: train/train_splits instead of train_splits
    ending: str = '.wav',          # extracted: of the clips
    dev: str = 'dev',              # the name of the dev split in file and folder names
    encoding: str = 'utf-8',       # a key of ENCODERS
    splits=('train', 'dev', 'test'),
) -> Path:
    "Write the tree and give back its folder."
    folder, archive = Path(folder), layout == 'archive'
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        name = dev if split == 'dev' else split
        home = folder/split/ARCHIVE[split] if archive and nested else folder/(ARCHIVE[split] if archive else name)
        home.mkdir(parents=True, exist_ok=True)
        deep = folder/'train' if archive and split == 'train' else folder     # the archive hides this table in train/
        deep.mkdir(exist_ok=True)
        write_table(deep/f'{name}_sent_emo.csv', ROWS[split], encoding)
        suffix = '.mp4' if archive else ending
        for i, (d, u, *_, seconds) in enumerate(ROWS[split]):
            if seconds == 'missing': continue
            clip = home/f'dia{d}_utt{u}{suffix}'
            if seconds == 'corrupt': clip.write_bytes(b'\0\0\0\x18ftypmp42' + bytes(500))
            else: write_clip(clip, seconds, i)
        for stem in EXTRA[split]: (home/f'{stem}{suffix}').write_bytes(b'\0\x05\x16\x07')
    return folder
