"Adaptation of text encoders: every architecture and kind, the same bits twice, and nothing left behind by a failure."
import json
import sys

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import tamers.training.adaptation as adaptation
from tamers.training.adaptation import Adaptation, adapt_text, layers_of, make_learner
from tamers.core import EMOTIONS, TamersError
from tamers.encoders.encoder import TextEncoder

tf.utils.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
WORDS = ['furious', 'yuck', 'scared', 'happy', 'table', 'lonely', 'wow']
TEXTS = [f'{a} {word} {b}' for word in WORDS for a in ('I am', 'so', 'oh') for b in ('now', 'today', '')]
LABELS = torch.arange(7).repeat_interleave(9)
TINY = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, vocab_size=320)
MAKE = {
    'gpt2': lambda: tf.GPT2Model(tf.GPT2Config(
        n_embd=32, n_layer=3, n_head=2, n_positions=24, vocab_size=320, bos_token_id=0, eos_token_id=0)),
    'llama': lambda: tf.LlamaModel(tf.LlamaConfig(**TINY, max_position_embeddings=24, pad_token_id=1)),
    'bert': lambda: tf.BertForMaskedLM(tf.BertConfig(**TINY, max_position_embeddings=24)),
    'roberta': lambda: tf.RobertaModel(tf.RobertaConfig(**TINY, max_position_embeddings=26, pad_token_id=1)),
    'distilbert': lambda: tf.DistilBertModel(tf.DistilBertConfig(
        dim=32, n_layers=3, n_heads=2, hidden_dim=64, vocab_size=320, max_position_embeddings=24)),
    'mpnet': lambda: tf.MPNetModel(tf.MPNetConfig(**TINY, max_position_embeddings=26, pad_token_id=1)),
}


def tokenizer(decoder):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ['<|endoftext|>'] if decoder else ['<s>', '<pad>', '</s>']
    t.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=specials, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if decoder: return tf.PreTrainedTokenizerFast(tokenizer_object=t, eos_token='<|endoftext|>')
    t.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)])
    names = dict(pad_token='<pad>', eos_token='</s>', sep_token='</s>', cls_token='<s>')
    return tf.PreTrainedTokenizerFast(tokenizer_object=t, **names)


@pytest.fixture(scope='module')
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp('hub')
    def folder(name):
        if not (root/name).exists():
            torch.manual_seed(0)
            MAKE[name]().save_pretrained(root/name)
            tokenizer(name == 'gpt2').save_pretrained(root/name)
        return root/name
    return folder


def adapt(encoder, root, train=(TEXTS, LABELS), **kw):
    cfg = Adaptation(**dict(dict(epochs=1, lr=1e-2, batch_size=16, rank=4, amp=False), **kw))
    return adapt_text(encoder, train, (TEXTS, LABELS), root, cfg, progress=False, say=lambda *_: None)


def embed(folder, texts=TEXTS, **kw):
    encoder = TextEncoder(folder, **kw)
    return encoder.encode(encoder.prepare(texts))


@pytest.mark.parametrize('how', adaptation.HOWS)
@pytest.mark.parametrize('name', MAKE)
def test_every_kind_of_every_architecture(hub, tmp_path, name, how):
    "It can be adapted and loaded; the word table, and the layers below the last, are as they were."
    encoder = TextEncoder(hub(name))
    folder = adapt(encoder, tmp_path, how=how, layers=1)
    before, after = (tf.AutoModel.from_pretrained(f) for f in (hub(name), folder))
    assert torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    def equal(a, b): return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    same = [equal(a, b) for a, b in zip(layers_of(before, ''), layers_of(after, ''))]
    assert same == ([True, True, False] if how == 'last' else [False] * 3)
    assert not torch.allclose(embed(folder), embed(hub(name)), atol=1e-3)
    assert TextEncoder(folder).source.family is encoder.source.family
    assert not any('lora' in k for k in after.state_dict())


@pytest.mark.parametrize('how', adaptation.HOWS)
def test_it_learns_and_what_is_saved_is_what_was_scored(hub, tmp_path, how):
    "Seven telling words are learnt; the saved embeddings tell the classes apart better than the frozen ones did."
    pace = dict(epochs=30, lr=1e-2) if how == 'lora' else dict(epochs=15, lr=5e-3)
    folder = adapt(TextEncoder(hub('bert')), tmp_path, how=how, rank=16, **pace)
    epochs = json.loads((folder/'adaptation.json').read_text())['epochs']
    assert max(e['accuracy'] for e in epochs) > 0.9
    def spread(x):
        means = torch.stack([x[LABELS == c].mean(0) for c in range(7)])
        return ((means - means.mean(0)).square().sum() / (x - means[LABELS]).square().sum()).item()
    assert spread(embed(folder)) > 2 * spread(embed(hub('bert')))


