"FFmpeg reads the file that it is given: no address in a name is asked, no playlist is followed."
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
import av
import numpy as np
import pytest
from tamers.core import TamersError
from tamers.data.audio import Clip, load_audio, probe


def film(path):
    "Two seconds of a tone, in the container that the ending asks for."
    tone = (9000*np.sin(np.arange(32_000)*0.1)).astype('int16')[None]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mp2', rate=16_000)
        frame = av.AudioFrame.from_ndarray(tone, format='s16', layout='mono')
        frame.rate = 16_000
        for part in (frame, None): container.mux(stream.encode(part))
    return path


@pytest.mark.parametrize('as_clip', [False, True])
def test_a_playlist_leads_nowhere(tmp_path, as_clip):
    outside = film(tmp_path/'outside.ts')
    assert len(load_audio(outside)) == pytest.approx(32_000, abs=1200)
    (tmp_path/'in').mkdir()
    lines = '#EXTM3U', '#EXT-X-TARGETDURATION:2', '#EXTINF:2,', str(outside), '#EXT-X-ENDLIST', ''
    (playlist := tmp_path/'in'/'list.m3u8').write_text('\n'.join(lines))
    given = Clip('list.m3u8', playlist.read_bytes()) if as_clip else playlist
    for read in load_audio, probe:
        with pytest.raises(TamersError, match='list.m3u8: cannot be decoded'): read(given)


def test_a_name_like_an_address_is_a_name(tmp_path, monkeypatch):
    asked = []
    class Asked(BaseRequestHandler):
        def handle(self): asked.append(self.client_address)
    with TCPServer(('127.0.0.1', 0), Asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        name = f'http:127.0.0.1:{server.server_address[1]}'
        monkeypatch.chdir(tmp_path)
        film(tmp_path/'tone.ts').rename(name)
        try: heard = len(load_audio(name))
        finally: server.shutdown()
    assert not asked and heard == pytest.approx(32_000, abs=1200)
