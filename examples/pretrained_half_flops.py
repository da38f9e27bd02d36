"""A pretrained network to half of its operations, and back to transformers.

Give the folder of a BERT classifier, or its name on the Hub; without one, the example first pretrains a small one, so
that nothing is downloaded.

    pip install 'torchlasso[transformers]'
    python examples/pretrained_half_flops.py [FOLDER]
"""

import sys

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, Trainer, TrainingArguments

import torchlasso as tl
from torchlasso.integrations.transformers import save_small, sparsify

WORDS, LENGTH, ROWS, EPOCHS = 100, 16, 1000, 8


def texts(seed: int) -> list[dict[str, torch.Tensor]]:
    """Make texts up; the class is whether one of seven words is there."""
    tokens = torch.randint(1, WORDS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": text, "labels": (text < 8).any().long()} for text in tokens]


def trainer_of(model: torch.nn.Module, folder: str) -> Trainer:
    args = TrainingArguments(
        folder, num_train_epochs=EPOCHS, per_device_train_batch_size=32, learning_rate=2e-3, report_to="none"
    )
    return Trainer(model, args, train_dataset=texts(0))


def pretrained() -> str:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    config = BertConfig(vocab_size=WORDS, max_position_embeddings=LENGTH, **sizes)
    trainer = trainer_of(AutoModelForSequenceClassification.from_config(config), "pretraining")
    trainer.train()
    trainer.save_model("pretrained")
    return "pretrained"


def main(folder: str = "") -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder or pretrained())
    trainer, tokens = trainer_of(model, "half"), torch.stack([text["input_ids"] for text in texts(1)])
    units = tl.Units(model, {"input_ids": tokens[:2]})
    budget = {"flops": 0.47, "example_inputs": tokens[:16]}
    make = lambda optimizer, steps: tl.TargetBudget(optimizer, model, steps=steps, **budget)  # noqa: E731
    sparsify(trainer, tl.L1(over=units), lam=0.05, controllers=make, form="latent")
    trainer.train()
    small, report = tl.compact(model, {"input_ids": tokens[:2]}, return_report=True)
    print(report)
    right = small.eval()(input_ids=tokens).logits.argmax(dim=1) == (tokens < 8).any(dim=1)
    print(f"test accuracy {right.float().mean():.1%}")
    print(save_small(small, "half-small", {"input_ids": tokens[:2]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
