"Decoding: every format, every way a file can be broken; the log-mel against transformers over many inputs."
import av
import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTFeatureExtractor

from tamers.data.audio import MIN_SAMPLES, SAMPLE_RATE, load_audio, probe, read_blocks
from tamers.data.logmel import log_mel, num_frames, pad_waves
from tamers.core import TamersError


def tone(rate, seconds=1.0, hz=220, amplitude=0.3):
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def write_av(path, codec, channels, rate=48_000, layout='stereo', fmt='fltp', **kw):
    "Encode `channels` (C, N) in frames of 20 ms, as a real encoder would be fed."
    with av.open(path if kw else str(path), 'w', **kw) as c:
        stream = c.add_stream(codec, rate=rate, layout=layout, format=fmt)
        packets = []
        for i in range(0, channels.shape[1], 960):
            x = np.ascontiguousarray(channels[:, i:i + 960], dtype=np.float32)
            if not fmt.endswith('p'): x = x.T.reshape(1, -1).copy()
            frame = av.AudioFrame.from_ndarray(x, format=fmt, layout=layout)
            frame.sample_rate, frame.pts = rate, i
            packets += stream.encode(frame)
        for p in packets + stream.encode(None): c.mux(p)


def check_tone(path, seconds=1.0, amplitude=0.3, tolerance=0.01):
    y = load_audio(path)
    middle = y[4000:12_000]
    assert y.dtype == np.float32 and y.ndim == 1 and abs(len(y) / SAMPLE_RATE - seconds) < 0.06
    assert np.abs(np.fft.rfft(middle, SAMPLE_RATE)).argmax() == 220
    assert abs(np.sqrt(2 * (middle**2).mean()) - amplitude) < tolerance
    assert abs(probe(path) - seconds) < 0.06


