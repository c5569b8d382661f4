"""Recognise emotion from speech and its transcript, and see what the model has learnt.

The one module written by hand: it makes the names below available as `tamers.train` and so on,
and imports what they need only when they are used.
"""
_HOMES = dict(train='training.run', analyze='evaluation.analyze', load='prediction.recognizer', load_corpus='data.load',
              load_checkpoint='model.checkpoint', TrainConfig='config', AnalyzeConfig='config', EMOTIONS='core', TamersError='core')
__version__ = "0.1.0"
__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    return getattr(import_module(f'tamers.{_HOMES[name]}'), name)


def __dir__(): return [*globals(), *_HOMES]
