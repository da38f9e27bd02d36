"""The Trainer of transformers on texts: a small BERT loses half of the operations of its layers while it learns.

The texts are made up, so that nothing is downloaded; with a folder or a name on the Hub, AutoModelForSequence-
Classification.from_pretrained(...) takes the place of the small model.

    pip install 'torchlasso[transformers]'
    python examples/trainer_text.py
"""

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import torchlasso as tl
from torchlasso.integrations.transformers import save_small, sparsify

WORDS, LENGTH, ROWS, EPOCHS = 100, 16, 1000, 10


def main() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(1, WORDS, (ROWS + 200, LENGTH))
    labels = (tokens < 8).any(dim=1).long()  # whether one of seven words is there
    rows = [{"input_ids": text, "labels": label} for text, label in zip(tokens, labels, strict=True)]
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LENGTH,
    )
    model = BertForSequenceClassification(config)
    args = TrainingArguments(
        "trainer-text", num_train_epochs=EPOCHS, per_device_train_batch_size=32, learning_rate=2e-3, report_to="none"
    )
    trainer = Trainer(model, args, train_dataset=rows[:ROWS], eval_dataset=rows[ROWS:])

    # the lines that make it sparse
    units = tl.Units(model, {"input_ids": tokens[:2]})
    budget = {"flops": 0.5, "example_inputs": tokens[:16]}
    make = lambda optimizer, steps: tl.TargetBudget(optimizer, model, steps=steps, **budget)  # noqa: E731
    sparsify(trainer, tl.L1(over=units), lam=0.05, controllers=make, form="latent")

    trainer.train()
    small, report = tl.compact(model, {"input_ids": tokens[:2]}, return_report=True)
    print(report)
    answers = small.eval()(input_ids=tokens[ROWS:]).logits.argmax(dim=1)
    print(f"test accuracy {(answers == labels[ROWS:]).float().mean():.1%}")
    print(save_small(small, "trainer-text-small", {"input_ids": tokens[:2]}))


if __name__ == "__main__":
    main()
