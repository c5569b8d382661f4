"The page: what it answers over HTTP, what it refuses, what it lets a browser load; and a browser that uses it."
import html
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
import numpy as np
import pytest
import soundfile as sf
from tamers.commands import AppConfig, tamers_app
from tamers.pages import app as module
from tamers.pages.app import examples_of, launch, make_app, respond
from tamers.core import EMOTIONS, TamersError
from tamers.data.tables import csv_rows
from tamers.data.demo import demo_corpus
from tamers.prediction.recognizer import load

try: module.need_gradio()   # before anybody else imports it
except TamersError as e: pytest.skip(str(e), allow_module_level=True)

SAID = 'So, shut up about my brother!'
EVIL = ('<img src=x onerror="document.title=\'broken\'"> ${document.title="broken"} {{document.title="broken"}} '
        '<script>document.title="broken"</script>')


@pytest.fixture(scope='module')
def model(demo): return load(demo, device='cpu')


@pytest.fixture(scope='module')
def clip(): return demo_corpus()/'dev'/'dia0_utt5.wav'


@pytest.fixture(scope='module')
def address(model, tmp_path_factory):
    "The page, served; of at most 1 MB and 30 seconds."
    folder = tmp_path_factory.mktemp('examples')
    app = make_app(model, folder=folder, max_minutes=.5)
    yield launch(app, folder=folder, block=False, max_mb=1)
    app.close(verbose=False)


@pytest.fixture(scope='module')
def client(address):
    from gradio_client import Client
    return Client(address, verbose=False)


def ask(client, audio, text):
    from gradio_client import handle_file
    return client.predict(audio and handle_file(audio), text, api_name='/answer')


def test_it_listens_on_this_machine_alone(address):
    assert address.startswith('http://127.0.0.1:')
    if not sys.platform.startswith('linux'): pytest.skip('only Linux answers for 127.0.0.2, too')
    with socket.socket() as s:   # a server that listens on every address would be reached here
        s.settimeout(3)
        assert s.connect_ex(('127.0.0.2', int(address.rstrip('/').rsplit(':')[-1]))) != 0


def test_answers_over_http(client, clip):
    said, *bars, sound, place = ask(client, clip, SAID)
    assert '>anger <small>' in said and 'voice and words' in said
    for bar in bars:
        assert {c['label'] for c in bar['confidences']} == set(EMOTIONS)
        assert sum(c['confidence'] for c in bar['confidences']) == pytest.approx(1)
    assert sound['type'] == 'matplotlib' and sound['plot'].startswith('data:image/')
    assert '<svg' in place and 'Nearest of 252 utterances' in place and place.count('similarity') == 5
    said, voice, words, both, sound, place = ask(client, clip, '')
    assert 'the voice alone' in said and 'never was in training' in said
    assert voice['confidences'] and words['label'] == both['label'] == 'not given'
    said, voice, words, both, sound, place = ask(client, None, SAID)
    assert 'the words alone' in said and sound is None and '<svg' in place
    assert words['confidences'] and voice['label'] == both['label'] == 'not given'


def test_what_it_refuses(client, tmp_path):
    (tmp_path/'bad.wav').write_text('no sound')
    for name, n in (('long.wav', 16000*31), ('zero.wav', 0), ('quiet.wav', 16000)):
        sf.write(tmp_path/name, np.zeros(n), 16000)
    for name, words in (('bad.wav', 'cannot be decoded as audio'), ('long.wav', 'lasts 1 minutes; this page takes 0.5'),
                        ('zero.wav', 'less than one analysis window'), ('quiet.wav', 'silence')):
        said, *bars, sound, place = ask(client, tmp_path/name, None)
        told = html.unescape(said.split('role="alert">')[1])
        assert told.startswith(f'{name}: ') and words in told and '/' not in told.split('(')[0]
        assert not any(bars) and sound is None and place == ''
    assert 'nothing to answer from' in ask(client, None, '  ')[0]


def test_a_large_file_is_refused(address, tmp_path):
    "By the server, whatever a page's own check says."
    (tmp_path/'large.wav').write_bytes(bytes(2*2**20))
    from gradio_client import Client, handle_file
    with pytest.raises(Exception, match='(?i)size|large|413'):
        Client(address, verbose=False).predict(handle_file(tmp_path/'large.wav'), '', api_name='/answer')


