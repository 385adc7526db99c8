"""Our own definitions of the models this field is judged on, each after its paper.

This file imports no torch: it lists what exists. The networks are in the modules named by ``module``,
one family per file. Parameter counts are spelled out in tests/test_zoo.py and docs/reference/zoo.md.
"""

from dataclasses import dataclass

_IMAGE = ("image:float32[B,3,P,P]",)
_IDS = ("ids:int64[B,S]",)

_ALEXNET = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NeurIPS 2012"
_VGG = "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015"
_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_TRANSFORMER = "Vaswani et al., Attention Is All You Need, NeurIPS 2017"
_ELMO = "Peters et al., Deep contextualized word representations, NAACL 2018"
_BERT = "Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019"
_GPT2 = "Radford et al., Language Models are Unsupervised Multitask Learners, OpenAI 2019"
_GPT3 = "Brown et al., Language Models are Few-Shot Learners, NeurIPS 2020"
_T5 = "Raffel et al., Exploring the Limits of Transfer Learning with T5, JMLR 2020"
_LLAMA2 = "Touvron et al., Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv 2307.09288"
_LLAMA3 = "Llama Team, The Llama 3 Herd of Models, arXiv 2407.21783"
_MIXTRAL = "Jiang et al., Mixtral of Experts, arXiv 2401.04088"
_VIT = "Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021"