@pytest.mark.parametrize('rate', [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize('channels', [1, 2, 6])
def test_wav_rates_and_channels(tmp_path, rate, channels):
    soundfile.write(tmp_path / 'a.wav', np.stack([tone(rate)] * channels, 1), rate)
    check_tone(tmp_path / 'a.wav')


@pytest.mark.parametrize('subtype', ['PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'MS_ADPCM'])
def test_wav_sample_formats(tmp_path, subtype):
    soundfile.write(tmp_path / 'a.wav', tone(16_000), 16_000, subtype=subtype)
    check_tone(tmp_path / 'a.wav')


@pytest.mark.parametrize('name', ['a.flac', 'a.mp3', 'a.ogg', 'a.opus', 'A.WAV', 'a.aiff'])
def test_soundfile_formats(tmp_path, name):
    kw = dict(format='OGG', subtype='OPUS') if name.endswith('opus') else {}
    soundfile.write(tmp_path / name, tone(48_000), 48_000, **kw)
    check_tone(tmp_path / name)


@pytest.mark.parametrize('fork', [b'\0\x05\x16\x07', b'\0\x05\x16\x07' + bytes(4092), b''],
                         ids=['short', 'long', 'empty'])
@pytest.mark.parametrize('name', ['a.mp3', 'tagged.mp3', 'A.MP3', 'a.wav', 'a.flac', 'a.ogg', 'a.aiff'])
def test_apple_double_file_beside_a_clip(tmp_path, name, fork):
    soundfile.write(tmp_path / name, tone(48_000), 48_000)
    if name == 'tagged.mp3':
        (tmp_path / name).write_bytes(b'ID3\x03\0\0\0\0\x07\x68' + bytes(1000) + (tmp_path / name).read_bytes())
    alone = load_audio(tmp_path / name), probe(tmp_path / name)
    (tmp_path / f'._{name}').write_bytes(fork)
    np.testing.assert_array_equal(load_audio(tmp_path / name), alone[0])
    assert probe(tmp_path / name) == alone[1]


@pytest.mark.parametrize('name, codec, layout, fmt', [
    ('a.m4a', 'aac', 'mono', 'fltp'), ('a.mp4', 'aac', 'stereo', 'fltp'), ('b.mp4', 'aac', '5.1', 'fltp'),
    ('a.mkv', 'aac', '5.1', 'fltp'), ('a.mov', 'pcm_f32le', 'stereo', 'flt'), ('a.webm', 'libopus', 'stereo', 'flt')])
def test_containers(tmp_path, name, codec, layout, fmt):
    n = {'mono': 1, 'stereo': 2, '5.1': 6}[layout]
    write_av(tmp_path / name, codec, np.stack([tone(48_000)] * n), layout=layout, fmt=fmt)
    check_tone(tmp_path / name, tolerance=0.02)


def test_centre_channel_of_5_1_is_averaged(tmp_path):
    "A voice in the centre alone is a sixth as loud, not 0.707 of it as in FFmpeg's downmix."
    channels = np.zeros((6, 48_000), np.float32)
    channels[2] = tone(48_000)
    write_av(tmp_path / 'a.mp4', 'aac', channels, layout='5.1')
    check_tone(tmp_path / 'a.mp4', amplitude=0.3 / 6, tolerance=0.005)


def test_loud_floats_are_kept(tmp_path):
    soundfile.write(tmp_path / 'a.wav', tone(16_000, amplitude=3.0), 16_000, subtype='FLOAT')
    check_tone(tmp_path / 'a.wav', amplitude=3.0, tolerance=0.02)


def test_no_duration_in_the_header(tmp_path):
    "A recording written into a pipe has none: `probe` decodes."
    class Pipe:
        def __init__(self, f): self.f = f
        def write(self, b): return self.f.write(b)
    with open(tmp_path / 'a.webm', 'wb') as f:
        write_av(Pipe(f), 'libopus', np.stack([tone(48_000)] * 2), fmt='flt', format='webm')
    with av.open(str(tmp_path / 'a.webm')) as c: assert not c.duration and not c.streams.audio[0].duration
    check_tone(tmp_path / 'a.webm', tolerance=0.02)


def test_flac_of_unknown_length(tmp_path):
    soundfile.write(tmp_path / 'a.flac', tone(16_000), 16_000)
    b = bytearray((tmp_path / 'a.flac').read_bytes())
    b[21] &= 0xF0                                     # the 36 bits of "total samples" in STREAMINFO
    b[22:26] = bytes(4)
    (tmp_path / 'a.flac').write_bytes(b)
    check_tone(tmp_path / 'a.flac')


def patched_wav(path, riff_size):
    soundfile.write(path, tone(16_000), 16_000)
    b = bytearray(path.read_bytes())
    b[4:8] = riff_size(len(b) - 8).to_bytes(4, 'little')
    path.write_bytes(b)


@pytest.mark.parametrize('riff_size', [lambda n: 0xFFFFFFFF, lambda n: 0, lambda n: n + 1],
                         ids=['streamed', 'zero', 'pad byte'])
def test_wav_headers_that_are_only_careless(tmp_path, riff_size):
    patched_wav(tmp_path / 'a.wav', riff_size)
    check_tone(tmp_path / 'a.wav')


def test_wav_header_promises_more(tmp_path):
    patched_wav(tmp_path / 'a.wav', lambda n: n + 2)
    for f in load_audio, probe:
        with pytest.raises(TamersError, match=r'a\.wav: truncated: its header promises 32046 bytes and there'):
            f(tmp_path / 'a.wav')


@pytest.mark.parametrize('fork', [False, True], ids=['alone', 'with AppleDouble'])
@pytest.mark.parametrize('name', ['a.mp3', 'a.flac', 'a.ogg', 'a.mp4', 'a.wav'])
def test_truncated(tmp_path, name, fork):
    path = tmp_path / name
    if fork: (tmp_path / f'._{name}').write_bytes(b'\0\x05\x16\x07')
    if name == 'a.mp4': write_av(path, 'aac', np.stack([tone(48_000, 3)] * 2))
    else: soundfile.write(path, tone(16_000, 3), 16_000)
    b = path.read_bytes()
    path.write_bytes(b[:len(b) // 2])
    with pytest.raises(TamersError, match=name): load_audio(path)


def test_truncated_mp4_with_its_index_in_front(tmp_path):
    path = tmp_path / 'a.mp4'
    noise = np.random.default_rng(0).standard_normal((2, 144_000)) * 0.1
    write_av(str(path), 'aac', noise, options={'movflags': 'faststart'})
    b = path.read_bytes()
    assert b.index(b'moov') < b.index(b'mdat')
    path.write_bytes(b[:len(b) // 2])
    with pytest.raises(TamersError, match='a.mp4: (truncated|cannot be decoded)'): load_audio(path)


@pytest.mark.parametrize('suffix', 'wav flac mp3 ogg opus aiff mp4 m4a webm mkv mov aac'.split())
@pytest.mark.parametrize('content', ['noise', 'text', 'zeros'])
def test_not_audio(tmp_path, suffix, content):
    path = tmp_path / f'a.{suffix}'
    path.write_bytes(dict(noise=np.random.default_rng(1).bytes(20_000), text=b'not a sound ' * 2000,
                          zeros=bytes(20_000))[content])
    for f in load_audio, probe:
        with pytest.raises(TamersError, match=f'a.{suffix}: '): f(path)


def test_folder_is_no_file(tmp_path):
    for f in load_audio, probe:
        with pytest.raises(TamersError, match='no such file'): f(tmp_path)


def test_corrupt_middle_of_an_mp4(tmp_path):
    path = tmp_path / 'a.mp4'
    write_av(path, 'aac', np.random.default_rng(0).standard_normal((2, 144_000)) * 0.1)
    b = bytearray(path.read_bytes())
    i = b.index(b'mdat') + 4000
    b[i:i + 10_000] = np.random.default_rng(0).bytes(10_000)
    path.write_bytes(b)
    with pytest.raises(TamersError, match='a.mp4: cannot be decoded'): load_audio(path)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_one_sample_that_is_not_finite(tmp_path, value):
    x = tone(16_000)
    x[77] = value
    soundfile.write(tmp_path / 'a.wav', x, 16_000, subtype='FLOAT')
    with pytest.raises(TamersError, match='1 samples that are not finite'): load_audio(tmp_path / 'a.wav')


@pytest.mark.parametrize('n, rate, ok', [(399, 16_000, False), (400, 16_000, True), (1102, 44_100, True),
                                         (1080, 44_100, False), (200, 8_000, True)])
def test_shortest_clip(tmp_path, n, rate, ok):
    soundfile.write(tmp_path / 'a.wav', tone(rate)[:n], rate)
    for f in load_audio, probe:
        if ok: f(tmp_path / 'a.wav')
        else:
            with pytest.raises(TamersError, match='less than one analysis window'): f(tmp_path / 'a.wav')


@pytest.mark.parametrize('rate', [8_000, 16_000, 44_100])
@pytest.mark.parametrize('name', ['a.wav', 'a.mp3', 'a.mp4'])
def test_max_seconds_is_the_start(tmp_path, rate, name):
    x = np.random.default_rng(0).standard_normal(2 * rate) * 0.1
    if name == 'a.mp4': write_av(tmp_path / name, 'aac', np.stack([x, x]), rate=rate)
    else: soundfile.write(tmp_path / name, x, rate)
    start, whole = load_audio(tmp_path / name, max_seconds=0.7), load_audio(tmp_path / name)
    assert len(start) == 11_200 and len(whole) >= 2 * 16_000 - 1
    np.testing.assert_allclose(start, whole[:11_200], atol=1e-5)
    np.testing.assert_array_equal(load_audio(tmp_path / name, max_seconds=60), whole)


@pytest.mark.parametrize('name', ['a.wav', 'a.mp4'])
def test_max_seconds_decodes_no_more(tmp_path, name, monkeypatch):
    import tamers.data.audio as audio
    if name == 'a.mp4': write_av(tmp_path / name, 'aac', np.stack([tone(48_000, 20)] * 2))
    else: soundfile.write(tmp_path / name, tone(48_000, 20), 48_000)
    read, seen = audio.read_blocks, []
    def spy(path, seconds):
        for block in read(path, seconds):
            seen.append(len(block[0]))
            yield block
    monkeypatch.setattr(audio, 'read_blocks', spy)
    assert len(load_audio(tmp_path / name, max_seconds=1)) == 16_000
    assert len(seen) == 1 and seen[0] <= 1.13 * 48_000


@pytest.mark.parametrize('name', ['a.mp3', 'a.flac', 'a.mp4'])
def test_blocks_are_the_whole(tmp_path, name):
    "Whatever their length, blocks hold the very samples of the whole."
    x = np.random.default_rng(0).standard_normal((2, 3 * 44_100)) * 0.1
    if name == 'a.mp4': write_av(tmp_path / name, 'aac', x, rate=44_100)
    else: soundfile.write(tmp_path / name, x.T, 44_100)
    (whole, rate, channels), = read_blocks(tmp_path / name)
    assert (rate, channels) == (44_100, 2) and abs(len(whole) - 3 * 44_100) < 3000
    for seconds in (0.1, 1., 60.):
        blocks = [wave for wave, _, _ in read_blocks(tmp_path / name, seconds)]
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        assert all(seconds * rate - 1 < len(wave) < (seconds + 0.03) * rate for wave in blocks[:-1])


@pytest.mark.parametrize('seconds', [None, 0.5, 10.])
def test_a_block_of_a_truncated_file_holds_nothing_that_was_not_read(tmp_path, seconds):
    soundfile.write(tmp_path / 'a.mp3', np.random.default_rng(0).standard_normal(3 * 16_000) * 0.1, 16_000)
    b = (tmp_path / 'a.mp3').read_bytes()
    (tmp_path / 'a.mp3').write_bytes(b[:len(b) // 2])
    with pytest.raises(TamersError, match='a.mp3: truncated: 1.* s of 3.00 s'):
        for wave, _, _ in read_blocks(tmp_path / 'a.mp3', seconds): assert np.abs(wave).max() > 0.01


def test_real_meld_clips(shared):
    clips = sorted((shared / 'data/meld-clips').rglob('*.wav'))
    assert len(clips) == 6
    for path in clips:
        y = load_audio(path)
        assert abs(len(y) / SAMPLE_RATE - probe(path)) < 1e-3 and 0.01 < np.abs(y).max() <= 1.0


# ---- log-mel ----

def theirs(clips, **kw):
    extract = ASTFeatureExtractor(**kw)
    return torch.cat([extract(c, sampling_rate=SAMPLE_RATE, return_tensors='pt')['input_values'] for c in clips])


def test_log_mel_over_lengths_and_levels():
    rng = np.random.default_rng(0)
    lengths = [400, 401, 559, 560, 561, 799, 1600, 16_000, 163_840, 164_079, 164_080, 164_240, 200_000]
    lengths += rng.integers(400, 80_000, 12).tolist()
    clips = [10.0 ** rng.uniform(-6, 1) * rng.standard_normal(n) + rng.choice([0, 0.5]) for n in lengths]
    clips = [c.astype(np.float32) for c in clips]
    error = (log_mel(clips) - theirs(clips)).abs().max()
    assert error < 1e-5, error


def test_log_mel_over_signals():
    t = np.arange(16_000) / SAMPLE_RATE
    clips = [np.zeros(16_000), np.full(16_000, -0.9), np.full(401, 1e-4), np.sign(np.sin(600 * t)),
             8 * np.sign(np.sin(2000 * t)), np.clip(3 * np.sin(900 * t), -1, 1),
             np.sin(2 * np.pi * 1000 * t), np.eye(1, 16_000, 8000)[0], np.r_[np.zeros(8000), np.sin(1e4 * t[:8000])],
             np.sin(2 * np.pi * (50 * t + 3900 * t**2)), t - 0.5]
    clips = [c.astype(np.float32) for c in clips]
    error = (log_mel(clips) - theirs(clips)).abs().max()
    assert error < 1e-5, error


@pytest.mark.parametrize('kw', [dict(max_length=128, num_mel_bins=64), dict(max_length=300, mean=-5.0, std=2.0)])
def test_log_mel_with_other_settings(kw):
    clips = [np.random.default_rng(i).standard_normal(n).astype(np.float32) for i, n in enumerate([400, 9_000, 70_000])]
    assert (log_mel(clips, **kw) - theirs(clips, **kw)).abs().max() < 1e-5


def test_what_lies_in_the_padding_does_not_matter():
    waves, lengths = pad_waves([np.ones(5000), np.random.default_rng(0).standard_normal(20_000)])
    dirty = waves.clone()
    dirty[0, 5000:] = 7.0
    torch.testing.assert_close(log_mel(waves, lengths), log_mel(dirty, lengths), rtol=0, atol=0)


def test_waves_of_any_kind_are_left_as_they_were():
    wave = (0.1 * np.random.default_rng(0).standard_normal(9_000)).astype(np.float32)
    kept, truth = wave.copy(), log_mel([wave])
    locked = np.frombuffer(wave.tobytes(), np.float32)
    for other in (wave, wave[::-1].copy()[::-1], wave.astype(np.float64), locked, torch.from_numpy(wave),
                  wave.tolist()):
        torch.testing.assert_close(log_mel([other]), truth, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_mel(torch.from_numpy(wave)[None]), truth, rtol=0, atol=0)
    assert (wave == kept).all()
    for wrong in (wave, wave[None, None]):
        with pytest.raises(ValueError, match='one row of samples'): log_mel(wrong)


def test_frames_and_shapes():
    waves, lengths = pad_waves([np.zeros(1)[::-1], np.zeros(3)])
    assert waves.shape == (2, MIN_SAMPLES) and lengths.tolist() == [400, 400]
    assert log_mel(waves, lengths).shape == (2, 1024, 128) and num_frames(lengths, 1024).tolist() == [1, 1]
