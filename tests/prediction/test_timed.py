"""Transcripts with times: what is brought in any format is read or refused by name, what is written can be read, and no
text breaks a format."""
import csv
import io
import json
import random
import time
from dataclasses import replace
from xml.etree import ElementTree
import pytest
from tamers.core import TamersError
from tamers.prediction.answers import Prediction
from tamers.prediction.segments import Segment, check_timed, group_words, join_speakers, one_line
from tamers.prediction.timed import read_timed
from tamers.prediction.written import WRITERS, write_timeline

ODD = ['そうか、黙れ！', '😀 🤷\u200d♀️ é', 'she said "no" ""', 'two\nlines\r\n\r\nthree', 'a --> b', 'NUL \0 \x1b[2J',
    'x' * 100_000, '1 < 2 & 3 > 2 <v Eve>', "it's; tab\there", '42', '=1+2', '\ud83d half', '\ufffe', '\\',
    '<tag> ]]> &amp;', 'اردو \u202eabc', '00:00:01.000', 'NOTE this', 'a\u2028b', '1 2 3 "']
SPEAKERS = [None, 'Anna', 'Ben & "Co"', '話者1', '<b>', 'a\tb']
LOSSLESS = ['json', 'vtt', 'TextGrid']


def said(label='joy', p=.8): return Prediction(label, {label: p, 'other': 1 - p}, 'both', None, None, [])


def odd_rows(n=60, seed=0, gaps=True):
    "Segments with odd texts and speakers, at milliseconds."
    rng, at, rows = random.Random(seed), 0, []
    for i in range(n):
        start = at + (rng.randrange(3000) if gaps else -rng.randrange(500))
        at = max(start, 0) + rng.randrange(1, 5000)
        rows.append(Segment(max(start, 0) / 1000, at / 1000, rng.choice(SPEAKERS), ODD[i % len(ODD)],
            rng.choice([None, said(), said('a (b) <c>')]), rng.random() < .3))
    return rows


def plain(text): return text and (one_line(text) or None)
def spoken(rows): return sorted((r.start, r.end, plain(r.speaker) or '', plain(r.text)) for r in rows if plain(r.text))


@pytest.mark.parametrize('ending', LOSSLESS)
@pytest.mark.parametrize('gaps', [True, False])
def test_any_text_at_any_millisecond_comes_back(ending, gaps, tmp_path):
    "Also where segments overlap."
    rows = odd_rows(gaps=gaps)
    write_timeline(tmp_path/f'talk.{ending}', rows, seconds=400.)
    assert spoken(read_timed(tmp_path/f'talk.{ending}')) == spoken(rows)


def test_srt_loses_only_what_it_cannot_hold(tmp_path):
    rows = odd_rows()
    write_timeline(tmp_path/'talk.srt', rows)
    want = [replace(r, text=r.text.replace('-->', '→'), speaker=r.speaker and r.speaker.strip('<>')) for r in rows]
    assert spoken(read_timed(tmp_path/'talk.srt')) == spoken(want)


def test_turns_come_back_from_rttm(tmp_path):
    rows = odd_rows()
    write_timeline(tmp_path/'talk.rttm', rows, name='my talk\n2')
    found = read_timed(tmp_path/'talk.rttm')
    name = lambda r: r.speaker and '_'.join(one_line(r.speaker).split())
    assert [(r.start, r.end, r.speaker) for r in found] == [(r.start, r.end, name(r)) for r in rows]
    assert {len(line.split()) for line in (tmp_path/'talk.rttm').read_text(encoding='utf-8').splitlines()} == {10}


