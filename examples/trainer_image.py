"""The Trainer of transformers on images: a small vision transformer for digits with 50 % zeros.

pip install 'torchlasso[transformers]' scikit-learn
python examples/trainer_image.py
"""

import torch
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import torchlasso as tl
from torchlasso.integrations.transformers import sparsify

EPOCHS = 30


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    model = ViTForImageClassification(config)
    args = TrainingArguments(
        "trainer-image", num_train_epochs=EPOCHS, per_device_train_batch_size=50, learning_rate=2e-3, report_to="none"
    )
    trainer = Trainer(model, args, train_dataset=rows[:1400])

    # the lines that make it sparse
    target = lambda optimizer, steps: tl.TargetSparsity(optimizer, 0.5, steps=steps)  # noqa: E731
    sparsify(trainer, tl.L1(), lam=0.05, controllers=target, form="latent")

    trainer.train()
    print(tl.report(model))
    answers = model.eval()(pixel_values=x[1400:]).logits.argmax(dim=1)
    print(f"test accuracy {(answers == y[1400:]).float().mean():.1%}")
    tl.save(model, "trainer-image.safetensors")


if __name__ == "__main__":
    main()
