"""Models of text."""

from predictor.zoo.definition import IDS, Definition

_TRANSFORMER = "Vaswani et al., Attention Is All You Need, NeurIPS 2017"
_ELMO = "Peters et al., Deep contextualized word representations, NAACL 2018"
_BERT = "Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019"
_GPT2 = "Radford et al., Language Models are Unsupervised Multitask Learners, OpenAI 2019"
_GPT3 = "Brown et al., Language Models are Few-Shot Learners, NeurIPS 2020"
_T5 = "Raffel et al., Exploring the Limits of Transfer Learning with T5, JMLR 2020"
_LLAMA2 = "Touvron et al., Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv 2307.09288"
_LLAMA3 = "Llama Team, The Llama 3 Herd of Models, arXiv 2407.21783"
_MIXTRAL = "Jiang et al., Mixtral of Experts, arXiv 2401.04088"
_GNMT = "Wu et al., Google's Neural Machine Translation System, arXiv 1609.08144"
_TRANSFORMER_XL = (
    "Dai et al., Transformer-XL: Attentive Language Models beyond a Fixed-Length Context, ACL 2019"
)
_ELECTRA = "Clark et al., ELECTRA: Pre-training Text Encoders as Discriminators, ICLR 2020"
_KERAS_EXAMPLE = "Nandan, Text classification with Transformer, keras.io/examples, 2020"

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
_TUNED_NOTE = "The encoder with a new head; its own pooler is left away where the head does not use it."
_XL_NOTE = (
    "Attention sees as many words of the segment before as the segment has. As in NVIDIA's "
    "DeepLearningExamples, on WikiText-103 (267,735 words)."
)
_LLAMA_NOTE = "The name rounds. Attention is dense and causal over the whole sequence, across documents too."


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
        inputs=IDS,
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
        inputs=IDS,
        sequence=sequence,
        image=None,
        batch=1,
        note=note,
    )


def _tuned(title: str, factory: str, sequence: int, batch: int, note: str) -> Definition:
    return Definition(
        title=title,
        paper=_BERT,
        module="predictor.zoo.bert_heads",
        factory=factory,
        inputs=("ids:int64[B,S]", "segments:int64[B,S]"),
        sequence=sequence,
        image=None,
        batch=batch,
        note=f"{note} {_TUNED_NOTE}",
    )


def _transformer_xl(
    title: str, factory: str, layers: int, width: int, sequence: int, batch: int, note: str
) -> Definition:
    return Definition(
        title=title,
        paper=_TRANSFORMER_XL,
        module="predictor.zoo.transformer_xl",
        factory=factory,
        inputs=("ids:int64[B,S]", f"memory:float32[{layers + 1},S,B,{width}]"),
        sequence=sequence,
        image=None,
        batch=batch,
        note=f"{note} {_XL_NOTE}",
    )


TEXT: dict[str, Definition] = {
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
        inputs=IDS,
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
    "bert-base-squad": _tuned("BERT base, SQuAD", "bert_base_squad", 384, 32, "Answers from a paragraph."),
    "bert-large-squad": _tuned("BERT large, SQuAD", "bert_large_squad", 384, 8, "Answers from a paragraph."),
    "bert-base-names": _tuned(
        "BERT base, names", "bert_base_names", 128, 64, "Marks names, 3 labels per token."
    ),
    "bert-base-sentiment": _tuned(
        "BERT base, sentiment", "bert_base_sentiment", 128, 32, "Two classes per sequence."
    ),
    "electra-base": Definition(
        title="ELECTRA base",
        paper=_ELECTRA,
        module="predictor.zoo.bert_heads",
        factory="electra_base",
        inputs=("ids:int64[B,S]", "segments:int64[B,S]"),
        sequence=512,
        image=None,
        batch=16,
        note=(
            "The paper's 110 million are the discriminator, which is kept; the generator, a third as "
            "wide, and its heads add 9 million while training."
        ),
    ),
    "gnmt": Definition(
        title="GNMT v2",
        paper=_GNMT,
        module="predictor.zoo.gnmt",
        factory="gnmt",
        inputs=("source:int64[B,S]", "target:int64[B,S]"),
        sequence=28,
        image=None,
        batch=128,
        note=(
            "Version 2 of MLPerf 0.6 and DeepLearningExamples: 4 + 4 layers, not the paper's 8 + 8. "
            "Sentences of 28 sub-words (estimate: WMT16 English-German, at most 50)."
        ),
    ),
    "transformer-xl-base": _transformer_xl(
        "Transformer-XL base", "transformer_xl_base", 16, 512, 192, 32, "Adaptive softmax."
    ),
    "transformer-xl-large": _transformer_xl(
        "Transformer-XL large",
        "transformer_xl_large",
        18,
        1024,
        384,
        8,
        "The paper says 257 million. Adaptive softmax; rare words are 4, 16 and 64 times narrower.",
    ),
    "transformer-xl-base-full": _transformer_xl(
        "Transformer-XL base, full softmax",
        "transformer_xl_base_full",
        16,
        512,
        192,
        16,
        "Every step scores all 267,735 words, as when the example is run without --adaptive.",
    ),
    "transformer-xl-large-full": _transformer_xl(
        "Transformer-XL large, full softmax",
        "transformer_xl_large_full",
        18,
        1024,
        256,
        4,
        "Every step scores all 267,735 words, and all embeddings are 1024 wide.",
    ),
    "small-transformer": Definition(
        title="Small Transformer (Keras example)",
        paper=_KERAS_EXAMPLE,
        module="predictor.zoo.text_classifier",
        factory="small_transformer",
        inputs=IDS,
        sequence=200,
        image=None,
        batch=32,
        note="The page gives no count.",
    ),
}
