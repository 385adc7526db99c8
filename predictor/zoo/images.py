"""Networks that say what an image shows."""

from predictor.zoo.definition import IMAGE, Definition

_ALEXNET = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012"
_VGG = "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015"
_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_GOOGLENET = "Szegedy et al., Going Deeper with Convolutions, CVPR 2015"
_OVERFEAT = "Sermanet et al., OverFeat: Integrated Recognition, Localization and Detection, ICLR 2014"
_RESNET_V2 = "He et al., Identity Mappings in Deep Residual Networks, ECCV 2016"
_SHUFFLENET_V2 = (
    "Ma et al., ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design, ECCV 2018"
)
_PROFET = "Lee et al., PROFET: Profiling-based CNN Training Latency Prophet for GPU Cloud Instances, 2022"
_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021"

_VIT_NOTE = (
    "With the head for ImageNet's 1000 classes. Dropout 0.1, as when trained on ImageNet or ImageNet-21k; "
    "the paper used none on JFT-300M."
)
_PROFET_NOTE = (
    "As built in Keras by the study that timed it. Classes go with the image: 10 at 32 pixels, 100 at 64 "
    "and 128, 1000 beyond; so does the size of the first fully connected layer."
)


def _convnet(title: str, paper: str, factory: str, note: str) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module="predictor.zoo.convnets",
        factory=factory,
        inputs=IMAGE,
        sequence=None,
        image=224,
        batch=32,
        note=note,
    )


def _vit(title: str, factory: str, headline: str) -> Definition:
    return Definition(
        title=title,
        paper=_VIT,
        module="predictor.zoo.vit",
        factory=factory,
        inputs=IMAGE,
        sequence=None,
        image=224,
        batch=32,
        note=f"{headline} {_VIT_NOTE}",
    )


def _inception(title: str, paper: str, factory: str, note: str, image: int = 224) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module="predictor.zoo.inception",
        factory=factory,
        inputs=IMAGE,
        sequence=None,
        image=image,
        batch=128,
        note=note,
    )


def _profet(title: str, factory: str, image: int, note: str, module: str = "profet") -> Definition:
    return Definition(
        title=title,
        paper=_PROFET,
        module=f"predictor.zoo.{module}",
        factory=factory,
        inputs=IMAGE,
        sequence=None,
        image=image,
        batch=64,
        note=f"{note} {_PROFET_NOTE}",
    )


IMAGES: dict[str, Definition] = {
    "alexnet": _convnet(
        "AlexNet",
        _ALEXNET,
        "alexnet",
        "The paper says 60 million. The two GPUs of 2012 are one network with grouped convolutions here; "
        "the one-tower variant of 2014 (torchvision's) has 61,100,840.",
    ),
    "vgg16": _convnet("VGG-16", _VGG, "vgg16", "The paper says 138 million."),
    "resnet50": _convnet(
        "ResNet-50",
        _RESNET,
        "resnet50",
        "The paper gives no count. The stride is on the 3 x 3 convolutions (v1.5), as torchvision and MLPerf "
        "train it: the same parameters, and 4.1 instead of 3.8 billion multiply-adds.",
    ),
    "resnet152": _convnet(
        "ResNet-152",
        _RESNET,
        "resnet152",
        "The paper gives no count. The stride is on the 3 x 3 convolutions (v1.5), as in resnet50.",
    ),
    "vit-b-16": _vit("ViT-B/16", "vit_b_16", "The paper says 86 million."),
    "vit-l-16": _vit(
        "ViT-L/16",
        "vit_l_16",
        "The paper says 307 million; its sizes and the released weights give 304 million.",
    ),
    "googlenet": _inception(
        "GoogLeNet (Inception v1)",
        _GOOGLENET,
        "googlenet",
        "The paper says twelve times fewer than AlexNet. No batch normalisation (torchvision's has "
        "it); without the two auxiliary classifiers, which add 6.4 million while training.",
    ),
    "googlenet-without-lrn": _inception(
        "GoogLeNet without local response normalisation",
        _GOOGLENET,
        "googlenet_without_lrn",
        "As googlenet, without the two normalisations of the stem, as convnet-benchmarks ran it.",
    ),
    "overfeat": _inception(
        "OverFeat (fast)",
        _OVERFEAT,
        "overfeat",
        "The paper says 145 million. Images of 231 x 231 only.",
        image=231,
    ),
    "resnet200-v2": Definition(
        title="ResNet-200 v2",
        paper=_RESNET_V2,
        module="predictor.zoo.resnet_v2",
        factory="resnet200_v2",
        inputs=IMAGE,
        sequence=None,
        image=224,
        batch=16,
        note=(
            "The paper gives no count. Normalisation before each convolution; the stride is on the 3 x 3 one."
        ),
    ),
    "shufflenetv2-cifar100": Definition(
        title="ShuffleNet V2 1x for CIFAR-100",
        paper=_SHUFFLENET_V2,
        module="predictor.zoo.shufflenet_cifar",
        factory="shufflenetv2_cifar100",
        inputs=IMAGE,
        sequence=None,
        image=32,
        batch=128,
        note=(
            "The paper's 2.3 million are for 1000 classes. Here: 100 classes, no stride and no pooling "
            "in the stem, biases in the convolutions, as in github.com/weiaicunzai/pytorch-cifar100."
        ),
    ),
    "lenet5-keras": _profet("LeNet-5", "lenet5", 32, "ReLU and max pooling."),
    "mnist-cnn-keras": _profet("MNIST CNN", "mnist_cnn", 32, "Two convolutions."),
    "cifar10-cnn-keras": _profet("CIFAR-10 CNN", "cifar10_cnn", 32, "Four convolutions."),
    "alexnet-keras": _profet(
        "AlexNet (Keras)",
        "alexnet_keras",
        224,
        "Wider than the paper's, and its first convolution has stride 1.",
    ),
    "resnet-small-keras": _profet("ResNet small", "resnet_small", 224, "Four blocks of 1 x 1 convolutions."),
    "vgg11-keras": _profet("VGG-11 (Keras)", "vgg11_keras", 224, "Without dropout."),
    "vgg13-keras": _profet("VGG-13 (Keras)", "vgg13_keras", 224, "Without dropout."),
    "vgg16-keras": _profet("VGG-16 (Keras)", "vgg16_keras", 224, "Without dropout."),
    "vgg19-keras": _profet("VGG-19 (Keras)", "vgg19_keras", 224, "Without dropout."),
    "resnet18-v2-keras": _profet(
        "ResNet-18 v2 (Keras)", "resnet18_v2_keras", 224, "Normalisation first, biases.", "resnet_v2"
    ),
    "resnet34-v2-keras": _profet(
        "ResNet-34 v2 (Keras)", "resnet34_v2_keras", 224, "Normalisation first, biases.", "resnet_v2"
    ),
    "resnet50-v2-keras": _profet(
        "ResNet-50 v2 (Keras)", "resnet50_v2_keras", 224, "Normalisation first, biases.", "resnet_v2"
    ),
}