_TRANSFORMER_NOTE = (
    "Attention projections have no bias, and the vocabulary is the paper's rounded 37,000. 25,000 source "
    "tokens on 8 accelerators are about 96 sentences of 32 tokens each."
)
_BERT_NOTE = (
    "The paper counts the encoder; this model adds the masked-word and next-sentence heads, whose large "
    "matrix is the token embedding. Words are predicted at 15 % of the positions. Sequences are full."
)
_GPT2_NOTE = (
    "OpenAI's repository (gpt-2/README.md) calls the paper's counts wrong; the released weights have this "
    "many. The output matrix is the token embedding, counted once."
)
_LLAMA_NOTE = "The name rounds. Attention is dense and causal over the whole sequence, across documents too."
_VIT_NOTE = (
    "With the head for ImageNet's 1000 classes. Dropout 0.1, as when trained on ImageNet or ImageNet-21k; "
    "the paper used none on JFT-300M."
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One model of the zoo.

    title     name for people
    paper     where the architecture is published
    module    Python module that holds it, imported only when the model is built
    factory   function in that module, without required arguments, that returns a ``torch.nn.Module``
    inputs    keyword inputs of its ``forward`` as "name:dtype[shape]": B batch, S sequence length,
              P image side, or a plain number
    sequence  S it was trained with, None without tokens
    image     P it was trained with, None without images
    batch     B of a sensible micro-batch
    note      where the headline count differs from the exact one, and what was decided
    """

    title: str
    paper: str
    module: str
    factory: str
    inputs: tuple[str, ...]
    sequence: int | None
    image: int | None
    batch: int
    note: str


def _convnet(title: str, paper: str, factory: str, note: str) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module="predictor.zoo.convnets",
        factory=factory,
        inputs=_IMAGE,
        sequence=None,
        image=224,
        batch=32,
        note=note,
    )


def _translator(title: str, factory: str, headline: str) -> Definition:
    return Definition(
        title=title,
        paper=_TRANSFORMER,
        module="predictor.zoo.transformer",
        factory=factory,
        inputs=("source:int64[B,S]", "target:int64[B,S]"),
        sequence=32,
        image=None,
        batch=96,
        note=f"{headline} {_TRANSFORMER_NOTE}",
    )


def _bert(title: str, factory: str, headline: str) -> Definition:
    return Definition(
        title=title,
        paper=_BERT,
        module="predictor.zoo.bert",
        factory=factory,
        inputs=("ids:int64[B,S]", "segments:int64[B,S]"),
        sequence=512,
        image=None,
        batch=8,
        note=f"{headline} {_BERT_NOTE}",
    )


def _gpt2(title: str, factory: str, headline: str) -> Definition:
    return Definition(
        title=title,
        paper=_GPT2,
        module="predictor.zoo.gpt",
        factory=factory,
        inputs=_IDS,
        sequence=1024,
        image=None,
        batch=8,
        note=f"{headline} {_GPT2_NOTE}",
    )


def _llama(title: str, paper: str, factory: str, sequence: int, note: str = _LLAMA_NOTE) -> Definition:
    return Definition(
        title=title,
        paper=paper,
        module="predictor.zoo.llama",
        factory=factory,
        inputs=_IDS,
        sequence=sequence,
        image=None,
        batch=1,
        note=note,
    )


def _vit(title: str, factory: str, headline: str) -> Definition:
    return Definition(
        title=title,
        paper=_VIT,
        module="predictor.zoo.vit",
        factory=factory,
        inputs=_IMAGE,
        sequence=None,
        image=224,
        batch=32,
        note=f"{headline} {_VIT_NOTE}",
    )


ZOO: dict[str, Definition] = {
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
    "transformer-base": _translator(
        "Transformer base",
        "transformer_base",
        "The paper says 65 million; the sizes in its table 3 give 63 million.",
    ),
    "transformer-big": _translator(
        "Transformer big",
        "transformer_big",
        "The paper says 213 million; the sizes in its table 3 give 214 million.",
    ),
    "elmo": Definition(
        title="ELMo",
        paper=_ELMO,
        module="predictor.zoo.elmo",
        factory="elmo",
        inputs=(
            "characters:int64[B,S,50]",
            "words:int64[B,S]",
            "back_characters:int64[B,S,50]",
            "back_words:int64[B,S]",
        ),
        sequence=20,
        image=None,
        batch=128,
        note=(
            "The published 93.6 million are the character encoder and the LSTMs (93,600,848), which are kept "
            "after training. Training adds the softmax over 793,471 words (407,050,623), of which each step "
            "samples 8192. Its gradient is dense here; the authors' code updates the sampled rows only."
        ),
    ),
    "bert-base": _bert("BERT base", "bert_base", "The paper says 110 million."),
    "bert-large": _bert("BERT large", "bert_large", "The paper says 340 million."),
    "gpt2": _gpt2("GPT-2", "gpt2", "The paper says 117 million."),
    "gpt2-medium": _gpt2("GPT-2 medium", "gpt2_medium", "The paper says 345 million."),
    "gpt2-large": _gpt2("GPT-2 large", "gpt2_large", "The paper says 762 million."),
    "gpt2-xl": _gpt2("GPT-2 XL", "gpt2_xl", "The paper says 1542 million."),
    "gpt3-175b": Definition(
        title="GPT-3 175B",
        paper=_GPT3,
        module="predictor.zoo.gpt",
        factory="gpt3_175b",
        inputs=_IDS,
        sequence=2048,
        image=None,
        batch=1,
        note=(
            "The name rounds. Attention is dense in every layer; the paper makes every other one sparse, in "
            "bands whose width is not published."
        ),
    ),
    "t5-11b": Definition(
        title="T5-11B",
        paper=_T5,
        module="predictor.zoo.t5",
        factory="t5_11b",
        inputs=("source:int64[B,S]", "target:int64[B,114]"),
        sequence=512,
        image=None,
        batch=1,
        note=(
            "The name rounds. Version 1.0, whose output matrix is the embedding. Span corruption turns 568 "
            "tokens into 512 inputs and 114 targets; targets stay 114 at any other sequence length."
        ),
    ),
    "llama2-7b": _llama("Llama 2 7B", _LLAMA2, "llama2_7b", 4096),
    "llama2-70b": _llama("Llama 2 70B", _LLAMA2, "llama2_70b", 4096),
    "llama3-8b": _llama("Llama 3 8B", _LLAMA3, "llama3_8b", 8192),
    "llama3-70b": _llama("Llama 3 70B", _LLAMA3, "llama3_70b", 8192),
    "llama3-405b": _llama("Llama 3 405B", _LLAMA3, "llama3_405b", 8192),
    "mixtral-8x7b": _llama(
        "Mixtral 8x7B",
        _MIXTRAL,
        "mixtral_8x7b",
        32768,
        "The name suggests 56 billion, but the experts share attention and embeddings; the paper says 47 "
        "billion, 13 of them used per token. Every expert is given equally many tokens (a balanced router).",
    ),
    "vit-b-16": _vit("ViT-B/16", "vit_b_16", "The paper says 86 million."),
    "vit-l-16": _vit(
        "ViT-L/16",
        "vit_l_16",
        "The paper says 307 million; its sizes and the released weights give 304 million.",
    ),
}
