"Every command names the model that it uses."
import shutil
from tamers.commands import tamers_analyze, tamers_compare, tamers_search
from tamers.data.demo import demo_corpus
from tamers.training.run import demo_head


def test_analyze_search_and_compare_name_what_they_use(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (run := tmp_path/'checkpoints'/'mine').mkdir(parents=True)
    shutil.copy(demo_head(), run)
    line, here = 'using checkpoints/mine/best.pt (trained on the demo corpus, audio and text)', ['--device', 'cpu']
    tamers_analyze([*here, '--no-figures'])
    assert capsys.readouterr().out.startswith(line)
    tamers_search(['Oh my God!', *here, '--json'])
    found = capsys.readouterr()
    assert line in found.err and found.out.startswith('{')
    tamers_compare(['mini', 'checkpoints/mine', *here, '--no-figures', '--root', str(demo_corpus()),
                    '--resamples', '100', '--out', 'out'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('using tamers-mini') and lines[1].startswith('using checkpoints/mine (')
