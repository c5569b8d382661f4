"Saving a figure changes nothing else: a notebook goes on showing its own."
import matplotlib
import matplotlib.pyplot as plt
from tamers.evaluation.charts import save_figure


def test_the_backend_stays_as_it_was(tmp_path):
    before = matplotlib.get_backend()
    plt.switch_backend('svg')
    try:
        own, _ = plt.subplots()
        save_figure(tmp_path/'a.png', lambda: plt.subplots()[1])
        assert matplotlib.get_backend() == 'svg' and plt.get_fignums() == [own.number]
    finally: plt.switch_backend(before)