def test_a_long_text_is_refused_before_any_work(model, clip, client, monkeypatch):
    def work(*_, **__): raise AssertionError('worked on')
    for name in ('probe', 'load_audio'): monkeypatch.setattr(module, name, work)
    monkeypatch.setattr(type(model), 'predict', work)
    said, *rest = respond(model, str(clip), 'word ' * 4001)
    assert 'the text has 20005 characters, and this page takes 20000' in said and not any(rest)
    assert 'the text has 10000000 characters' in ask(client, None, 'x' * 10**7)[0]


def reply_to(address, method, path, body=None, **headers):
    "Status, headers and body of the reply to a request that may tell any Host and Origin."
    port = int(address.rstrip('/').rsplit(':')[-1])
    line = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    line.request(method, path, body, {k.replace('_', '-'): v.format(port=port) for k, v in headers.items()})
    reply = line.getresponse()
    return reply.status, reply.headers, reply.read()


@pytest.mark.parametrize('host', ['127.0.0.1:{port}', 'localhost:{port}', 'localhost:9000', '[::1]:{port}'])
def test_its_own_browser_is_answered(address, host):
    assert reply_to(address, 'GET', '/', Host=host)[0] == reply_to(address, 'GET', '/', Host=host,
                                                                   Origin=f'http://{host}')[0] == 200


@pytest.mark.parametrize('headers', [
    dict(Host='evil.com'), dict(Host='evil.com:{port}', Origin='http://evil.com:{port}'),
    dict(Host='127.0.0.1.evil.com'), dict(Host='192.168.1.2:{port}'),
    dict(Host='localhost:{port}', Origin='http://evil.com'),
    dict(Host='localhost:{port}', Origin='http://localhost:3000'), dict(Host='localhost:{port}', Origin='null')])
def test_other_pages_of_the_browser_are_refused(address, headers, tmp_path):
    "A name that was made to mean this machine, and a form on another page: no answer, and no file is kept."
    kept = lambda: set(Path(os.environ['GRADIO_TEMP_DIR']).rglob('stranger*'))
    form = '--x\r\nContent-Disposition: form-data; name="files"; filename="stranger.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    for method, path, body in (('GET', '/', None), ('POST', '/gradio_api/upload', form)):
        kind = 'multipart/form-data; boundary=x'
        status, _, told = reply_to(address, method, path, body, **headers, Content_Type=kind)
        assert status == 403 and b'browser of its own machine' in told and not kept()


def test_files_of_this_machine_stay_where_they_are(address, model):
    for path in ('/etc/hostname', str(model.path), str(Path(__file__))):
        with pytest.raises(urllib.error.HTTPError) as e: urllib.request.urlopen(f'{address}gradio_api/file={path}')
        assert e.value.code in (403, 404)


def test_the_policy_names_this_server_alone(address):
    with urllib.request.urlopen(address) as reply: headers, page = reply.headers, reply.read().decode()
    policy = headers['content-security-policy']
    assert "default-src 'self'" in policy and 'http' not in policy and '*' not in policy
    assert headers['x-content-type-options'] == 'nosniff'
    config = json.loads(re.search(r'window\.gradio_config = (\{.*?\});', page)[1])
    assert not config['analytics_enabled'] and config.get('is_colab') is False
    assert 'fonts.googleapis' not in config.get('theme', '')


def test_text_is_escaped(model, clip, tmp_path):
    (bad := tmp_path/'<b>"x".wav').write_text('no sound')
    for args in ((str(clip), EVIL), (None, EVIL), (str(bad), EVIL)):
        said, *_, place = respond(model, *args)
        made = said + place
        assert '<script' not in made and 'src=x' not in made and '<b>"x' not in made


@pytest.mark.parametrize('which', ['demo', 'shipped'])
def test_each_example_has_an_answer(which, model, tmp_path):
    if which == 'shipped': model = load(device='cpu')
    named = examples_of(model, tmp_path)
    rows = list(named.values())
    assert len(rows) == 6 and any(a is None for a, _ in rows) and any(not t for _, t in rows)
    assert all(text in name for name, (_, text) in named.items())
    assert list(named)[3:] == ['Run, the neighbour has a gun! (sound alone)', "I can't believe it! (words alone)",
                               'A tune (sound alone)']
    found = [respond(model, a, t)[0] for a, t in rows]
    assert all('role="alert"' not in said for said in found) and 'sounds unlike' in found[-1]
    assert [re.search(r'tm-answer">(?:guess: )?(\w+)', said)[1] for said in found][:3] == ['anger', 'joy', 'surprise']
    assert re.search(r'tm-answer">guess: \w+ <small>by', found[-1]), 'a tune gets no percentage'