def test_elan_audacity_and_csv_hold_every_segment(tmp_path):
    "Read with as little as one needs."
    rows = odd_rows(gaps=False)
    for ending in ('eaf', 'txt', 'csv'): write_timeline(tmp_path/f'talk.{ending}', rows)
    root = ElementTree.parse(tmp_path/'talk.eaf').getroot()
    times = {s.get('TIME_SLOT_ID'): int(s.get('TIME_VALUE')) / 1000 for s in root.iter('TIME_SLOT')}
    assert list(times.values()) == sorted(times.values()) and root.get('VERSION') == '3.0'
    assert [e.tag for e in root][:2] == ['HEADER', 'TIME_ORDER'] and root[-1].tag == 'LINGUISTIC_TYPE'
    found = []
    for tier in root.iter('TIER'):
        spans = [(times[a.get('TIME_SLOT_REF1')], times[a.get('TIME_SLOT_REF2')], a[0].text)
            for a in tier.iter('ALIGNABLE_ANNOTATION')]
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))   # on a tier nothing overlaps
        if 'words' in tier.get('TIER_ID'): found += [(*s[:2], tier.get('PARTICIPANT') or '', s[2]) for s in spans]
    assert sorted(found) == spoken(rows)
    labels = (tmp_path/'talk.txt').read_text(encoding='utf-8').split('\n')[:-1]
    assert [tuple(map(float, line.split('\t')[:2])) for line in labels] == [(r.start, r.end) for r in rows]
    assert {line.count('\t') for line in labels} == {2}
    cells = list(csv.DictReader(io.StringIO((tmp_path/'talk.csv').read_text(encoding='utf-8'))))
    assert [(float(c['start']), float(c['end'])) for c in cells] == [(r.start, r.end) for r in rows]
    assert not [c for c in cells if c['text'].startswith('=')]


@pytest.mark.parametrize('ending', [*LOSSLESS, 'srt', 'rttm'])
def test_times_are_rounded_to_the_millisecond(ending, tmp_path):
    rng = random.Random(0)
    rows = [Segment(a := i * 9 + rng.random(), a + rng.uniform(.002, 8), 'A', 'Hi') for i in range(300)]
    write_timeline(tmp_path/f'talk.{ending}', rows)
    want = [(round(r.start, 3), round(r.end, 3)) for r in rows]
    assert [(r.start, r.end) for r in read_timed(tmp_path/f'talk.{ending}')] == want


def test_doubt_is_shown_as_doubt(tmp_path):
    rows = [Segment(0, 1, text='Hi', answer=said(), unsure=True), Segment(1, 2, text='Ho', answer=said())]
    for ending in WRITERS:
        write_timeline(tmp_path/f'talk{ending}', rows)
        text = (tmp_path/f'talk{ending}').read_text(encoding='utf-8')
        if ending not in ('.json', '.csv'): assert text.count('joy') == 1 and ('not sure' in text or 'not_sure' in text)
    first, second = json.loads((tmp_path/'talk.json').read_text(encoding='utf-8'))['segments']
    assert (first['unsure'], second['unsure'], second['probabilities']['joy']) == (True, False, .8)


GRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 3
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 3
            text = "s"
    item [2]:
        class = "IntervalTier"
        name = "Anna - words"
        xmin = 0
        xmax = 3
        intervals: size = 3
        intervals [1]:
            xmin = 0.5
            xmax = 0.75
            text = "she"
        intervals [2]:
            xmin = 0.75
            xmax = 1.1
            text = "said ""no"""
        intervals [3]:
            xmin = 2.5
            xmax = 3
            text = "why"
