"""Knowledge distillation: a ResNet teaches a network of a thirtieth of its size, by its probabilities.

The student has the labels of 100 digits; for the others it has the teacher's answers alone. It must recognise more than
the same network that learns from the 100 in as many steps, in the mean of two starts.

python examples/distil.py --labels 50 --temperature 3
"""

from __future__ import annotations

import torch
from common import Digits, arguments, cross_entropy, fit, require
from networks import CLASSES, conv, resnet, size
from torch import Tensor, nn
from torch.nn import functional as F

from cnnkernels import nn as cnn

STARTS = 2


def student() -> nn.Module:
    return nn.Sequential(
        conv(1, 2), cnn.MaxPool2d(2), conv(2, 4), cnn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)
    )


def main() -> None:
    labels = {"type": int, "default": 100, "help": "that the student has (default: 100)"}
    temperature = {"type": float, "default": 2.0, "help": "that scores are divided by (default: 2)"}
    given = arguments(__doc__, epochs=6, labels=labels, temperature=temperature)
    digits, t = Digits(given.device), given.temperature
    few = digits.first(given.labels)
    teacher = resnet(8).to(given.device)
    fit(teacher, digits, 4, rate=0.005)
    teacher.eval()

    def distilled(model: nn.Module, images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            soft = F.softmax(teacher(images) / t, 1)
        taught = F.kl_div(F.log_softmax(model(images) / t, 1), soft, reduction="batchmean") * t * t
        return taught + F.cross_entropy(model(few.images), few.labels)

    as_long = given.epochs * len(digits.images) // len(few.images)
    means = []
    for data, epochs, loss in ((few, as_long, cross_entropy), (digits, given.epochs, distilled)):
        found = []
        for start in range(STARTS):
            torch.manual_seed(given.seed + start)
            model = student().to(given.device)
            fit(model, data, epochs, rate=0.01, loss=loss)
            found.append(digits.accuracy(model))
        means.append(sum(found) / STARTS)
    alone, taught = means
    print(f"teacher, {size(teacher)} parameters: {digits.accuracy(teacher):.1%}")
    print(f"student, {size(student())}: alone {alone:.1%}, taught {taught:.1%}")
    require("the student is better for its teacher", taught > alone)


if __name__ == "__main__":
    main()