def test_the_lines_are_those_of_the_corpus():
    rows = csv_rows(demo_corpus()/'dev_sent_emo.csv', ('Utterance',))
    lines = {f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}": row['Utterance'] for _, row in rows}
    assert all(lines[id] == line for id, line, _ in module.DEMO_LINES if id)


def test_a_model_brings_its_own_examples(model, clip, tmp_path, monkeypatch):
    (tmp_path/'run'/'examples').mkdir(parents=True)
    shutil.copy(clip, tmp_path/'run'/'examples'/'mine.wav')
    (tmp_path/'run'/'examples'/'examples.csv').write_text(f'audio,text\nmine.wav,"{SAID}"\n')
    monkeypatch.setattr(model, 'path', tmp_path/'run'/'best.pt')
    (tmp_path/'out').mkdir()
    (name, (path, text)), = examples_of(model, tmp_path/'out').items()
    assert name == text == SAID and Path(path).read_bytes() == clip.read_bytes() and Path(path).parent == tmp_path/'out'


def test_without_known_utterances(model, clip, monkeypatch):
    monkeypatch.setattr(model, 'known', None)
    monkeypatch.setattr(model, 'familiar', {})
    said, *_, place = respond(model, str(clip), SAID)
    assert 'tm-answer' in said and 'knows no utterances' in place and 'could not be checked' in said


def test_a_taken_port_is_told(model, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        port = s.getsockname()[1]
        app = make_app(model, folder=tmp_path)
        with pytest.raises(TamersError, match=f'--port {port}: cannot be listened on'):
            launch(app, folder=tmp_path, port=port, block=False)


def test_settings():
    with pytest.raises(TamersError, match='--port 99999: must be at most 65535'): AppConfig(port=99999)
    with pytest.raises(TamersError, match='--max-minutes 0'): AppConfig(max_minutes=0.)


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit) as e: tamers_app(['--no-browser'])
    assert e.value.code == 2 and "pip install 'tamers[app]'" in capsys.readouterr().err


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM'])
def test_the_command_serves_until_it_is_stopped(clip, tmp_path, name):
    "And then no voice that was uploaded is left on the disk."
    import signal
    from gradio_client import Client, handle_file
    code = 'from tamers.commands import tamers_app; tamers_app()'
    command = [sys.executable, '-c', code, '--no-browser', '--device', 'cpu']
    env = {k: v for k, v in os.environ.items() if k != 'GRADIO_TEMP_DIR'} | dict(GRADIO_ANALYTICS_ENABLED='True',
                                                                                         TMPDIR=str(tmp_path))
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)   # a shell's background job would ignore it
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=listen)
    line = p.stdout.readline()
    try:
        at = re.search(r'http://127\.0\.0\.1:\d+/', line)[0]
        with urllib.request.urlopen(at) as reply:
            assert reply.status == 200 and b'"analytics_enabled":false' in reply.read().replace(b': ', b':')
        Client(at, verbose=False).predict(handle_file(clip), SAID, api_name='/answer')
        assert list(tmp_path.rglob(clip.name))
    finally:
        p.send_signal(getattr(signal, name))
        _, err = p.communicate(timeout=60)
    assert 'Traceback' not in err and not list(tmp_path.rglob(clip.name))


# ---- in a browser

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')


@pytest.fixture(scope='module')
def browser():
    "Headless Chromium, by playwright: its own or the system's; with a microphone that hears a made sound."
    api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed: pip install playwright')
    flags = ['--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream']
    if hasattr(os, 'geteuid') and os.geteuid() == 0: flags.append('--no-sandbox')
    with api.sync_playwright() as p:
        here = [None, *filter(None, map(shutil.which, BROWSERS))]
        for path in here:
            try: found = p.chromium.launch(executable_path=path, args=flags)
            except api.Error: continue
            yield found
            found.close()
            return
        pytest.skip('no Chromium: playwright install chromium, or put chromium on the PATH')


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=['desktop', 'phone'])
def page(browser, address, request):
    "The page in a fresh browser; no request may leave for another address, and no script may fail."
    context = browser.new_context(viewport=dict(zip(('width', 'height'), request.param)), permissions=['microphone'])
    page = context.new_page()
    asked, broken = [], []
    page.on('request', lambda r: asked.append(r.url))
    page.on('pageerror', lambda e: broken.append(str(e)))
    page.goto(address)
    page.wait_for_selector('#go', timeout=60_000)
    yield page
    outside = [u for u in asked if not u.startswith((address, 'data:', 'blob:'))]
    assert page.title() == 'TAMERS' and page.evaluate('document.documentElement.scrollWidth') <= request.param[0]
    context.close()
    assert len(asked) > 10 and not outside and not broken


