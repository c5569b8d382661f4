"""What TAMERS is compared with: what one would write at first, with transformers and torch as they come."""
from __future__ import annotations
import time
import soundfile
import torch
import torch.nn.functional as F
from tamers.model.fusion import FusionModel
from tamers.encoders.precision import Linear

BATCH = 16  # utterances the encoders see at once: TAMERS' default, and the loop's


def log_mels(waves: list) -> torch.Tensor:
    "ASTFeatureExtractor, one clip after the other."
    from transformers import ASTFeatureExtractor
    extractor = ASTFeatureExtractor()
    return torch.cat([extractor(w, sampling_rate=16_000, return_tensors='pt').input_values for w in waves])


class Loop:
    "Batches in the order of the corpus through both encoders of transformers, in float32."
    def __init__(self, audio: str, text: str):
        from transformers import ASTFeatureExtractor, ASTModel, AutoTokenizer, GPT2Model
        self.extractor, self.ast = ASTFeatureExtractor.from_pretrained(audio), ASTModel.from_pretrained(audio).eval()
        self.tokenizer, self.gpt = AutoTokenizer.from_pretrained(text), GPT2Model.from_pretrained(text).eval()

    @torch.no_grad()
    def audio(self, clips: list) -> torch.Tensor:
        out = []
        for i in range(0, len(clips), BATCH):
            waves = [soundfile.read(path, dtype='float32')[0] for path in clips[i:i + BATCH]]
            out.append(self.ast(**self.extractor(waves, sampling_rate=16_000, return_tensors='pt')).pooler_output)
        return torch.cat(out)

    @torch.no_grad()
    def text(self, texts: list) -> torch.Tensor:
        out = []
        for i in range(0, len(texts), BATCH):
            batch = self.tokenizer(texts[i:i + BATCH], padding=True, return_tensors='pt')
            hidden = self.gpt(**batch).last_hidden_state
            out.append(hidden[torch.arange(len(hidden)), batch['attention_mask'].sum(1) - 1])
        return torch.cat(out)


def losses(out, labels, scale) -> torch.Tensor:
    "InfoNCE both ways and cross-entropy."
    similarity, own = scale.exp() * out.z_a @ out.z_t.T, torch.arange(len(labels))
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2 + F.cross_entropy(out.logits,
        labels)


def take_torchs_layers(model: torch.nn.Module) -> None:
    "Give a head torch's own linear layers, where TAMERS has quicker ones."
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, Linear): continue
            setattr(parent, name, torch.nn.Linear(layer.in_features, layer.out_features))


def bare_epochs(data: tuple, batch_size: int, epochs: int, torchs: bool = False) -> float:
    "Steps a second of a loop over tensors; `torchs`: with torch's own layers."
    audio, text, labels = data
    model = FusionModel(audio_dim=audio.shape[1], text_dim=text.shape[1]).train()
    if torchs: take_torchs_layers(model)
    optimizer, steps, start = torch.optim.AdamW(model.parameters(), lr=5e-4), 0, time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch_size):
            if len(rows) < batch_size: continue
            loss = losses(model(audio[rows], text[rows]), labels[rows], model.logit_scale)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
            optimizer.step()
            model.clamp_scale()
            steps += 1
    return steps / (time.perf_counter() - start)


class ForTrainer(torch.nn.Module):
    "The head as transformers' Trainer takes a model: it gives its loss."
    def __init__(self, *dims: int):
        super().__init__()
        self.head = FusionModel(audio_dim=dims[0], text_dim=dims[1])

    def forward(self, audio, text, labels):
        out = self.head(audio, text)
        return dict(loss=losses(out, labels, self.head.logit_scale), logits=out.logits)


def trainer_epochs(data: tuple, batch_size: int, epochs: int, folder) -> float:
    "Steps a second of transformers' Trainer, from its first step to its last, without evaluation, saving and logs."
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
    class Clock(TrainerCallback):
        def on_train_begin(self, args, state, control, **_): self.start = time.perf_counter()
        def on_train_end(self, args, state, control, **_):
            self.rate = state.global_step / (time.perf_counter() - self.start)
    audio, text, labels = data
    rows, clock = [dict(audio=a, text=t, labels=y) for a, t, y in zip(audio, text, labels)], Clock()
    args = TrainingArguments(str(folder), per_device_train_batch_size=batch_size, num_train_epochs=epochs, use_cpu=True,
        dataloader_drop_last=True, learning_rate=5e-4,
        lr_scheduler_type='constant', max_grad_norm=1., logging_strategy='no', save_strategy='no', eval_strategy='no',
        report_to='none', disable_tqdm=True)
    trainer = Trainer(ForTrainer(audio.shape[1], text.shape[1]), args, train_dataset=rows, callbacks=[clock])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.rate
