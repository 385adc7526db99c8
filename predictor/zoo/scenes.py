"""Models that find things in images and volumes."""

from predictor.zoo.definition import IMAGE, Definition

_UNET = "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015"
_NNUNET = (
    "Isensee et al., nnU-Net: a self-configuring method for biomedical image segmentation, Nature Methods"
    " 2021"
)
_NO_COUNT = "The paper gives no count."


def _segmenter(
    title: str, paper: str, module: str, factory: str, shape: str, batch: int, note: str
) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module=f"predictor.zoo.{module}",
        factory=factory,
        inputs=(
            f"{'image' if module == 'unets' and shape.count(',') == 2 else 'volume'}:float32[B,{shape}]",
        ),
        sequence=None,
        image=None,
        batch=batch,
        note=f"{note} As in NVIDIA's DeepLearningExamples.",
    )


SCENES: dict[str, Definition] = {
    "ssd300-resnet50": Definition(
        title="SSD300, ResNet-50",
        paper="Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016",
        module="predictor.zoo.ssd",
        factory="ssd300_resnet50",
        inputs=(IMAGE[0], "boxes:float32[B,4,8732]", "labels:int64[B,8732]"),
        sequence=None,
        image=300,
        batch=32,
        note=(
            "The paper's network has VGG-16 (torchvision's ssd300_vgg16). Here: ResNet-50 without its "
            "last stage, 81 classes, as in NVIDIA's DeepLearningExamples; objects come matched to the "
            "default boxes."
        ),
    ),
    "unet-medical": _segmenter(
        "U-Net, medical",
        _UNET,
        "unets",
        "unet_medical",
        "1,572,572",
        8,
        f"{_NO_COUNT} The paper upsamples with 2 x 2 convolutions (31.0 million), here 3 x 3. 572 pixels "
        "in, 388 out.",
    ),
    "unet-industrial": _segmenter(
        "U-Net, industrial",
        _UNET,
        "unets",
        "unet_industrial",
        "1,512,512",
        16,
        "The example's comment says 1,824,945; its layers give 25,360 more.",
    ),
    "unet3d-medical": _segmenter(
        "3D U-Net, medical",
        "Isensee et al., nnU-Net: Self-adapting Framework for U-Net-Based Segmentation, arXiv 1809.10486",
        "unets",
        "unet3d_medical",
        "4,128,128,128",
        2,
        _NO_COUNT,
    ),
    "vnet": _segmenter(
        "V-Net",
        "Milletari et al., V-Net: Fully Convolutional Neural Networks for Volumetric Segmentation, 3DV 2016",
        "unets",
        "vnet",
        "1,32,32,32",
        8,
        f"{_NO_COUNT} Smaller than the paper's: three levels and 3 x 3 x 3 convolutions.",
    ),
    "nnunet-2d": _segmenter(
        "nnU-Net 2D",
        _NNUNET,
        "nnunet",
        "nnunet_2d",
        "4,192,160",
        64,
        f"{_NO_COUNT} Slices of 192 x 160, four images of each.",
    ),
    "nnunet-3d": _segmenter(
        "nnU-Net 3D",
        _NNUNET,
        "nnunet",
        "nnunet_3d",
        "4,128,128,128",
        2,
        f"{_NO_COUNT} Patches of 128 x 128 x 128, four images of each.",
    ),
}