def upload(page, path):
    page.set_input_files('#voice input[type=file]', str(path))
    there = '#voice button[aria-label="Clear"], #voice audio, #voice #waveform'
    page.wait_for_selector(there, state='attached', timeout=30_000)


def answered(page, words):
    "Wait until the answer holds some words; its text."
    from playwright.sync_api import TimeoutError
    said = 'w => document.querySelector("#answer").innerText.includes(w)'
    try: page.wait_for_function(said, arg=words, timeout=120_000)
    except TimeoutError: pytest.fail(f'the page never said {words!r}, but: {page.inner_text("body")}')
    return page.inner_text('#answer')


def test_upload_transcript_prediction_and_a_bad_file(page, clip, tmp_path):
    assert page.locator('.tm-after').count() == 3 and not page.locator('.tm-after:visible').count()
    ways = page.locator('#voice .source-selection button')
    named = 'all => all.map(b => getComputedStyle(b, "::after").content)'
    assert ways.evaluate_all(named) == ['"Upload"', '"Record"']
    ends = [x['y'] + x['height'] for x in (page.locator('#voice').bounding_box(), ways.last.bounding_box())]
    assert ends[1] <= ends[0] and ways.last.bounding_box()['width'] > 60
    upload(page, clip)
    page.fill('#words textarea', SAID)
    page.click('#go')
    assert answered(page, 'by voice and words').startswith('anger')
    assert all(e in page.inner_text('#bars') for e in EMOTIONS) and page.locator('#bars meter').count() == 21
    assert page.locator('.tm-after:visible').count() == 3 and 'dia0_utt' not in page.inner_text('#place')
    assert page.locator('#place svg circle').count() == 252 and page.locator('#place svg text').count() == 1
    picture = '(() => {const i = document.querySelector("#sound img"); return i.complete && i.naturalWidth})()'
    assert page.evaluate(picture) > 100
    before = page.inner_text('#answer')
    page.fill('#words textarea', EVIL)
    page.click('#go')
    page.wait_for_function('w => document.querySelector("#answer").innerText !== w', arg=before, timeout=120_000)
    answered(page, 'by voice and words')
    (bad := tmp_path/'song.wav').write_text('this is no sound')
    page.reload()
    page.wait_for_selector('#go')
    page.set_input_files('#voice input[type=file]', str(bad))
    page.wait_for_timeout(1000)
    page.click('#go')
    assert 'song.wav: cannot be decoded as audio' in answered(page, 'cannot be decoded')
    assert page.locator('#answer [role=alert]').count() == 1 and not page.locator('.tm-after:visible').count()


def test_an_example_at_one_click(page):
    page.get_by_text("Wow, you speak French?").click()
    assert answered(page, 'by voice and words').startswith('surprise')
    assert page.input_value('#words textarea') == "Wow, you speak French?"
    seen = """() => {
        const r = document.querySelector(".tm-answer").getBoundingClientRect()
        return r.top >= 0 && r.top < innerHeight
    }"""
    page.wait_for_function(seen, timeout=5000)


def test_the_microphone(page):
    "Chromium's own test sound: beeps, which are no speech."
    page.click('#voice button[aria-label="Record audio"]')
    page.click('#voice button.record-button')
    page.wait_for_timeout(2500)
    page.click('#voice button.stop-button:visible')
    page.wait_for_timeout(1500)
    page.click('#go')
    assert 'sounds unlike' in answered(page, 'by the voice alone')


def test_nothing_given(page):
    page.click('#go')
    assert 'record or upload speech' in answered(page, 'nothing to answer from')


def test_a_long_recording_has_times(model, tmp_path):
    noise = np.random.default_rng(0).uniform(-.1, .1, 16000 * 63)
    sf.write(tmp_path/'long.wav', noise, 16000)
    said, *_, sound, place = respond(model, str(tmp_path/'long.wav'), None)
    assert re.findall(r'<span>(\d:\d\d)</span>', said) == ['0:00', '0:16', '0:32', '0:47', '1:03']
    assert sound.axes[0].get_xlabel() == 'seconds, the first 20 of 63'


def test_neighbours_are_shown_by_their_words(model, clip):
    *_, place = respond(model, str(clip), SAID)
    assert not any(id in place for id in model.known.ids) and 'does not come with this model' not in place
    assert sum(html.escape(text) in place.partition('Nearest')[2] for text in set(model.known.texts)) >= 4
    *_, place = respond(load(device='cpu'), str(clip), SAID)
    assert 'dev of MELD-acted; what was said in them does not come with this model' in place