def test_the_best_epoch_is_kept(hub, tmp_path, monkeypatch):
    "With dev scores that fall, what is saved is the first epoch, whatever came after."
    scores = iter([0.9, 0.5, 0.1])
    def fake(*_): return dict(loss=1., accuracy=0., weighted_f1=next(scores), macro_f1=0.)
    kept, learn_epoch = [], adaptation.learn_epoch
    def spy(learner, *args):
        loss = learn_epoch(learner, *args)
        kept.append({k: v.clone() for k, v in learner.model.state_dict().items()})
        return loss
    monkeypatch.setattr(adaptation, 'dev_scores', fake)
    monkeypatch.setattr(adaptation, 'learn_epoch', spy)
    saved = tf.AutoModel.from_pretrained(adapt(TextEncoder(hub('gpt2')), tmp_path, epochs=3)).state_dict()
    assert all(torch.equal(saved[k], v) for k, v in kept[0].items())
    assert not all(torch.equal(saved[k], v) for k, v in kept[2].items())


@pytest.mark.parametrize('how', ('last', 'lora'))
def test_the_same_bits_twice_and_other_random_numbers_untouched(hub, tmp_path, how):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    folders = [adapt(TextEncoder(hub('bert')), tmp_path/place, how=how, epochs=2) for place in 'ab']
    assert torch.equal(torch.rand(3), expected)
    assert folders[0].name == folders[1].name
    assert (folders[0]/'model.safetensors').read_bytes() == (folders[1]/'model.safetensors').read_bytes()
    other = adapt(TextEncoder(hub('bert')), tmp_path/'a', how=how, epochs=2, seed=7)
    assert other.name != folders[0].name and not torch.equal(embed(other), embed(folders[0]))


def test_what_went_in_is_the_name(hub, tmp_path):
    "Other labels, other texts, another context or another setting: another folder."
    encoder = TextEncoder(hub('gpt2'))
    turns = [('well', t) for t in TEXTS]
    changes = [{}, dict(lr=2e-2), dict(train=(TEXTS, LABELS.flip(0))), dict(train=(TEXTS[:40], LABELS[:40]))]
    names = [adapt(encoder, tmp_path, **kw).name for kw in changes]
    names.append(adapt(TextEncoder(hub('gpt2'), pooling='mean'), tmp_path).name)
    talk = TextEncoder(hub('gpt2'), context_turns=1)
    rows = turns, LABELS
    folder = adapt_text(talk, rows, rows, tmp_path, Adaptation(epochs=1), progress=False, say=lambda *_: None)
    assert len({*names, folder.name}) == 6
    assert TextEncoder(tmp_path/names[-1]).pooling == 'mean'


def test_a_failure_leaves_nothing(hub, tmp_path, monkeypatch):
    def interrupted(*_): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(adaptation, 'dev_scores', interrupted)
        with pytest.raises(KeyboardInterrupt): adapt(TextEncoder(hub('bert')), tmp_path)
    with monkeypatch.context() as m:
        m.setattr(tf.BertModel, 'save_pretrained', interrupted)
        with pytest.raises(KeyboardInterrupt): adapt(TextEncoder(hub('bert')), tmp_path)
    assert not list(tmp_path.iterdir())
    assert adapt(TextEncoder(hub('bert')), tmp_path).is_dir()


def test_peft_is_asked_for_by_name(hub, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(TamersError, match=r'tamers\[adapt\]'): adapt(TextEncoder(hub('bert')), tmp_path, how='lora')
    assert adapt(TextEncoder(hub('bert')), tmp_path, how='last').is_dir()


def test_texts_longer_than_the_window(hub, tmp_path):
    "They are cut as the frozen encoder cuts them."
    texts = [*TEXTS[:62], ' '.join(TEXTS)]
    folder = adapt(TextEncoder(hub('roberta')), tmp_path, train=(texts, LABELS))
    assert embed(folder, texts).isfinite().all()


def test_weights_smoothing_and_low_precision(hub, tmp_path):
    "Each changes what is learnt; bfloat16 only where the machine has it."
    base = embed(adapt(TextEncoder(hub('bert')), tmp_path))
    skewed = (TEXTS[:40], LABELS[:40])
    for kw in (dict(label_smoothing=0.2), dict(weight_decay=1.),
               dict(train=skewed, class_weight_gamma=1.), dict(train=skewed, adjust_tau=1.)):
        plain = embed(adapt(TextEncoder(hub('bert')), tmp_path, train=skewed)) if 'train' in kw else base
        assert not torch.allclose(embed(adapt(TextEncoder(hub('bert')), tmp_path, **kw)), plain, atol=1e-4)
    learner = make_learner(TextEncoder(hub('bert')), Adaptation(amp=True), len(EMOTIONS))
    assert learner.dtype in (torch.float32, torch.bfloat16) and learner.linear.weight.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in learner.model.parameters())
    assert learner(TEXTS).shape == (63, len(EMOTIONS))
