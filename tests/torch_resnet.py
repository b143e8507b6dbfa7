"""torchvision's ResNets put together from torch.nn: same names, same shapes, same arithmetic.

torchvision itself pins one version of PyTorch, and the tests want only three networks of it.
"""

import torch
from torch import nn

# Blocks of the four layer groups; the first group's 3x3 width in bottleneck blocks, else none.
NETWORKS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "resnet-18": ((2, 2, 2, 2), None),
    "resnet-34": ((3, 4, 6, 3), None),
    "wide-resnet-50-2": ((3, 4, 6, 3), 128),
}


def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample = downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, width: int):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = downsample(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + self.downsample(x)).relu()


def downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        blocks, width = NETWORKS[name]
        self.conv1, self.bn1 = conv(3, 64, 7, stride=2), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for i, count in enumerate(blocks):
            outputs = (64 if width is None else 256) << i
            group = nn.Sequential()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                group.append(
                    Basic(inputs, outputs, stride)
                    if width is None
                    else Bottleneck(inputs, outputs, stride, width << i)
                )
                inputs = outputs
            self.add_module(f"layer{i + 1}", group)
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Logits; the stem before its max pooling, and the four layer groups."""
        x = self.bn1(self.conv1(x)).relu()
        taps = [x]
        x = self.maxpool(x)
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = group(x)
            taps.append(x)
        return self.fc(x.mean((2, 3))), taps


def random_network(name: str) -> ResNet:
    """With random weights, and BatchNorms that are random in all four of their vectors."""
    generator = torch.Generator().manual_seed(5)
    network = ResNet(name).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            # Half of He's variance: the sums of a long chain of blocks grow slowly.
            std = module.weight[0].numel() ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.3, generator=generator)
    return network
