"One model asked by many threads at once answers each as it would alone."
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import pytest
import tamers

SAID = ["I can't believe it!", 'Get out of here! ' * 60, 'Okay.', 'That is so kind of you. ' * 80]


@pytest.fixture(scope='module')
def model(): return tamers.load(device='cpu')


def ask(model, i):
    wave = np.random.default_rng(i).uniform(-.3, .3, 16_000 * (1 + i % 7)).astype('float32')
    answer = model.predict(None if i % 3 else wave, SAID[i % len(SAID)], rate=None if i % 3 else 16_000)
    return answer.label, round(answer.confidence, 5), answer.warnings


def test_eight_threads_answer_as_one(model):
    alone = [ask(model, i) for i in range(24)]
    assert sum('are more than the text encoder reads' in ' '.join(w) for _, _, w in alone) == 12
    with ThreadPoolExecutor(8) as pool: together = list(pool.map(lambda i: ask(model, i % 24), range(240)))
    assert together == alone * 10
