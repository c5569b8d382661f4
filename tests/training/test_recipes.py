"Recipes: each one trains, flags that are given hold, defaults do not, and a new default changes no recipe."
from dataclasses import fields, replace
import pytest
import torch
from tamers import commands
from tamers.training import run as training
from tamers.model.checkpoint import load_checkpoint
from tamers.config import TrainConfig, flag_of
from tamers.core import TamersError
from tamers.training.recipes import PLAIN, RECIPES, recipe, recipe_settings
from tamers.commands import config_from_flags
from tamers.training.run import train

QUICK = dict(audio_encoder='mini', text_encoder='mini', epochs=1, batch_size=256, fusion_shared_dim=32,
             device='cpu', num_workers=0)
KINDS = dict(both={'audio', 'text'}, audio={'audio'}, text={'text'})


@pytest.mark.parametrize('name', RECIPES)
def test_each_trains(name, tmp_path):
    "One epoch on the demo corpus with small encoders; the checkpoint tells the recipe and what was changed."
    end = train(recipe(name, **QUICK, save_path=str(tmp_path)))
    ckpt = load_checkpoint(end['best'])
    assert ckpt.config['recipe'] == name and ckpt.config['fusion_shared_dim'] == 32
    kept = {k: v for k, v in RECIPES[name].items() if k not in QUICK}
    assert {k: ckpt.config[k] for k in kept} == kept
    assert set(ckpt.encoders) == KINDS[RECIPES[name]['modality']]


def test_memocmt_is_attention_over_tokens_without_contrast(tmp_path):
    end = train(recipe('memocmt', **QUICK, save_path=str(tmp_path)))
    ckpt = load_checkpoint(end['best'])
    assert ckpt.model_args['fusion'] == 'attention'
    assert ckpt.model_args['audio_pooling'] == ckpt.model_args['text_pooling'] == 'tokens'
    assert ckpt.metrics['contrastive'] == 0
    start = training.FusionModel(**ckpt.model_args).logit_scale
    assert torch.equal(ckpt.model['logit_scale'], start.detach()), 'nothing asks for the scale of a contrastive loss'
    assert ckpt.build().classifier[1].out_features == round(32 / 6)


@pytest.mark.parametrize('name', RECIPES)
def test_flags_that_are_given_hold_and_defaults_do_not(name):
    from_flags = lambda *argv: config_from_flags(['--recipe', name, *argv])
    assert from_flags() == recipe(name)
    changed = from_flags('--fusion-dropout', '0.25', '--lr', '0.002', '--epochs', '7')
    assert changed == recipe(name, fusion_dropout=.25, lr=.002, epochs=7)
    default = TrainConfig()
    for f in fields(TrainConfig):   # a flag that names the very default is given as well
        if f.name in recipe_settings(name) and type(f.default) in (int, float):
            assert getattr(from_flags(flag_of(f.name), str(f.default)), f.name) == getattr(default, f.name)


def test_the_order_of_flags_does_not_matter():
    recipe, lr = ['--recipe', 'tamers-paper'], ['--lr', '0.002']
    assert config_from_flags([*lr, *recipe]) == config_from_flags([*recipe, *lr])


def test_every_process_has_the_settings_of_the_first(tmp_path, monkeypatch):
    "A change that leads back to a default must reach the other processes, too."
    given = []
    monkeypatch.setattr(training, 'launch_processes', lambda flags, processes: given.extend(flags) or 1)
    cfg = recipe('tamers-paper', class_weight_gamma=0., save_path=str(tmp_path/'run'))
    with pytest.raises(TamersError, match='exit code 1'): training.train_everywhere(cfg)
    assert replace(config_from_flags(given), overwrite=False) == cfg


def test_recipes_are_copied_and_complete():
    settings = recipe_settings('tamers')
    settings['lr'] = 1.
    assert recipe_settings('tamers')['lr'] != 1. and PLAIN['lr'] != 1.
    known = {f.name for f in fields(TrainConfig)}
    for name, settings in RECIPES.items():
        assert set(PLAIN) <= set(settings) <= known, name
        files = {'root', 'save_path', 'device', 'seed', 'store_path'}
        assert not files & set(settings), 'a recipe is no place for files'


def test_the_published_design():
    "What is stated: both losses, class weights, a linear map to each side, and AdamW's two numbers."
    s = recipe_settings('tamers-paper')
    assert s['contrastive_weight'] > 0 and s['class_weight_gamma'] > 0
    stated = dict(contrastive='infonce', classification='ce', fusion='concat', lr=5e-4, weight_decay=1e-2,
                  context_turns=0, text_adapt='none')
    assert {k: s[k] for k in stated} == stated


def test_an_unknown_recipe_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TamersError, match="--recipe tamer: must be one of .* Did you mean 'tamers'"): recipe('tamer')
    with pytest.raises(SystemExit) as end: commands.tamers_train(['--recipe', 'paper', '--epochs', '1'])
    assert end.value.code == 2 and 'error: --recipe paper: must be one of' in capsys.readouterr().err
