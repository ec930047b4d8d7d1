"""Networks as the libraries that people use build them, with random weights, and an input that each takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Network(NamedTuple):
    """A network of a library.

    Attributes:
        library: the module to import; it is no part of the project's own dependencies.
        name: as the library has it.
        make: with the imported library.
        input: of one image.
    """

    library: str
    name: str
    make: Callable[[Any], nn.Module]
    input: tuple[int, ...]

    def build(self) -> nn.Module:
        """The network in evaluation, its batch norms' statistics those of noise."""
        torch.manual_seed(0)
        model = self.make(importlib.import_module(self.library))
        settle(model, self.images(4, 7))
        return model.eval()

    def images(self, count: int, seed: int) -> Tensor:
        return torch.randn(count, *self.input, generator=torch.Generator().manual_seed(seed))


def settle(model: nn.Module, images: Tensor) -> None:
    """Gives batch norms the statistics of a batch, so that values keep their size through a network nobody trained."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


# What a network takes where it is not an image of 64 by 64.
_SIZES = {"inception_v3": 96, "inception_v4": 96, "xception41": 96, "alexnet": 96, "hrnet_w18_small": 64}


def _size(name: str) -> int:
    fixed = ("vit", "deit", "swin", "maxvit", "mixer", "resmlp", "levit", "efficientformer")
    return 224 if name.startswith(fixed) else _SIZES.get(name, 64)


# Without vit_h_14, vit_l and regnet_y_128gf, whose code is that of others here: five times they fill a small machine.
_TORCHVISION = (
    "alexnet", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "densenet121", "densenet161",
    "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_s",
    "efficientnet_v2_m", "efficientnet_v2_l", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf", "regnet_x_8gf", "regnet_x_16gf",
    "regnet_x_32gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf", "regnet_y_8gf",
    "regnet_y_16gf", "regnet_y_32gf", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0",
    "squeezenet1_1", "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b", "vgg11", "vgg11_bn",
    "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32",
)  # fmt: skip
_SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101", "fcn_resnet50", "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
)  # fmt: skip
_TIMM = (
    "efficientnet_b0", "mobilenetv3_large_100", "mobilenetv4_conv_small", "regnetx_004", "regnety_004",
    "repvgg_a0", "mobileone_s0", "cspresnet50", "cspdarknet53", "resnet18", "resnet50d", "resnest14d",
    "seresnet33ts", "skresnet18", "ecaresnet26t", "convnext_atto", "convnextv2_atto", "nf_resnet26",
    "nf_regnet_b0", "resnetv2_50", "densenet121", "ese_vovnet19b_dw", "dla34", "hrnet_w18_small", "ghostnet_100",
    "tinynet_a", "mnasnet_100", "hardcorenas_a", "lcnet_050", "fbnetc_100", "xception41", "inception_v4",
    "hgnetv2_b0", "edgenext_xx_small", "mobilevit_xxs", "fastvit_t8", "repvit_m0_9", "efficientformer_l1",
    "poolformer_s12", "vit_tiny_patch16_224", "mixer_s32_224", "gernet_s", "rexnet_100", "starnet_s1",
    "efficientvit_b0", "inception_next_atto", "dpn48b", "selecsls42", "tf_mobilenetv3_small_075",
)  # fmt: skip
_DECODERS = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
)  # fmt: skip
_ENCODERS = (
    "mobilenet_v2", "efficientnet-b0", "timm-mobilenetv3_small_100", "vgg11_bn", "densenet121", "se_resnet50",
)  # fmt: skip

_MONAI: dict[str, tuple[dict[str, Any], int]] = {  # options, and how long an image is
    "UNet": ({"channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2}, 32),
    "BasicUNet": ({"features": (8, 8, 16, 16, 32, 8)}, 32),
    "AttentionUnet": ({"channels": (8, 16, 32), "strides": (2, 2)}, 32),
    "SegResNet": ({"init_filters": 8}, 32),
    "DenseNet121": ({}, 64),
    "DynUNet": ({"kernel_size": (3, 3, 3), "strides": (1, 2, 2), "upsample_kernel_size": (2, 2)}, 32),
    "VNet": ({"out_channels": 16}, 32),
    "HighResNet": ({}, 16),
}

_HUB: dict[str, tuple[dict[str, Any], int]] = {  # the configuration's sizes, and how long an image is
    "ResNet": ({}, 64),
    "RegNet": ({}, 64),
    "MobileNetV1": ({}, 64),
    "MobileNetV2": ({}, 64),
    "ConvNext": ({}, 64),
    "ConvNextV2": ({}, 64),
    "Bit": ({}, 64),
    "PoolFormer": ({}, 64),
    "Levit": ({}, 224),
    "FocalNet": ({"image_size": 64}, 64),
    "MobileViT": ({"image_size": 64}, 64),
    "Cvt": ({"depth": [1, 1, 2]}, 64),
    "ViT": ({"image_size": 64, "num_hidden_layers": 4}, 64),
    "Swin": ({}, 224),
}


def networks() -> list[Network]:
    """All of them, whether their libraries are installed or not."""
    return [*_torchvision(), *_timm(), *_segmentation_models(), *_monai(), *_hub()]


def _torchvision() -> Iterator[Network]:
    def classifier(name: str) -> Callable[[Any], nn.Module]:
        alone = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return lambda models: models.get_model(name, weights=None, **alone)

    def segmenter(name: str) -> Callable[[Any], nn.Module]:
        return lambda models: models.get_model(name, weights=None, weights_backbone=None)

    for name in _TORCHVISION:
        yield Network("torchvision.models", name, classifier(name), (3, _size(name), _size(name)))
    for name in _SEGMENTATION:
        yield Network("torchvision.models", name, segmenter(name), (3, 64, 64))


def _timm() -> Iterator[Network]:
    def made(name: str) -> Callable[[Any], nn.Module]:
        return lambda timm: timm.create_model(name)

    for name in _TIMM:
        yield Network("timm", name, made(name), (3, _size(name), _size(name)))


def _segmentation_models() -> Iterator[Network]:
    def made(decoder: str, encoder: str) -> Callable[[Any], nn.Module]:
        return lambda smp: getattr(smp, decoder)(encoder, encoder_weights=None)

    for decoder, encoder in [*((name, "resnet18") for name in _DECODERS), *(("Unet", name) for name in _ENCODERS)]:
        yield Network("segmentation_models_pytorch", f"{decoder} of {encoder}", made(decoder, encoder), (3, 64, 64))


def _monai() -> Iterator[Network]:
    def made(name: str, options: dict[str, Any]) -> Callable[[Any], nn.Module]:
        return lambda nets: getattr(nets, name)(**{"in_channels": 1, "out_channels": 2, **options})

    for name, (options, size) in _MONAI.items():
        for dims in (2, 3):
            make = made(name, {"spatial_dims": dims, **options})
            yield Network("monai.networks.nets", f"{name} in {dims}-D", make, (1, *[size] * dims))


def _hub() -> Iterator[Network]:
    def made(name: str, options: dict[str, Any]) -> Callable[[Any], nn.Module]:
        return lambda hub: getattr(hub, f"{name}ForImageClassification")(getattr(hub, f"{name}Config")(**options))

    for name, (options, size) in _HUB.items():
        yield Network("transformers", name, made(name, options), (3, size, size))