'''
BROUGHT = {
    'a.srt': '1\n00:00:01,000 --> 00:00:02,500\n<i>Hi</i> there\n\n2\n00:00:03,000 --> 00:00:04,000\n[Ben]: Ho\n',
    'a.vtt': 'WEBVTT\n\nSTYLE\n::cue { color: red }\n\n00:01.000 --> 00:02.500 line:0\n<v Anna>Hi <00:02.000>there\n',
    'a.TextGrid': GRID,
    'a.json': json.dumps(dict(segments=[dict(start=0, end=1.5, text=' Hi.', words=[
        dict(word='Hi.', start=0, end=1, speaker='SPEAKER_01')]), dict(start=2, end=3, text='Ho', speaker='B')])),
    'a.ctm': ';; a comment\ntalk A 0.10 0.30 So 0.9\ntalk A 0.45 0.25 what\ntalk B 2.00 0.40 Hm\n',
    'a.rttm': 'SPKR-INFO t 1 <NA> <NA> <NA> unknown A <NA>\nSPEAKER t 1 0.5 1.0 <NA> <NA> A <NA> <NA>\n',
}
WANT = {
    'a.srt': [(1, 2.5, None, 'Hi there'), (3, 4, 'Ben', 'Ho')],
    'a.vtt': [(1, 2.5, 'Anna', 'Hi there')],
    'a.TextGrid': [(.5, 1.1, 'Anna', 'she said "no"'), (2.5, 3, 'Anna', 'why')],
    'a.json': [(0, 1.5, 'SPEAKER_01', 'Hi.'), (2, 3, 'B', 'Ho')],
    'a.ctm': [(.1, .7, 'A', 'So what'), (2, 2.4, 'B', 'Hm')],
    'a.rttm': [(.5, 1.5, 'A', None)],
}


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-be'])
@pytest.mark.parametrize('name', BROUGHT)
def test_what_is_brought_is_read(name, encoding, tmp_path):
    text = BROUGHT[name].replace('\n', '\r\n')
    if encoding == 'utf-16-be': text = '\ufeff' + text
    (tmp_path/name).write_bytes(text.encode(encoding))
    assert [(r.start, r.end, r.speaker, r.text) for r in read_timed(tmp_path/name)] == WANT[name]


@pytest.mark.parametrize('name', [n for n in BROUGHT if n != 'a.ctm'])
def test_the_content_tells_what_a_file_is(name, tmp_path):
    for other in ('talk.txt', 'talk.srt', 'talk'):
        (tmp_path/other).write_text(BROUGHT[name])
        assert [(r.start, r.end, r.speaker, r.text) for r in read_timed(tmp_path/other)] == WANT[name]


@pytest.mark.parametrize('name', BROUGHT)
def test_a_damaged_file_is_read_or_refused(name, tmp_path):
    "Cut off anywhere, or with a few bytes changed: nothing but a TamersError comes out."
    rng, data, path = random.Random(1), BROUGHT[name].encode(), tmp_path/name
    damaged = [data[:n] for n in range(0, len(data), 3)]
    for _ in range(150):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.choice(b'\0"[]{}<>-:,. 09\n\xff\xe9x')
        damaged.append(bytes(broken))
    for broken in damaged:
        path.write_bytes(broken)
        try: check_timed(read_timed(path), 3600., path)
        except TamersError as e: assert str(path) in str(e)


HOSTILE = {
    'a.srt': '00:00:01,000 --> 00:00:02,000\n' + '<v ' * 200_000,
    'b.srt': ' ' * 500_000 + '-->', 'c.srt': '\n' * 500_000 + '1:1', 'd.srt': '00:01 --> 00:02\n' + '{\\' * 200_000,
    'a.vtt': 'WEBVTT\n\n00:01.000 --> 00:02.000\n' + '<v ' * 100_000 + '<v' + ' ' * 200_000,
    'b.vtt': 'WEBVTT\n\n00:01.000 --> 00:02.000\n' + '[' * 200_000 + '(' + ' 1' * 100_000,
    'a.TextGrid': GRID + '"' * 300_001, 'b.TextGrid': GRID.replace('size = 2', 'size = ' + '9' * 300_000),
    'c.TextGrid': GRID.replace('size = 2', 'size = 999999999') + '\n' * 100_000,
    'a.json': '[' * 300_000, 'b.json': '{"segments": [{"start": 1' + '0' * 10_000 + '}]}', 'c.json': '[{"start": NaN}]',
    'a.ctm': 'talk 1 1e999 1 word', 'a.rttm': 'SPEAKER t 1 -1 1 <NA> <NA> A', 'b.ctm': 'talk 1',
}


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_files_cost_no_time(name, tmp_path):
    (tmp_path/name).write_text(HOSTILE[name])
    before = time.process_time()
    try: read_timed(tmp_path/name)
    except TamersError as e: assert name in str(e) and len(str(e)) < 1000
    assert time.process_time() - before < 5


def refused(path, text, problem, **how):
    path.write_text(text)
    with pytest.raises(TamersError, match=problem): read_timed(path, **how)


def test_what_is_wrong_is_named(tmp_path):
    refused(tmp_path/'a.srt', '1\n00:00:02,000 --> 00:00:01,000\nHi', r'a\.srt, line 2: ends at 1 s, before its start')
    refused(tmp_path/'a.srt', '1\n00:00:02,000 --> soon\nHi', "line 2: '00:00:02,000 --> soon' is no pair of times")
    refused(tmp_path/'a.json', '{"segments": [{"start": 0, "end": "x"}]}', "segment 1: 'x' is no time")
    refused(tmp_path/'a.ctm', 'a 1 0 1 Hi\nb 1 0 1 Ho', r'tells of 2 recordings \(a, b\); keep the lines of one')
    refused(tmp_path/'a.rttm', '', 'holds no segment')
    refused(tmp_path/'a.TextGrid', GRID.replace('0.75', '9'), 'before its start')
    refused(tmp_path/'a.TextGrid', GRID, "no tier 'Ben'; it has 'phones', 'Anna - words'", tier='Ben')
    refused(tmp_path/'a.TextGrid', GRID.replace('IntervalTier', 'TextTier', 1), 'line .* stands where')
    refused(tmp_path/'a.TextGrid', '"Praat chronological TextGrid text file"\n0 3', 'not a TextGrid as Praat saves it')
    refused(tmp_path/'a.eaf', '<!DOCTYPE x [<!ENTITY a "b">]>', 'not a transcript with times')
    with pytest.raises(TamersError, match='cannot be read'): read_timed(tmp_path/'gone.srt')
    with pytest.raises(TamersError, match='a folder'): read_timed(tmp_path)


def test_the_emotions_of_a_timeline_are_not_read_as_words(tmp_path):
    "A timeline without words, written for Praat, has nothing to read."
    write_timeline(tmp_path/'a.TextGrid', [Segment(0, 1, answer=said())])
    with pytest.raises(TamersError, match='holds no segment'): read_timed(tmp_path/'a.TextGrid')
    write_timeline(tmp_path/'a.srt', [Segment(0, 1, answer=said(), text='Hi')])
    assert read_timed(tmp_path/'a.srt') == [Segment(0, 1, text='Hi')]


def test_a_segment_has_the_speaker_who_speaks_longest_in_it():
    turns = [Segment(0, .4, 'A'), Segment(.3, 1, 'B'), Segment(1, 1.5, 'A'), Segment(0, .01, 'C'), Segment(9, 10, 'C')]
    rows = [Segment(0, 1.2, text='both'), Segment(3, 4, text='nobody'), Segment(0, .2, text='A')]
    assert [r.speaker for r in join_speakers(rows, turns)] == ['B', None, 'A']
    slow = lambda row: max({t.speaker for t in turns}, key=lambda s: sum(
        max(0, min(t.end, row.end) - max(t.start, row.start)) for t in turns if t.speaker == s))
    rng = random.Random(0)
    turns = [Segment(a := rng.uniform(0, 90), a + rng.uniform(0, 9), rng.choice('ABC')) for _ in range(300)]
    rows = [Segment(a := rng.uniform(0, 90), a + rng.uniform(1, 9)) for _ in range(100)]
    assert [r.speaker for r in join_speakers(rows, turns)] == [slow(r) for r in rows]


def test_words_are_grouped_up_to_a_pause_and_a_length():
    words = [Segment(i / 2, i / 2 + .4, text=str(i)) for i in range(100)]
    groups = group_words(words)
    assert ' '.join(g.text for g in groups).split() == [w.text for w in words]
    assert all(g.end - g.start <= 12 for g in groups) and len(groups) == 5


def test_a_transcript_of_another_recording_is_refused():
    rows = [Segment(0, 1), Segment(.5, 60.4)]
    note, = check_timed(rows, 60.)
    assert note == 'transcript: segments that begin before another has ended: 1, the first at 0.5 s'
    problem = 'goes on until 60.4 s, and the recording is 30.0 s long'
    with pytest.raises(TamersError, match=problem): check_timed(rows, 30.)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    (tmp_path/'a.srt').write_text('before')
    with pytest.raises(TamersError): write_timeline(tmp_path/'a.srt', [Segment(2, 1, text='Hi')])
    with pytest.raises(TamersError, match='no format of a timeline'): write_timeline(tmp_path/'a.doc', [Segment(0, 1)])
    assert [p.name for p in tmp_path.iterdir()] == ['a.srt'] and (tmp_path/'a.srt').read_text() == 'before'
