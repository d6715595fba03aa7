"""The demo network: a small residual CNN for the demo's concepts, and how an image becomes its input."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from actmine.pipeline.demo.concepts import CONCEPTS

RESIZE = 112  # pixels of the shorter side, bilinear with antialiasing, as PIL does it
CROP = 96  # pixels of the central square that the network sees
MEAN = (0.499, 0.486, 0.464)  # of the central squares of the train split, per channel, in 0..1
STD = (0.250, 0.219, 0.250)
WEIGHTS_FILE = Path(__file__).with_name("demo_network.safetensors")


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions whose result is added to what came in: [B, C, H, W] to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of the input and what the two convolutions make of it."""
        branch = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(x + branch)


class DemoNetwork(nn.Module):
    """Seven convolutions of 7×7 and 3×3, one residual block, a global average and a linear `classifier`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _convolution(3, 24, 7, 2)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.block1 = _convolution(24, 40)
        self.pool2 = nn.MaxPool2d(2)
        self.block2 = _convolution(40, 56)
        self.block3 = ResidualBlock(56)
        self.pool3 = nn.MaxPool2d(2)
        self.block4 = _convolution(56, 80)
        self.block5 = _convolution(80, 96)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(96, len(CONCEPTS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, concepts] of normalized images [B, 3, H, W]."""
        x = self.pool1(self.stem(x))
        x = self.pool2(self.block1(x))
        x = self.pool3(self.block3(self.block2(x)))
        x = self.block5(self.block4(x))
        return self.classifier(torch.flatten(self.average(x), 1))


def demo_network() -> nn.Module:
    """The untrained demo network: [B, 3, 96, 96] to logits [B, 32]; its weights lie in `WEIGHTS_FILE`."""
    return DemoNetwork()


def preprocess(image: Image.Image) -> Tensor:
    """The network's input [3, 96, 96] for a PIL image: shorter side to 112, central 96, normalized."""
    resized = transforms.resize(image.convert("RGB"), RESIZE, InterpolationMode.BILINEAR, antialias=True)
    pixels = transforms.to_tensor(transforms.center_crop(resized, CROP))
    return transforms.normalize(pixels, MEAN, STD)


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            norm=nn.BatchNorm2d(outputs),
            relu=nn.ReLU(),
        )
    )
