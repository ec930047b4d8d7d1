"""Serves an INT8 network from several threads, with a CUDA graph for each size of batch where there is a GPU.

Requests of different sizes come in any order; each answer must be what the network gives that request alone, to the
bit: an INT8 sum does not depend on its neighbours.

python examples/serve.py --threads 8 --requests 1000
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from common import Digits, arguments, fit, require
from networks import resnet
from torch import Tensor, nn

import cnnkernels

SIZES = 1, 2, 4, 8


class Server:
    """Pads a request to the next size. On a GPU a size's graph has one set of buffers, so one thread at a time."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        self.model, self.graphs = model, {}
        self.locks = {size: threading.Lock() for size in SIZES}
        if image.is_cuda:
            for size in SIZES:
                self.graphs[size] = self.captured(image.expand(size, -1, -1, -1).contiguous())

    def captured(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        stream = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(stream):
            self.model(images)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(graph):
            scores = self.model(images)
        return graph, images, scores

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        size = next(size for size in SIZES if size >= len(images))
        padded = torch.cat([images, images.new_zeros(size - len(images), *images.shape[1:])])
        if size not in self.graphs:
            return self.model(padded)[: len(images)]
        graph, buffer, scores = self.graphs[size]
        with self.locks[size]:
            buffer.copy_(padded)
            graph.replay()
            return scores[: len(images)].clone()


def main() -> None:
    threads = {"type": int, "default": 4, "help": "(default: 4)"}
    requests = {"type": int, "default": 24, "help": "(default: 24)"}
    given = arguments(__doc__, epochs=1, threads=threads, requests=requests)
    digits = Digits(given.device)
    model = resnet(8).to(given.device)
    fit(model, digits, given.epochs)
    int8 = cnnkernels.quantize(model.eval(), digits.images[:128]).model
    server = Server(int8, digits.images[:1])

    sizes = torch.randint(1, SIZES[-1] + 1, (given.requests,)).tolist()
    asked = [digits.held_images[torch.randint(len(digits.held_images), (size,))] for size in sizes]
    with ThreadPoolExecutor(given.threads) as pool:
        answers = list(pool.map(server.answer, asked))
    with torch.no_grad():
        alone = [torch.cat([int8(image[None]) for image in images]) for images in asked]
    require(
        f"{given.requests} answers by {given.threads} threads are those of each image alone, to the bit",
        all(torch.equal(answer, one) for answer, one in zip(answers, alone, strict=True)),
    )


if __name__ == "__main__":
    main()
